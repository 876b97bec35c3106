import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxattr.metrics import spearman

rho = jax.jit(spearman)


def scipy_rho(a, b):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a constant input, for which it returns NaN
        return scipy.stats.spearmanr(np.ravel(a), np.ravel(b)).statistic


def pair(seed, shape, zeros=0.0):
    rng = np.random.default_rng(seed)
    a = rng.normal(size=shape).astype(np.float32)
    b = (a + rng.normal(size=shape)).astype(np.float32)
    mask = rng.random(shape) < zeros
    a, b = np.where(mask, 0, a), np.where(mask & (rng.random(shape) < 0.9), 0, b)
    return jnp.asarray(a), jnp.asarray(b)


@pytest.mark.parametrize("shape", [(2,), (28, 28), (224, 224)])
@pytest.mark.parametrize("zeros", [0.0, 0.8])
def test_equals_scipy(shape, zeros):
    a, b = pair(0, shape, zeros)
    np.testing.assert_allclose(rho(a, b), scipy_rho(a, b), atol=2e-6)


@settings(max_examples=30, deadline=None, derandomize=True)
@given(st.data())
def test_equals_scipy_on_small_integers(data):
    values = st.lists(st.integers(-2, 2), min_size=7, max_size=7)
    a, b = (jnp.asarray(data.draw(values), jnp.float32) for _ in range(2))
    np.testing.assert_allclose(rho(a, b), scipy_rho(a, b), atol=2e-6)


def test_tie_cap_of_a_zero_baseline():
    """As for Kendall's tau: 634 of 784 zeros that all move cap the correlation at 0.686."""
    order = jnp.arange(784.0)
    np.testing.assert_allclose(rho(jnp.maximum(order - 633, 0), order), 0.686, atol=5e-4)


def test_special_values():
    a, b = pair(1, (20,))
    assert jnp.isnan(rho(a, jnp.ones(20)))
    assert jnp.isnan(rho(jnp.zeros(20), b))
    assert jnp.isnan(rho(a.at[2].set(jnp.nan), b))
    infinite = b.at[:2].set(jnp.inf)
    np.testing.assert_allclose(rho(a, infinite), scipy_rho(a, infinite), atol=2e-6)
    signed_zeros = jnp.where(jnp.arange(20) % 2 == 0, -0.0, jnp.where(b > 0, 0.0, b))
    np.testing.assert_allclose(rho(a, signed_zeros), scipy_rho(a, signed_zeros), atol=2e-6)
    np.testing.assert_allclose(rho(a, a), 1, rtol=1e-6)
    np.testing.assert_allclose(rho(a, -a), -1, rtol=1e-6)


def test_float64():
    with jax.enable_x64(True):
        a, b = jnp.asarray(np.random.default_rng(2).normal(size=(2, 50)))
        value = jax.jit(spearman)(a, b)
        assert value.dtype == jnp.float64
        np.testing.assert_allclose(value, scipy_rho(a, b), rtol=1e-13)


def test_gradient_is_zero():
    a, b = pair(3, (20,))
    gradient = jax.jit(jax.grad(spearman))
    np.testing.assert_array_equal(gradient(a, b), jnp.zeros(20))
    np.testing.assert_array_equal(gradient(0 * a, b), jnp.zeros(20))
