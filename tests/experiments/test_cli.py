"""Commands say what they accept, quickly, and how to mend what is wrong."""

import subprocess
import sys

import pytest

from experiments import cli
from experiments.audits.presets import PRESETS
from experiments.training import recipes


def said(arguments, capsys):
    """Run a command that ends with help or an error of usage: its status, and everything that it says."""
    with pytest.raises(SystemExit) as ended:
        cli.main(arguments)
    captured = capsys.readouterr()
    return ended.value.code, " ".join((captured.out + captured.err).split())


def test_help_lists_all_commands(capsys):
    status, text = said(["--help"], capsys)
    assert status == 0
    for name in ("train", "audit", "seeds", "paper", "report", "publish", "pack-data", "take-in"):
        assert name in text


@pytest.mark.parametrize(("command", "presets"), [("audit", PRESETS), ("seeds", PRESETS), ("train", recipes.PRESETS)])
def test_help_of_a_command_lists_presets_and_options(command, presets, capsys):
    status, text = said([command, "--help"], capsys)
    assert status == 0
    # Words are broken where the lines end.
    narrow = "".join(c for c in text if c.isalnum())
    for name, about in presets.items():
        words = about if isinstance(about, str) else about[0]
        assert f"--preset {name}:" in text
        assert "".join(c for c in words if c.isalnum())[:40] in narrow
    assert "--training.epochs" in text


def test_defaults_in_help_are_those_of_the_preset(capsys):
    _, text = said(["audit", "--preset", "cpu", "--dataset", "mnist", "--help"], capsys)
    assert "(default: 500)" in text
    _, text = said(["audit", "--preset", "smoke", "--help"], capsys)
    assert "(default: 16)" in text


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["evaluate"], ["Unrecognized options: evaluate", "audit, seeds"]),
        ([], ["audit", "train"]),
        (["audit", "--preset", "smok"], ["smoke", "demo"]),
        (["train", "--preset", "demo"], ["smoke", "cpu", "paper"]),
        (["audit", "--num-sample", "3"], ["--num-sample", "--num-samples"]),
        (["audit", "--num-samples", "many"], ["--num-samples", "many"]),
        (["seeds", "--preset", "smok"], ["smoke", "demo"]),
    ],
)
def test_wrong_usage_is_status_2_and_says_what_there_is(arguments, words, capsys):
    status, text = said(arguments, capsys)
    assert status == 2
    for word in words:
        assert word in text


QUICK = """
import sys
import jax
compiled = []
jax.monitoring.register_event_duration_secs_listener(lambda name, _, **__: compiled.append(name))
from experiments import cli
for arguments in (["--help"], ["audit", "--help"], ["audit", "--preset", "smok"], ["train", "--help"]):
    try:
        cli.main(arguments)
    except SystemExit:
        pass
slow = ("matplotlib", "sklearn", "tensorflow_datasets", "orbax", "jaxattr.audit.page", "jaxattr.audit.figures")
slow += ("experiments.papers.report", "experiments.audits.seeds", "experiments.accelerator.take_in")
print()
print([name for name in slow if name in sys.modules], [name for name in compiled if "backend_compile" in name])
"""


def test_help_and_errors_of_usage_load_nothing_slow_and_compile_nothing():
    done = subprocess.run([sys.executable, "-c", QUICK], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[] []", done.stdout[-200:]


def test_a_failed_training_is_status_1(monkeypatch, capsys):
    def fail(*_, **__):
        raise FloatingPointError("the loss is not finite")

    monkeypatch.setattr(cli.train, "train", fail)
    assert cli.main(["train", "--preset", "smoke"]) == 1
    assert capsys.readouterr().err.endswith("error: the loss is not finite\n")


def test_a_file_in_the_way_is_status_2(tmp_path, capsys):
    (tmp_path / "file").write_text("words")
    assert cli.main(["audit", "--preset", "smoke", "--output", str(tmp_path / "file")]) == 2
    assert "is a file; choose another `--output`" in capsys.readouterr().err
