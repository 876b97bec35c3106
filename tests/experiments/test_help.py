"""What `--help` lists is what there is: names stand in help texts as prose, and registries grow."""

import pytest

import jaxattr as ja
from experiments import cli
from experiments.audits.presets import PRESETS
from experiments.datasets import DATASETS
from experiments.training import recipes
from experiments.training.objectives import DEFENSES


def help_of(command, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "400")
    with pytest.raises(SystemExit) as exit_:
        cli.main([command, "--help"])
    assert exit_.value.code == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("command", ["audit", "train"])
def test_help_names_every_data_set_network_defense_and_preset(command, capsys, monkeypatch):
    text = help_of(command, capsys, monkeypatch)
    datasets = set(DATASETS) - ({"photographs"} if command == "train" else set())
    presets = PRESETS if command == "audit" else recipes.PRESETS
    for name in [*datasets, *ja.models.REGISTRY, *DEFENSES, *presets]:
        assert name in text, name


def test_every_command_says_what_it_does(capsys):
    with pytest.raises(SystemExit):
        cli.main(["--help"])
    text = capsys.readouterr().out
    for name, (_, words) in cli._COMMANDS.items():
        assert name in text
        assert words.split(";")[0][:30] in text
