"""Presets, overrides and the hash that rows are stored under."""

import dataclasses

import pytest

from experiments import cli
from experiments.config import resolve, training_of
from experiments.presets import PRESETS
from experiments.record import config_hash


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_resolve(preset):
    config = resolve(PRESETS[preset][1], preset)
    assert config.output == f"results/{preset}"
    assert all(value is not None for value in (config.l2, config.linf, config.model))
    for defense in config.defenses:
        trained = training_of(config, defense)
        assert trained.output == f"results/{preset}/models/{defense}"
        assert (trained.dataset, trained.model, trained.beta) == (config.dataset, config.model, config.beta)
        assert trained.training.preset == config.training.preset
        assert trained.training.epsilon > 0


def test_the_command_line_overrides_any_field():
    arguments = ["--preset", "smoke", "--dataset", "mnist", "--l2", "0.1", "0.2", "--training.epochs", "3"]
    preset, config = cli.parse_evaluate([*arguments, "--attributions", "saliency", "integrated_gradients"])
    assert preset == "smoke"
    assert (config.dataset, config.model, config.l2) == ("mnist", "conv_net", (0.1, 0.2))
    assert config.training.epochs == 3
    assert config.attributions == ("saliency", "integrated_gradients")


def test_a_preset_fits_the_data_set():
    mnist, photographs = (
        cli.parse_evaluate(["--preset", "cpu", "--dataset", name])[1] for name in ("mnist", "photographs")
    )
    assert (mnist.num_samples, len(mnist.defenses), mnist.beyond, mnist.source) == (500, 7, True, "zoo")
    assert (photographs.num_samples, photographs.beyond, photographs.source) == (2, False, "imagenet")
    _, given = cli.parse_evaluate(["--preset", "cpu", "--dataset", "cifar10_jpeg", "--beyond", "--num-samples", "3"])
    assert (given.num_samples, given.beyond, given.defenses) == (3, True, ("natural", "adversarial", "trades"))


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["--dataset", "imagenet"], "mnist"),
        (["--attributions", "lime"], "integrated_gradients"),
        (["--l2", "-0.1"], "l2"),
        (["--num-samples", "0"], "num_samples"),
        (["--defenses", "natural", "trade"], "trades_igr"),
        (["--training.epochs", "0"], "epochs"),
    ],
)
def test_bad_options_name_what_is_accepted(arguments, word, capsys):
    assert cli.main(["evaluate", "--preset", "smoke", *arguments]) == 2
    assert word in capsys.readouterr().err.replace("-", "_")


def test_the_hash_is_of_what_changes_numbers():
    config = resolve(PRESETS["smoke"][1], "smoke")
    assert config_hash(config) == config_hash(dataclasses.replace(config, output="elsewhere", batch_size=3))
    assert config_hash(config) != config_hash(dataclasses.replace(config, seed=1))
    assert config_hash(config) != config_hash(dataclasses.replace(config, l2=(0.07,)))
    training = dataclasses.replace(config.training, epochs=2)
    assert config_hash(config) != config_hash(dataclasses.replace(config, training=training))
