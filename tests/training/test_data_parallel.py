"""Training does not depend on the number of devices and processes, and divides the batch among them."""

import json
import logging
import re
import signal
from collections.abc import Callable
from typing import Any

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from training_runs import (
    ADVERSARIAL,
    comparable,
    first_weight,
    free_port,
    initial,
    saved_steps,
    start,
    train,
    wait_for_lines,
)

import jaxattr as ja
from jaxattr import parallel
from jaxattr.apply_fn import as_classifier
from jaxattr.labeled import Batch
from jaxattr.training import Trainer

# Not Adam: the bias before batch normalization has gradient zero, and Adam makes steps of its rounding errors.
RUN = {"objective": ADVERSARIAL, "epochs": None, "log_every": 1, "optimizer": optax.sgd(0.3, momentum=0.9)}


@pytest.fixture(scope="module")
def variables():
    return initial()


@pytest.fixture(scope="module")
def alone(variables):
    """On one device."""
    result = train(variables, steps=40, devices=jax.devices()[:1], **RUN)
    assert result.history[-1]["loss"] < 0.8 * result.history[0]["loss"]
    return result


def assert_same_trajectory(history, expected):
    """Equal to float32's rounding, which every step enlarges a little."""
    assert [row["step"] for row in history] == [row["step"] for row in expected]
    for name in ("loss", "grad_norm", "adversarial_accuracy"):
        values, truth = ([row[name] for row in rows] for rows in (history, expected))
        np.testing.assert_allclose(values, truth, rtol=2e-5, err_msg=name)


@pytest.mark.parametrize("devices", [2, 8])
def test_any_number_of_devices_gives_the_trajectory_of_one(variables, alone, devices):
    result = train(variables, steps=40, devices=jax.devices()[:devices], **RUN)
    assert_same_trajectory(result.history, alone.history)
    chex.assert_trees_all_close(result.variables, alone.variables, rtol=1e-4, atol=1e-6)


def test_all_devices_are_used_by_default(variables):
    """And what is handed out lies on one device, and stays as it was."""
    kept, placed = [], []

    def objective(apply_fn, variables, batch, key):
        jax.debug.inspect_array_sharding(batch.x, callback=placed.append)
        return ADVERSARIAL(apply_fn, variables, batch, key)

    def evaluate(variables):
        kept.append(variables)
        return first_weight(variables)

    options = RUN | {"objective": objective, "evaluate": evaluate, "evaluate_every": 1, "devices": None}
    result = train(variables, steps=2, **options)
    assert len(placed[0].device_set) == 8
    assert placed[0].shard_shape((16, 4)) == (2, 4)
    assert {len(leaf.devices()) for tree in (*kept, result.variables) for leaf in jax.tree.leaves(tree)} == {1}
    weights = [first_weight(tree)["weight"] for tree in kept]
    assert weights == [row["weight"] for row in result.history if "weight" in row]
    assert weights[0] != weights[1]
    # Uncommitted: they go along with arrays on other devices.
    elsewhere = jax.device_put(jnp.ones((2, 4)), jax.devices()[3])
    assert jax.jit(lambda v, x: x @ v["params"]["Dense_0"]["kernel"])(result.variables, elsewhere).shape == (2, 8)


def test_run_on_other_devices_is_continued(variables, alone, tmp_path):
    """Weights that lie on several devices are taken, too."""
    options = RUN | {"checkpoint_dir": tmp_path / "run"}
    placed = parallel.replicated(variables, parallel.mesh(jax.devices()[2:4]))
    train(placed, steps=20, devices=jax.devices()[:2], **options)
    result = train(variables, steps=40, devices=jax.devices()[4:], **options)
    assert_same_trajectory(result.history, alone.history)
    chex.assert_trees_all_close(result.variables, alone.variables, rtol=1e-4, atol=1e-6)


def test_a_batch_that_cannot_be_divided(variables, caplog):
    with caplog.at_level(logging.WARNING, logger="jaxattr.parallel"):
        assert parallel.batch_mesh(50).size == 5
        assert parallel.batch_mesh(7).size == 7
        assert parallel.batch_mesh(13).size == 1
    assert "5 of 8 devices are used: a batch of 50 samples" in caplog.text
    caplog.clear()
    assert (parallel.batch_mesh(24).size, parallel.batch_mesh(3, jax.devices()[:3]).size) == (8, 3)
    assert not caplog.text
    with pytest.raises(ValueError, match=r"`batch_size` is 16, which 3 devices cannot share evenly; .* such as 18"):
        train(variables, devices=jax.devices()[:3])
    with pytest.raises(ValueError, match="`devices` needs at least one of every process"):
        train(variables, devices=[])


class Images(nn.Module):
    """One convolution, Flax's or ours."""

    convolution: Callable[..., Any]

    @nn.compact
    def __call__(self, xs, train=False):
        del train
        xs = nn.softplus(nn.Conv(2, (3, 3), conv_general_dilated=self.convolution)(xs))
        return nn.Dense(3)(xs.reshape(len(xs), -1))


def explained(apply_fn, variables, batch, key):
    """How far an attack moves integrated gradients: three loops around convolutions, differentiated again."""
    attribute = ja.attributions.integrated_gradients(num_steps=3)
    attack = ja.attacks.ifia(ja.LInf(0.1), attribute, ja.attacks.dissimilarities.euclidean(), num_steps=2)
    constant, logits_fn = as_classifier(apply_fn, jax.lax.stop_gradient(variables)), as_classifier(apply_fn, variables)

    def distance(x, label, key):
        attacked = jax.lax.stop_gradient(attack(constant, x, label, key).x)
        return jnp.abs(attribute(logits_fn, attacked, label) - attribute(logits_fn, x, label)).sum()

    distances = jax.vmap(distance)(*batch, jax.random.split(key, len(batch.label)))
    return distances.mean(), {"metrics": {}, "updates": {}}


def one_by_one(apply_fn, variables, batch, key):
    losses = jax.lax.map(lambda x: apply_fn(variables, x[None])[0].sum(), batch.x)
    return losses.mean(), {"metrics": {}, "updates": {}}


def collectives(objective, convolution):
    """What the devices send to each other in a step of training."""
    model = Images(convolution)
    on, apply_fn, key = parallel.batch_mesh(8), ja.models.apply_fn(model), jax.random.key(0)
    variables = ja.models.init(model, key, (6, 6, 1))
    trainer = Trainer(objective, apply_fn, optax.sgd(0.1), mesh=on)
    xs, rows = np.zeros((8, 6, 6, 1), np.float32), np.arange(8)
    batch = Batch(parallel.sharded(xs, rows, on), parallel.sharded(np.zeros(8, np.int32), rows, on))
    text = jax.jit(trainer.step).lower(trainer.init(variables, key), batch).compile().as_text()
    return set(re.findall(r" (all-\w+|collective-permute|reduce-scatter)(?:-start)?\(", text))


@pytest.mark.parametrize("convolution", [jax.lax.conv_general_dilated, ja.models.convolution])
def test_convolutions_inside_of_loops_do_not_gather_the_batch(convolution):
    assert collectives(explained, convolution) == {"all-reduce"}


def test_a_batch_that_is_gathered_would_be_found():
    assert "all-gather" in collectives(one_by_one, ja.models.convolution)


WORKER = """
import sys
from pathlib import Path
import jax
port, rank, directory = sys.argv[1:]
jax.distributed.initialize(f"127.0.0.1:{port}", num_processes=2, process_id=int(rank))
import numpy as np, pytest
import optax
from jaxattr.training import JsonLines
from training_runs import ADVERSARIAL, initial, slowly, train

assert jax.process_count() == 2 and len(jax.devices()) == 4 and len(jax.local_devices()) == 2
directory = Path(directory)
run = dict(objective=ADVERSARIAL, epochs=None, log_every=1, optimizer=optax.sgd(0.3, momentum=0.9), devices=None,
           writers=[JsonLines(directory / f"{rank}.jsonl")], checkpoint_dir=directory / "run")
with pytest.raises(ValueError, match="which 4 devices cannot share evenly; accepted are multiples of 4, such as 16"):
    train(initial(), steps=6, batch_size=15, **run)
with pytest.raises(ValueError, match="at least one of every process, 2 in all"):
    train(initial(), steps=40, **(run | dict(devices=jax.local_devices())))
# In two parts: all write the checkpoint, and all read it.
result = train(initial(), steps=3, **run)
np.savez(directory / f"{rank}.npz", *jax.tree.leaves(result.variables))
train(initial(), steps=10**6, evaluate=slowly, evaluate_every=1, checkpoint_every=10**6, **run)
"""


@pytest.mark.slow
def test_two_processes_give_the_trajectory_of_one_and_stop_together(variables, alone, tmp_path):
    """Two devices each, joined by gloo. SIGTERM reaches the second process only."""
    port, log = free_port(), tmp_path / "0.jsonl"
    workers = [start(WORKER, port, rank, tmp_path, JAX_NUM_CPU_DEVICES="2", JAX_PLATFORMS="cpu") for rank in range(2)]
    try:
        wait_for_lines(log, 3 + 2 * 4, workers)
        workers[1].send_signal(signal.SIGTERM)
        outputs = [worker.communicate(timeout=120)[0] for worker in workers]
    finally:
        for worker in workers:
            worker.kill()
    assert [worker.returncode for worker in workers] == [143, 143], "\n".join(outputs)
    assert ["SIGTERM: stopped after step" in output for output in outputs] == [True, False]
    # Process 0 alone logs.
    assert not (tmp_path / "1.jsonl").exists()
    rows = [json.loads(line) for line in log.read_text().splitlines()]
    # Each has all of the weights.
    first, second = (list(np.load(tmp_path / f"{rank}.npz").values()) for rank in range(2))
    chex.assert_trees_all_equal(first, second)
    assert [leaf.shape for leaf in first] == [leaf.shape for leaf in jax.tree.leaves(alone.variables)]
    # One process continues the checkpoint of two.
    step = max(saved_steps(tmp_path / "run"))
    assert step > 3
    resumed = train(variables, checkpoint_dir=tmp_path / "run", **RUN, steps=step + 3)
    assert comparable(resumed.history)[: len(rows)] == comparable(rows)
    trajectory = [row for row in resumed.history if "loss" in row][:40]
    assert_same_trajectory(trajectory, alone.history[: len(trajectory)])
