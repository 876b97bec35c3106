"""Smooth stand-ins of functions with kinks, values and derivatives, against the same in float64 by SciPy."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special

from jaxattr import _activations

Z = np.concatenate([np.linspace(-30, 30, 241), [-80.0, -1e-6, 1e-6, 80.0]]).astype(np.float32)


def sigmoid(z):
    return scipy.special.expit(np.asarray(z, float))


def slope(z):
    """The derivative of the sigmoid; its own one is this times (1 - 2 sigmoid)."""
    return sigmoid(z) * sigmoid(-np.asarray(z, float))


# Function, its first, and its second derivative.
EXPECTED = {
    "sigmoid": (sigmoid, slope, lambda z: -slope(z) * np.tanh(np.asarray(z, float) / 2)),
    "softplus": (lambda z: np.logaddexp(0, np.asarray(z, float)), sigmoid, slope),
}


@pytest.mark.parametrize("order", range(3))
@pytest.mark.parametrize("name", EXPECTED)
def test_relative_accuracy_at_both_ends(name, order):
    function = getattr(_activations, name)
    for _ in range(order):
        function = jax.grad(function)
    found = jax.jit(jax.vmap(function))(Z)
    assert found.dtype == jnp.float32
    expected = EXPECTED[name][order](Z)
    # The second derivative of the sigmoid has a root at 0, where it is exact to rounding of its terms only.
    absolute = np.where(np.abs(Z) < 1, 3e-8, 1e-37) if (name, order) == ("sigmoid", 2) else 1e-37
    assert np.all(np.abs(found - expected) <= 3e-6 * np.abs(expected) + absolute)


@pytest.mark.parametrize("beta", [1.0, 100.0])
def test_the_larger_of_two(beta):
    a, b = np.random.default_rng(0).normal(size=(2, 200)).astype(np.float32) * 5

    @jax.jit
    @functools.partial(jax.vmap, in_axes=(0, 0))
    def run(a, b):
        return jax.value_and_grad(lambda a, b: _activations.larger(beta * a, beta * b) / beta, argnums=(0, 1))(a, b)

    value, (da, db) = run(a, b)
    wide = [beta * z.astype(float) for z in (a, b)]
    np.testing.assert_allclose(value, np.logaddexp(*wide) / beta, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(da, sigmoid(wide[0] - wide[1]), rtol=2e-3, atol=1e-30)
    np.testing.assert_allclose(da + db, 1, rtol=1e-6)


def test_the_larger_of_infinities():
    inf = np.inf
    for a, b, expected in ((-inf, -inf, -inf), (inf, 1.0, inf), (-inf, 1.0, 1.0), (inf, inf, inf)):
        assert float(_activations.larger(a, b)) == expected


@pytest.mark.parametrize(("low", "high"), [(-1.0, 2.0), (0.0, 6.0), (0.0, 0.5)])
def test_between_is_a_difference_of_softplus(low, high):
    found = jax.jit(jax.vmap(lambda z: _activations.between(z, low, high)))(Z)
    wide = Z.astype(float)
    expected = low + np.logaddexp(0, wide - low) - np.logaddexp(0, wide - high)
    np.testing.assert_allclose(found, expected, rtol=2e-6, atol=2e-6)
    slopes = jax.jit(jax.vmap(jax.grad(lambda z: _activations.between(z, low, high))))(Z)
    # Far outside the difference of two sigmoids would be 0 in float32, and even in float64.
    exact = sigmoid(wide - low) * sigmoid(high - wide) * -np.expm1(low - high)
    np.testing.assert_allclose(slopes, exact, rtol=1e-5, atol=1e-37)
