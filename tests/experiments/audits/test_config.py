"""Presets, what a command line changes of them, and the hash of networks and samples."""

import dataclasses

import pytest

from experiments import cli
from experiments.audits.config import Config, models, resolve, training_of
from experiments.audits.presets import PRESETS, attacks, preset
from experiments.training import objectives
from jaxattr.audit import spec
from jaxattr.audit.run_directory import as_dict, config_hash, from_dict


@pytest.mark.parametrize("name", PRESETS)
def test_presets_resolve(name):
    config = resolve(PRESETS[name][1], name)
    assert config.output == f"results/{name}"
    assert all(value is not None for value in (config.l2, config.linf, config.model))
    assert not any("{k}" in text for text in (*config.attacks, *config.metrics))
    assert from_dict(Config, as_dict(config)) == config
    for defense in config.defenses:
        trained = training_of(config, defense)
        assert trained.output == f"results/{name}/models/{defense}"
        assert (trained.dataset, trained.model, trained.beta) == (config.dataset, config.model, config.beta)
        assert trained.training.preset == config.training.preset
        assert trained.training.epsilon > 0


def test_the_command_line_overrides_any_field():
    arguments = ["--preset", "smoke", "--dataset", "mnist", "--l2", "0.1", "0.2", "--training.epochs", "3"]
    preset, config = cli.parse_audit(
        [*arguments, "--attributions", "saliency", "ig=integrated_gradients(num_steps=7, rule='left')"]
    )
    assert preset == "smoke"
    assert (config.dataset, config.model, config.l2) == ("mnist", "conv_net", (0.1, 0.2))
    assert config.training.epochs == 3
    assert config.attributions == ("saliency", "ig=integrated_gradients(num_steps=7, rule='left')")


def test_a_preset_fits_the_data_set():
    mnist, photographs = (
        cli.parse_audit(["--preset", "cpu", "--dataset", name])[1] for name in ("mnist", "photographs")
    )
    assert (mnist.num_samples, len(mnist.defenses), mnist.source) == (500, 7, "zoo")
    assert list(spec.bounds(mnist, "linf")) == ["norm_relaxation", "entrywise", "semidefinite", "semidefinite_box"]
    assert (photographs.num_samples, photographs.source) == (2, "imagenet")
    assert list(spec.bounds(photographs, "linf")) == ["norm_relaxation", "entrywise"]
    _, given = cli.parse_audit(
        ["--preset=cpu", "--dataset=cifar10_jpeg", "--num-samples=3", "--bounds", "singular_value", "semidefinite"]
    )
    assert (given.num_samples, given.defenses) == (3, ("natural", "adversarial", "trades"))
    assert list(spec.bounds(given, "linf")) == ["semidefinite"]
    with pytest.raises(ValueError, match="`dataset` is 'imagenet'; accepted are digits, mnist"):
        resolve(preset("demo", "imagenet"), "demo")


def test_attacks_of_a_preset_are_those_of_wang_and_kong_2023():
    config = dataclasses.replace(PRESETS["paper"][1], attacks=attacks(starts=20, ascent_starts=1))
    found = spec.attacks(resolve(config, "paper"))
    assert {label: starts.count for label, starts in found.items()} == {"pgd": 20, "ifia": 20, "ascent": 1}
    assert str(found["ifia"].call) == "ifia(dissimilarity=top_k(100))"


def test_all_radii_are_those_of_the_data_set():
    _, one = cli.parse_audit(["--preset", "smoke"])
    _, all_of_them = cli.parse_audit(["--preset", "smoke", "--all-radii"])
    assert (one.l2, one.linf) == ((0.05,), (0.01,))
    assert (all_of_them.l2, all_of_them.linf) == ((0.02, 0.05, 0.1), (0.005, 0.01, 0.02))


def test_defenses_have_labels_and_calls_of_registered_ones():
    _, config = cli.parse_audit(
        ["--preset", "smoke", "--defenses", "natural", "soft=trades(beta=1.0)", "trades(beta=3.0)"]
    )
    assert models(config) == ("natural", "soft", "trades")
    trained = training_of(config, "soft")
    assert (trained.defense, trained.output) == ("trades(beta=1.0)", "results/smoke/models/soft")


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["--dataset", "imagenet"], "mnist"),
        (["--attributions", "lime"], "integrated_gradients"),
        (["--attributions", "saliancy"], "did you mean `saliency`"),
        (["--attributions", "integrated_gradients(num_step=3)"], "did you mean `num_steps`"),
        (["--bounds", "singular"], "did you mean `singular_value`"),
        (["--attacks", "restarts(pgdd, 2)"], "did you mean `pgd`"),
        (["--metrics", "spaerman"], "did you mean `spearman`"),
        (["--metrics", "bound=spearman"], "'bound' is the name of a column already"),
        (["--l2", "-0.1"], "l2"),
        (["--num-samples", "0"], "num_samples"),
        (["--defenses", "natural", "trade"], "trades_igr"),
        (["--defenses", "natural", "natural"], "two are called 'natural'"),
        (["--training.epochs", "0"], "epochs"),
        (["--model", "vgg"], "conv_net"),
        (["--source", "zoo", "--defenses", "art"], "digits/natural, digits/trades_igr"),
    ],
)
def test_bad_options_name_what_is_accepted(arguments, word, capsys, tmp_path):
    assert cli.main(["audit", "--preset", "smoke", "--output", str(tmp_path / "run"), *arguments]) == 2
    assert word in capsys.readouterr().err.replace("--num-samples", "num_samples")
    # Nothing was made.
    assert not (tmp_path / "run").exists()


def test_the_hash_is_of_what_changes_networks_and_samples():
    config = resolve(PRESETS["smoke"][1], "smoke")
    same = {"output": "elsewhere", "batch_size": 3, "l2": (0.07,), "defenses": ("natural",), "kinks": "allow"}
    assert config_hash(config) == config_hash(dataclasses.replace(config, **same))
    assert config_hash(config) != config_hash(dataclasses.replace(config, seed=1))
    assert config_hash(config) != config_hash(dataclasses.replace(config, source="zoo"))
    training = dataclasses.replace(config.training, epochs=2)
    assert config_hash(config) != config_hash(dataclasses.replace(config, training=training))


def test_what_an_audit_measures_is_of_the_cells_and_not_of_the_run():
    """An option of what is measured, and no option of networks, is left to the identity of each cell."""
    hashed = {field.name for field in dataclasses.fields(Config)} - set(Config.NOT_HASHED)
    assert hashed == {"dataset", "seed", "model", "width", "beta", "source", "training"}
    assert set(objectives.labeled(Config().defenses)) == set(Config().defenses)
