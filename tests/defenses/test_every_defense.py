"""What all objectives have in common, over the table of :mod:`tests.defenses.cases`."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxattr as ja
from jaxattr.apply_fn import mixed_precision
from jaxattr.training import Batch
from tests.defenses.cases import KEY, OBJECTIVES

REDUCES = [name for name, (_, metric, _) in OBJECTIVES.items() if metric]


def test_the_table_has_every_constructor_of_the_registry():
    assert set(OBJECTIVES) - {"trades_igr"} == set(ja.defenses.REGISTRY)


class Normalized(nn.Module):
    @nn.compact
    def __call__(self, xs, train=False):
        xs = nn.softplus(nn.Dense(4)(xs))
        return nn.Dense(3)(nn.BatchNorm(use_running_average=not train, momentum=0.5)(xs))


@functools.cache
def normalized():
    """A network with batch normalization, its variables and samples that are far from standard."""
    rng = np.random.default_rng(0)
    samples = Batch(rng.normal(2.0, 3.0, size=(6, 3)).astype(np.float32), rng.integers(0, 3, 6).astype(np.int32))
    return ja.models.apply_fn(Normalized()), ja.models.init(Normalized(), jax.random.key(0), (3,)), samples


@pytest.mark.parametrize("name", OBJECTIVES)
def test_statistics_are_moved_by_the_passes_that_the_docstring_names(name):
    build, _, passes = OBJECTIVES[name]
    apply_fn, variables, samples = normalized()
    objective = build()

    @jax.jit
    def both(variables):
        batches = {"clean": samples.x}
        if not isinstance(objective, ja.defenses.AttackedObjective):
            _, aux = objective(apply_fn, variables, samples, KEY)
        else:
            attack_key, loss_key = jax.random.split(KEY)
            batches["adversaries"] = objective.adversaries(apply_fn, variables, samples, attack_key)
            _, aux = objective.loss(apply_fn, variables, samples, batches["adversaries"], loss_key)
        expected = variables
        for which in ("clean", "adversaries"):
            if passes in (which, "both"):
                expected = {**expected, **apply_fn(expected, batches[which], train=True)[1]}
        return aux["updates"]["batch_stats"], expected["batch_stats"]

    moved, expected = both(variables)
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6), moved, expected)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_attributions_are_computed_in_full_precision_and_passes_are_not(name):
    apply_fn, variables, samples = normalized()
    seen = []

    def watching(variables, xs, *, train=False, key=None):
        seen.append((jnp.asarray(xs).dtype.name, train))
        return apply_fn(variables, xs, train=train, key=key)

    loss, aux = jax.eval_shape(
        functools.partial(OBJECTIVES[name][0](), mixed_precision(watching)), variables, samples, KEY
    )
    assert {dtype for dtype, train in seen if train} == {"bfloat16"}
    # All other metrics are of an attribution.
    explains = OBJECTIVES[name][1] not in (None, "kl_divergence")
    assert ("float32" in {dtype for dtype, train in seen if not train}) == explains
    assert loss.dtype == aux["updates"]["batch_stats"]["BatchNorm_0"]["mean"].dtype == jnp.float32


def test_mixed_precision_is_near_to_full_precision():
    apply_fn, variables, samples = normalized()
    objective = OBJECTIVES["adversarial"][0]()
    (half, half_aux), (full, full_aux) = (
        jax.jit(functools.partial(objective, network))(variables, samples, KEY)
        for network in (mixed_precision(apply_fn), apply_fn)
    )
    assert 0 < abs(half - full) < 0.05 * full
    means = (aux["updates"]["batch_stats"]["BatchNorm_0"]["mean"] for aux in (half_aux, full_aux))
    np.testing.assert_allclose(*means, rtol=0.05, atol=0.02)
    with pytest.raises(TypeError, match="`dtype` must be a floating-point dtype"):
        mixed_precision(apply_fn, jnp.int8)


@functools.cache
def digits():
    data = ja.data.load("digits", "train"), ja.data.load("digits", "test")
    return [Batch(d.x.reshape(len(d.x), -1), np.asarray(d.label)) for d in data]


MODEL = ja.models.MLP(num_classes=10, hidden=(32,), beta=3.0)


@functools.cache
def trained(name):
    """A small network after the same 120 steps from the same weights, over the same batches."""
    start = ja.models.init(MODEL, jax.random.key(1), (64,))
    return ja.fit(
        OBJECTIVES[name][0](),
        ja.models.apply_fn(MODEL),
        start,
        digits()[0],
        optimizer=optax.adam(5e-3),
        batch_size=64,
        steps=120,
        # A program of one device is quicker to compile.
        devices=jax.devices()[:1],
        key=jax.random.key(2),
        log_every=None,
    ).variables


@functools.cache
def judge(name):
    """The objective itself, compiled once for the network and its natural twin."""
    return jax.jit(functools.partial(OBJECTIVES[name][0](), ja.models.apply_fn(MODEL)))


def on_held_out_samples(name, variables):
    loss, aux = judge(name)(variables, Batch(*(a[:200] for a in digits()[1])), KEY)
    return {"loss": float(loss), **{metric: float(value) for metric, value in aux["metrics"].items()}}


@pytest.mark.slow
@pytest.mark.parametrize("name", REDUCES)
def test_what_an_objective_is_meant_to_reduce_falls_against_a_natural_twin(name):
    metric = OBJECTIVES[name][1]
    defended, undefended = (on_held_out_samples(name, trained(which)) for which in (name, "natural"))
    assert defended[metric] < 0.97 * undefended[metric]
    assert defended["loss"] < undefended["loss"]


def test_adversarial_training_lowers_the_adversarial_loss():
    defended, undefended = (on_held_out_samples("adversarial", trained(which)) for which in ("adversarial", "natural"))
    assert defended["loss"] < 0.9 * undefended["loss"]
    assert defended["adversarial_accuracy"] > undefended["adversarial_accuracy"]
