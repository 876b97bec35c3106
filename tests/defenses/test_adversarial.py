from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxattr import models
from jaxattr.defenses import adversarial, natural
from jaxattr.training import Batch

EPSILON = 0.3


class Result(NamedTuple):
    x: jax.Array


def worst_of_linear(logits_fn, x, label, key):
    """The exact l-infinity adversary of a linear network of two classes: against the margin."""
    gradient = jax.grad(lambda x: logits_fn(x)[label] - logits_fn(x)[1 - label])(x)
    return Result(x - EPSILON * jnp.sign(gradient))


def test_loss_and_gradient_on_a_linear_network_in_closed_form():
    """The maximum over the ball is log(1 + exp(-margin + epsilon ||w||_1)), w the difference of rows."""
    rng = np.random.default_rng(0)
    x, label = rng.normal(size=(6, 5)).astype(np.float32), np.array([0, 1, 1, 0, 1, 0])
    kernel = rng.normal(size=(5, 2))
    apply_fn = models.apply_fn(models.MLP(num_classes=2, hidden=()))
    params = {"Dense_0": {"kernel": jnp.array(kernel, "float32"), "bias": jnp.zeros(2)}}

    def loss_fn(params):
        variables = {"params": params}
        return adversarial(worst_of_linear)(apply_fn, variables, Batch(x, label), jax.random.key(0))

    (loss, aux), gradient = jax.value_and_grad(loss_fn, has_aux=True)(params)
    w = kernel[:, 1] - kernel[:, 0]
    sign = 2 * label - 1
    worst = sign * (x @ w) - EPSILON * np.abs(w).sum()
    np.testing.assert_allclose(loss, np.log1p(np.exp(-worst)).mean(), rtol=1e-5)
    # d loss / d w = -sigmoid(-worst) (sign x - epsilon sign(w)): the derivative of the maximum.
    slope = -1 / (1 + np.exp(worst))
    by_w = (slope[:, None] * (sign[:, None] * x - EPSILON * np.sign(w))).mean(0)
    expected = np.stack([-by_w, by_w], axis=1)
    np.testing.assert_allclose(gradient["Dense_0"]["kernel"], expected, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(aux["metrics"]["adversarial_accuracy"], np.mean(worst > 0), rtol=1e-6)


def test_nothing_is_differentiated_through_the_attack():
    """An attack that multiplies by a weight: with a gradient through it, the derivative would double."""

    def attack(logits_fn, x, label, key):
        return Result(logits_fn(x))

    def apply_fn(variables, xs, *, train=False, key=None):
        return xs * variables["params"], {}

    batch = Batch(jnp.array([[1.0, -1.0]]), jnp.array([0]))

    def loss_fn(w):
        return adversarial(attack)(apply_fn, {"params": w}, batch, jax.random.key(0))[0]

    # logits are w * (w x) with the inner w constant: the loss is log(1 + exp(-2 w w_const)).
    w = 0.8
    expected = -2 * w / (1 + np.exp(2 * w * w))
    assert jax.grad(loss_fn)(w) == pytest.approx(expected, rel=1e-5)


def test_every_sample_has_a_key_of_its_own_and_the_outer_pass_another():
    drawn = []

    def attack(logits_fn, x, label, key):
        return Result(x + jax.random.normal(key, x.shape))

    def apply_fn(variables, xs, *, train=False, key=None):
        drawn.append((xs, key))
        return xs, {}

    adversarial(attack)(apply_fn, {"params": {}}, Batch(jnp.zeros((4, 2)), jnp.zeros(4, int)), jax.random.key(3))
    (xs, key), *others = drawn
    assert not others
    assert len(np.unique(xs)) == 8
    assert not np.array_equal(jax.random.key_data(key), jax.random.key_data(jax.random.key(3)))


class Normalized(nn.Module):
    @nn.compact
    def __call__(self, xs, train=False):
        return nn.Dense(2)(nn.BatchNorm(use_running_average=not train, momentum=0.5)(xs))


def test_statistics_come_from_the_adversaries_and_are_frozen_in_the_attack():
    apply_fn = models.apply_fn(Normalized())
    variables = models.init(Normalized(), jax.random.key(0), (3,))
    x = np.random.default_rng(0).normal(size=(8, 3)).astype(np.float32)
    label = np.arange(8) % 2
    seen = []

    def attack(logits_fn, x, label, key):
        seen.append(logits_fn(x))
        return Result(x + 2.0)

    batch = Batch(x, label)
    loss, aux = adversarial(attack)(apply_fn, variables, batch, jax.random.key(0))
    statistics = aux["updates"]["batch_stats"]["BatchNorm_0"]
    np.testing.assert_allclose(statistics["mean"], 0.5 * (x + 2).mean(0), rtol=1e-5)
    moved, _ = natural()(apply_fn, variables, Batch(x + 2, label), None)
    np.testing.assert_allclose(loss, moved, rtol=1e-6)
    # One call of the attack, vectorized, on the network as it is in evaluation.
    assert len(seen) == 1
