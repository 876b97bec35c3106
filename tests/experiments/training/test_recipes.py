"""From names and hyperparameters to objectives, and the presets of training."""

import dataclasses
import inspect
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxattr as ja
from experiments import cli
from experiments.datasets import DATASETS
from experiments.training import objectives, recipes, train
from experiments.training.objectives import DEFENSES, Hyperparameters
from experiments.training.recipes import Training, recipe
from experiments.training.train import TrainConfig
from jaxattr.audit.run_directory import as_dict, config_hash, from_dict

GIVEN = Hyperparameters(
    epsilon=0.1, attack_steps=2, step_size=0.05, strength=0.7, trades_beta=2.0, l1=1e-3, path_steps=3,
    attack_path_steps=2, chunk=2, art_k=5,
)  # fmt: skip
BALL = ja.LInf(0.1)
CLIMB = {"num_steps": 2, "step_size": 0.05}
PATH = {"path_steps": 3, "attack_path_steps": 2, "chunk": 2}
IG, COARSE = (ja.attributions.integrated_gradients(steps, chunk=2) for steps in (3, 2))

# What each name stands for, spelled out.
MEANT = {
    "natural": lambda d: d.natural(1e-3),
    "adversarial": lambda d: d.adversarial(ja.attacks.pgd(BALL, **CLIMB)),
    "trades": lambda d: d.trades(BALL, 2.0, **CLIMB),
    "ig_norm": lambda d: d.ig_norm(BALL, 0.7, **CLIMB, **PATH),
    "ig_sum_norm": lambda d: d.ig_sum_norm(BALL, 0.7, **CLIMB, **PATH),
    "aat": lambda d: d.aat(IG, BALL, 0.7, **CLIMB, attack_attribute=COARSE),
    "adv_aat": lambda d: d.adv_aat(IG, BALL, 0.7, **CLIMB, attack_attribute=COARSE),
    "art": lambda d: d.art(BALL, 0.7, k=5, mean=0.4, std=0.2, **CLIMB),
    "natural_igr": lambda d: d.igr(d.natural(1e-3), IG, 0.7, attack=ja.attacks.pgd(BALL, **CLIMB)),
    "adversarial_igr": lambda d: d.igr(d.adversarial(ja.attacks.pgd(BALL, **CLIMB)), IG, 0.7),
    "trades_igr": lambda d: d.igr(d.trades(BALL, 2.0, **CLIMB), IG, 0.7),
}


@pytest.mark.parametrize("name", DEFENSES)
def test_a_name_is_the_objective_that_it_says(name):
    weights = jax.random.normal(jax.random.key(0), (6, 3))

    def network(variables, xs, *, train=False, key=None):
        return jnp.tanh(xs @ variables["params"]) * 2, {}

    batch = ja.training.Batch(jax.random.uniform(jax.random.key(1), (4, 6)), jnp.array([0, 1, 2, 0]))
    data = dataclasses.replace(DATASETS["digits"], mean=0.4, std=0.2)

    def program(objective):
        """All operations and numbers of the loss, which say more than its value at one place."""
        loss = jax.make_jaxpr(lambda params: objective(network, {"params": params}, batch, jax.random.key(2))[0])
        traced = loss(weights)
        # Functions are printed with where they lie in memory.
        return re.sub(r"0x[0-9a-f]+", "", str(traced)), traced.consts

    (built, constants), (meant, expected) = (
        program(objectives.build(name, GIVEN, data)),
        program(MEANT[name](ja.defenses)),
    )
    assert built == meant
    assert len(constants) == len(expected)
    for one, other in zip(constants, expected, strict=True):
        np.testing.assert_array_equal(one, other)


def test_every_hyperparameter_reaches_some_objective():
    source = inspect.getsource(objectives)
    for field in dataclasses.fields(Hyperparameters):
        assert f"given.{field.name}" in source or f'"{field.name}"' in source


def test_an_unknown_defense_lists_the_known_ones():
    with pytest.raises(ValueError, match=r"'trade'.*trades_igr"):
        objectives.build("trade", GIVEN, DATASETS["digits"])


@pytest.mark.parametrize("defense", DEFENSES)
@pytest.mark.parametrize("dataset", DATASETS)
@pytest.mark.parametrize("preset", recipes.PRESETS)
def test_every_preset_trains_every_defense(preset, dataset, defense):
    if (preset, dataset) == ("paper", "digits"):
        with pytest.raises(ValueError, match="no paper trains on digits"):
            recipe(preset, dataset, defense)
        return
    config = train.resolve(TrainConfig(dataset=dataset, defense=defense, training=Training(preset=preset)))
    assert config.training == recipe(preset, dataset, defense)
    assert config.training.preset == preset
    assert objectives.build(defense, config.training, DATASETS[dataset]) is not None
    assert from_dict(TrainConfig, as_dict(config)) == config


def test_paper_settings_are_those_of_the_papers():
    trades = recipe("paper", "mnist", "trades")
    assert (trades.epsilon, trades.attack_steps, trades.step_size, trades.trades_beta) == (0.3, 40, 0.01, 1.0)
    assert (trades.optimizer, trades.learning_rate, trades.batch_size, trades.epochs) == ("sgd", 0.01, 128, 100)
    ig_norm = recipe("paper", "fashion_mnist", "ig_norm")
    assert (ig_norm.epsilon, ig_norm.attack_steps, ig_norm.step_size, ig_norm.strength) == (0.1, 20, 0.01, 1.0)
    assert (ig_norm.path_steps, ig_norm.attack_path_steps, ig_norm.steps, ig_norm.batch_size) == (50, 10, 100_000, 50)
    assert recipe("paper", "mnist", "ig_sum_norm").strength == 0.1
    art = recipe("paper", "mnist", "art")
    assert art.step_size == pytest.approx(0.3 * 5 / 8)
    assert recipe("paper", "cifar10", "trades").trades_beta == 6.0


def test_the_command_line_overrides_any_field():
    arguments = ["--preset", "paper", "--dataset", "mnist", "--defense", "trades", "--training.epochs", "2"]
    config = cli.parse_train(
        [*arguments, "--training.drops", "0.5", "0.1", "0.75", "0.01", "--training.bfloat16", "True"]
    )
    assert (config.model, config.output) == ("conv_net", "runs/mnist-trades-paper")
    assert config.training.epochs == 2
    assert config.training.drops == ((0.5, 0.1), (0.75, 0.01))
    assert config.training.bfloat16
    assert config.training.step_size == 0.01


def test_steps_stand_for_the_epochs_of_a_preset_and_a_radius_for_that_of_the_measurement():
    config = cli.parse_train(["--preset", "smoke", "--training.steps", "3", "--training.epsilon", "0.05"])
    assert (config.training.steps, config.training.epochs) == (3, None)
    assert config.training.pgd_epsilon == 0.05


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["--dataset", "imagenet"], "mnist"),
        (["--defense", "trade"], "trades_igr"),
        (["--model", "vgg"], "conv_net"),
        (["--training.epsilon", "-0.1"], "epsilon"),
        (["--training.attack-steps", "0"], "attack_steps"),
        (["--training.epochs", "1", "--training.steps", "1"], "either"),
        (["--training.schedule", "drops"], "drops"),
        (["--training.drops", "0.5", "0.1", "0.2", "0.01"], "rising"),
        (["--preset", "paper"], "no paper trains on digits"),
    ],
)
def test_bad_options_name_what_is_accepted(arguments, word, capsys):
    assert cli.main(["train", *arguments]) == 2
    assert word in capsys.readouterr().err


def test_the_hash_is_of_what_changes_weights():
    config = train.resolve(TrainConfig(training=Training(preset="smoke")))
    assert config_hash(config) == config_hash(dataclasses.replace(config, output="elsewhere", data_dir="there"))
    training = dataclasses.replace(config.training, strength=0.5)
    assert config_hash(config) != config_hash(dataclasses.replace(config, training=training))


def test_drops_are_factors_of_the_first_rate():
    options = dataclasses.replace(
        recipe("paper", "mnist", "trades"), momentum=0.0, drops=((0.5, 0.1), (0.75, 0.01)), learning_rate=0.2
    )
    optimizer = train.optimizer(options, 8)
    state, rates = optimizer.init(jnp.zeros(())), []
    for _ in range(8):
        update, state = optimizer.update(jnp.ones(()), state, jnp.zeros(()))
        rates.append(-float(update))
    np.testing.assert_allclose(rates, [0.2] * 4 + [0.02] * 2 + [0.002] * 2, rtol=1e-5)


def test_weight_decay_is_added_to_the_gradient():
    options = dataclasses.replace(recipe("paper", "cifar10", "trades"), momentum=0.0, weight_decay=0.5)
    optimizer = train.optimizer(options, 8)
    weights = jnp.array(3.0)
    update, _ = optimizer.update(jnp.array(1.0), optimizer.init(weights), weights)
    assert float(update) == pytest.approx(-0.1 * (1.0 + 0.5 * 3.0))
