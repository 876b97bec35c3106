from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxattr.evaluation import Batch, accuracy, arrays, frozen, robust_accuracy


class Result(NamedTuple):
    x: jax.Array


def linear(variables, xs, *, train=False, key=None):
    assert not train
    return xs @ variables["params"], {}


EYE = {"params": np.eye(3, dtype=np.float32)}


@pytest.mark.parametrize("batch_size", [1, 3, 7, 100])
def test_accuracy_is_the_fraction_whatever_the_batch(batch_size):
    rng = np.random.default_rng(0)
    x, label = rng.normal(size=(7, 3)).astype(np.float32), rng.integers(0, 3, 7)
    expected = np.mean(x.argmax(1) == label)
    assert accuracy(linear, EYE, Batch(x, label), batch_size=batch_size) == pytest.approx(expected)


def test_accuracy_is_compiled_once_for_all_weights():
    @chex.assert_max_traces(n=1)
    def network(variables, xs, *, train=False, key=None):
        return linear(variables, xs)

    data = Batch(np.eye(3, dtype=np.float32), np.arange(3))
    assert accuracy(network, EYE, data, batch_size=2) == 1
    flipped = {"params": np.eye(3, dtype=np.float32)[[1, 2, 0]]}
    assert accuracy(network, flipped, data, batch_size=2) == 0


def test_robust_accuracy_needs_both_predictions():
    def attack(logits_fn, x, label, key):
        assert logits_fn(x).shape == (3,)
        return Result(jnp.where(x[2] > 0, jnp.roll(x, 1), x))

    x = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1], [0, 0, 1]], np.float32)
    # Right and left alone; wrong and left alone; right but moved; wrong and moved to be right.
    label = np.array([0, 2, 2, 0])
    for batch_size in (1, 3, 4):
        data = Batch(x, label)
        assert accuracy(linear, EYE, data, batch_size=batch_size) == 0.5
        robust = robust_accuracy(linear, EYE, data, attack, jax.random.key(0), batch_size=batch_size)
        assert robust == 0.25


def test_robust_accuracy_has_a_key_per_sample():
    def attack(logits_fn, x, label, key):
        return Result(x + jax.random.normal(key, x.shape))

    data = Batch(np.tile(np.eye(3, dtype=np.float32), (20, 1)), np.tile(np.arange(3), 20))
    key = jax.random.key(1)
    noise = jax.vmap(lambda i: jax.random.normal(jax.random.fold_in(key, i), (3,)))(np.arange(60))
    expected = np.mean((data.x + noise).argmax(1) == data.label)
    assert 0 < expected < 1
    for batch_size in (7, 60):
        robust = robust_accuracy(linear, EYE, data, attack, key, batch_size=batch_size)
        assert robust == pytest.approx(expected)


def test_equal_networks_are_one_structure():
    assert jax.tree.structure(frozen(linear, EYE)) == jax.tree.structure(frozen(linear, EYE))


@pytest.mark.parametrize("label", [np.arange(2), np.zeros(3), np.zeros((3, 1), int)], ids=["number", "float", "shape"])
def test_samples_without_their_labels_are_refused(label):
    with pytest.raises(ValueError, match=r"one integer `label` each \(n,\), got x \(3, 3\)"):
        arrays(Batch(np.eye(3), label))
