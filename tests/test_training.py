import json
import os
import subprocess
import sys
from pathlib import Path

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from jaxattr import models
from jaxattr.defenses import natural
from jaxattr.training import Batch, accuracy, fit


class Network(nn.Module):
    """Small, and with everything that a restart has to carry over: statistics and dropout."""

    @nn.compact
    def __call__(self, xs, train=False):
        xs = nn.BatchNorm(use_running_average=not train)(nn.Dense(8)(xs))
        return nn.Dense(3)(nn.Dropout(0.2, deterministic=not train)(nn.softplus(xs)))


APPLY = models.apply_fn(Network())


@pytest.fixture(scope="module")
def variables():
    return models.init(Network(), jax.random.key(0), (4,))


def make_data(n=50):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(n, 4)).astype(np.float32)
    return Batch(x, (x @ rng.normal(size=(4, 3))).argmax(1).astype(np.int32))


def train(variables, **changes):
    options = {
        "optimizer": optax.adam(optax.cosine_decay_schedule(0.05, 60)),
        "batch_size": 16,
        "epochs": 6,  # of three steps: two samples are left over in each
        "key": jax.random.key(7),
        "log_every": 5,
    }
    return fit(natural(), APPLY, variables, make_data(), **(options | changes))


def comparable(history):
    return [{name: value for name, value in row.items() if name != "seconds"} for row in history]


def test_one_step_of_sgd_in_closed_form():
    """All samples in one batch, so that their order does not matter."""
    data, rate = make_data(), 0.5
    x, y = data.x.astype(np.float64), np.eye(3)[data.label]
    apply = models.apply_fn(models.MLP(num_classes=3, hidden=()))
    start = {"params": {"Dense_0": {"kernel": jnp.zeros((4, 3)), "bias": jnp.zeros(3)}}}
    result = fit(
        natural(),
        apply,
        start,
        data,
        optimizer=optax.sgd(rate),
        batch_size=50,
        steps=1,
        key=jax.random.key(0),
    )
    # At zero weights all classes have probability 1/3.
    gradient = {"kernel": x.T @ (1 / 3 - y) / 50, "bias": (1 / 3 - y).mean(0)}
    for name, value in gradient.items():
        np.testing.assert_allclose(result.variables["params"]["Dense_0"][name], -rate * value, rtol=1e-4, atol=1e-6)
    (row,) = result.history
    assert row["loss"] == pytest.approx(np.log(3), rel=1e-5)
    norm = np.sqrt(sum((value**2).sum() for value in gradient.values()))
    assert row["grad_norm"] == pytest.approx(norm, rel=1e-4)
    # The caller's arrays were not donated.
    assert not np.any(start["params"]["Dense_0"]["kernel"])


def test_epochs_visit_every_sample_in_new_orders():
    visited = []

    def objective(apply_fn, variables, batch, key):
        jax.debug.callback(lambda x, key: visited.append((x.ravel(), key)), batch.x, key_data(key))
        return variables["params"].sum(), {"metrics": {}, "updates": {}}

    key_data = jax.random.key_data
    data = Batch(np.arange(6, dtype=np.float32)[:, None], np.zeros(6, int))
    fit(
        objective,
        APPLY,
        {"params": jnp.ones(2)},
        data,
        optimizer=optax.sgd(0.1),
        batch_size=2,
        epochs=3,
        key=jax.random.key(0),
    )
    jax.effects_barrier()
    orders = np.concatenate([x for x, _ in visited]).reshape(3, 6)
    np.testing.assert_array_equal(np.sort(orders, axis=1), np.tile(np.arange(6), (3, 1)))
    assert len(np.unique(orders, axis=0)) == 3
    assert len(np.unique([key for _, key in visited], axis=0)) == 9


def test_training_learns_and_reports(variables, tmp_path, capsys):
    data, log = make_data(), tmp_path / "runs" / "log.jsonl"
    result = train(
        variables,
        epochs=20,
        evaluate=lambda variables: {"clean": accuracy(APPLY, variables, data)},
        evaluate_every=30,
        log=log,
        log_every=20,
        progress=True,
    )
    assert result.step == 60
    assert [(row["step"], "clean" in row) for row in result.history] == [
        (20, False),
        (30, True),
        (40, False),
        (60, False),
        (60, True),
    ]
    assert [json.loads(line) for line in log.read_text().splitlines()] == result.history
    assert result.history[0]["epoch"] == pytest.approx(20 / 3, abs=1e-4)
    assert result.history[0]["loss"] > 1.5 * result.history[3]["loss"]
    assert result.history[-1]["clean"] == accuracy(APPLY, result.variables, data) > 0.9
    assert "step 60/60" in capsys.readouterr().err
    # The statistics were carried along, and only by training.
    assert np.any(result.variables["batch_stats"]["BatchNorm_0"]["mean"])
    assert not np.any(variables["batch_stats"]["BatchNorm_0"]["mean"])


def test_killed_run_ends_as_the_one_that_was_not(variables, tmp_path):
    whole = train(variables, checkpoint_dir=tmp_path / "whole", checkpoint_every=4)
    log = tmp_path / "log.jsonl"
    options = {"checkpoint_dir": tmp_path / "killed", "checkpoint_every": 4, "log": log}

    def power_cut(_):
        raise KeyboardInterrupt

    # After step 11: three steps and a line of the log are lost, in the middle of the fourth epoch.
    with pytest.raises(KeyboardInterrupt):
        train(variables, evaluate=power_cut, evaluate_every=11, **options)
    with log.open("a") as file:
        file.write('{"step": 11, "lo')
    assert sorted(path.name for path in (tmp_path / "killed").iterdir()) == ["4", "8"]
    resumed = train(variables, **options)
    chex.assert_trees_all_equal(resumed.variables, whole.variables)
    assert resumed.step == whole.step == 18
    assert comparable(resumed.history) == comparable(whole.history)
    assert [json.loads(line) for line in log.read_text().splitlines()] == resumed.history
    # A run without checkpoints ends there too, and a finished one is not trained again.
    chex.assert_trees_all_equal(train(variables).variables, whole.variables)
    again = train(variables, **options)
    chex.assert_trees_all_equal(again.variables, whole.variables)
    assert again.history == resumed.history
    # And it can be made longer.
    longer = train(variables, **(options | {"epochs": 7}))
    chex.assert_trees_all_equal(longer.variables, train(variables, epochs=7).variables)


KILLED = """
import os, sys
sys.path.insert(0, sys.argv[1])
from test_training import Network, models, jax, train
variables = models.init(Network(), jax.random.key(0), (4,))
train(variables, checkpoint_dir=sys.argv[2], checkpoint_every=4,
      evaluate=lambda _: os.kill(os.getpid(), 9), evaluate_every=11)
"""


def test_process_that_is_killed_can_be_restarted(variables, tmp_path):
    here = str(Path(__file__).parent)
    environment = os.environ | {"PYTHONPATH": str(Path(here).parent)}
    command = [sys.executable, "-c", KILLED, here, str(tmp_path / "run")]
    assert subprocess.run(command, env=environment, check=False, timeout=300).returncode == -9
    resumed = train(variables, checkpoint_dir=tmp_path / "run", checkpoint_every=4)
    # Another process may have compiled other code: equal to rounding.
    chex.assert_trees_all_close(resumed.variables, train(variables).variables, rtol=1e-6, atol=1e-7)


def test_restart_with_other_arguments_is_refused(variables, tmp_path):
    options = {"checkpoint_dir": tmp_path / "run", "steps": 4, "epochs": None}
    train(variables, **options)
    for change, word in (
        ({"key": jax.random.key(8)}, "another key"),
        ({"batch_size": 8}, "another batch_size"),
    ):
        with pytest.raises(ValueError, match=rf"run/4 was written by a run with {word}"):
            train(variables, **(options | change))
    with pytest.raises(ValueError, match=r"holds a run of 4 steps already, more than the 3"):
        train(variables, **(options | {"steps": 3}))
    with pytest.raises(ValueError, match="another model or optimizer"):
        train(variables, **(options | {"optimizer": optax.sgd(0.1, momentum=0.9)}))


@pytest.mark.parametrize("what", ["loss", "gradient"])
def test_nan_stops_with_the_step_and_the_last_good_checkpoint(what, tmp_path):
    def objective(apply_fn, variables, batch, key):
        w = variables["params"]
        # Falls by 1 a step, to 0 after the sixth. The loss is finite there, and its gradient not.
        gap = jnp.log(w) if what == "loss" else jnp.sqrt(w)
        return w + 0.0 * gap, {"metrics": {}, "updates": {}}

    def run(directory):
        return fit(
            objective,
            APPLY,
            {"params": jnp.asarray(6.0)},
            make_data(),
            optimizer=optax.sgd(1.0),
            batch_size=50,
            steps=20,
            key=jax.random.key(0),
            checkpoint_dir=directory,
            checkpoint_every=5,
            log=tmp_path / f"{directory is None}.jsonl",
        )

    with pytest.raises(FloatingPointError, match=r"step 7; the last good checkpoint is .*run/5\."):
        run(tmp_path / "run")
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["5"]
    with pytest.raises(FloatingPointError, match=r"step 7; there is no checkpoint before it"):
        run(None)


def test_metrics_may_be_undefined(tmp_path):
    """The log stays JSON, which has no NaN."""

    def objective(apply_fn, variables, batch, key):
        return variables["params"].sum(), {"metrics": {"angle": jnp.nan}, "updates": {}}

    log = tmp_path / "log.jsonl"
    result = fit(
        objective,
        APPLY,
        {"params": jnp.ones(2)},
        make_data(),
        optimizer=optax.sgd(0.1),
        batch_size=50,
        steps=1,
        key=jax.random.key(0),
        log=log,
    )
    assert np.isnan(result.history[0]["angle"])
    assert json.loads(log.read_text())["angle"] is None


def test_logs_of_others_are_left_alone(variables, tmp_path):
    log = tmp_path / "log.jsonl"
    log.write_text("my notes\n")
    with pytest.raises(FileExistsError, match=r"log\.jsonl exists"):
        train(variables, log=log)
    with pytest.raises(ValueError, match=r"is no log of training: 'my notes'"):
        train(variables, log=log, checkpoint_dir=tmp_path / "run")
    assert log.read_text() == "my notes\n"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epochs": None}, "either `epochs` or `steps`, got epochs=None and steps=None"),
        ({"steps": 3}, "either `epochs` or `steps`, got epochs=6 and steps=3"),
        ({"epochs": -1}, "negative"),
        ({"batch_size": 51}, "`batch_size` is 51; accepted is 1 to 50"),
        ({"batch_size": 0}, "`batch_size` is 0"),
        ({"log_every": 0}, "`log_every` is 0"),
        ({"checkpoint_every": -3}, "`checkpoint_every` is -3"),
    ],
)
def test_wrong_usage_is_named(variables, changes, message):
    with pytest.raises(ValueError, match=message):
        train(variables, **changes)


def test_variables_without_params_are_refused(variables):
    with pytest.raises(ValueError, match=r"needs 'params', got \['Dense_0'\]"):
        train({"Dense_0": {}})


def test_optimizers_that_share_the_weights_and_keys_work(variables):
    """Lookahead keeps the very arrays it is given, and noise keeps a random key: both are donated."""
    shared = optax.chain(optax.add_noise(0.1, 0.5, key=jax.random.key(0)), optax.sgd(0.1))
    train(variables, optimizer=shared, epochs=1)
    aliased = optax.GradientTransformation(
        init=lambda params: params, update=lambda updates, _, params=None: (updates, params)
    )
    train(variables, optimizer=aliased, epochs=1)


def test_weights_on_several_devices_stay_there(variables, tmp_path):
    devices = jax.devices()
    if len(devices) < 2:
        pytest.skip("one device only; XLA_FLAGS=--xla_force_host_platform_device_count=2 makes two")
    mesh = jax.make_mesh((2,), ("samples",), (AxisType.Auto,), devices=devices[:2])
    everywhere = NamedSharding(mesh, PartitionSpec())
    placed = jax.device_put(variables, everywhere)
    options = {"checkpoint_dir": tmp_path / "run", "epochs": None}
    train(placed, steps=5, **options)
    resumed = train(placed, steps=8, **options)
    assert {leaf.sharding for leaf in jax.tree.leaves(resumed.variables)} == {everywhere}
    expected = train(variables, steps=8, epochs=None).variables
    chex.assert_trees_all_close(resumed.variables, expected, rtol=1e-6, atol=1e-7)
