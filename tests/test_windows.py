"""Sums over windows against those of `lax.reduce_window`, and what float32 keeps of the derivatives."""

import random

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxattr import _activations, _windows


def draw(rng):
    """Windows over an array of 2 axes, with all that can be different from axis to axis."""
    sizes, strides, steps = ([rng.randint(1, most) for _ in range(2)] for most in (4, 3, 2))
    padding = [(rng.randint(-1, 2), rng.randint(-1, 3)) for _ in range(2)]
    return _windows.Windows(sizes, strides, padding, [rng.randint(1, 2), 1], steps)


def test_sums_and_counts_over_random_windows():
    rng = random.Random(0)
    with jax.enable_x64(True):
        for _ in range(25):
            windows, shape = draw(rng), (rng.randint(5, 9), rng.randint(5, 8))
            x = jnp.asarray(np.random.default_rng(0).normal(size=shape))

            @jax.jit
            def sums(x, windows=windows):
                total = lax.reduce_window(jnp.exp(x), 0.0, lax.add, *windows)
                number = lax.reduce_window(jnp.ones_like(x), 0.0, lax.add, *windows)
                return total, number, _windows.log_sum_exp(x, windows)

            total, number, found = sums(x)
            assert found.shape == total.shape
            np.testing.assert_allclose(np.exp(found), total, rtol=1e-12)
            counts = _windows.counts(shape, windows)
            np.testing.assert_array_equal(np.broadcast_to(counts, number.shape), np.maximum(number, 1))


def test_derivatives_keep_their_precision_where_one_entry_leads():
    """p_i (1 - p_i) and p_i p_j of a softmax whose p_1 is rounded to 1."""
    z = np.array([30.0, 5.0, -2.0, 1.0, 4.0, 4.0])
    p = np.exp(z - np.logaddexp.reduce(z))
    others = np.array([p[np.arange(len(z)) != i].sum() for i in range(len(z))])
    expected = np.where(np.eye(len(z)) > 0, p * others, -np.outer(p, p))
    hessian = jax.jit(jax.hessian(lambda z: _windows.log_sum_exp_along(z, (0,))))(jnp.asarray(z, jnp.float32))
    np.testing.assert_allclose(hessian, expected, rtol=1e-5, atol=1e-20)


def test_infinite_entries_and_ends():
    inf = jnp.inf
    larger, between = jax.jit(_activations.larger), jax.jit(_activations.between)
    assert larger(-inf, -inf) == -inf
    assert larger(1.0, -inf) == 1
    assert larger(inf, inf) == inf
    for order in (jax.jit(jax.grad(larger)), jax.jit(jax.grad(jax.grad(larger)))):
        assert jnp.isfinite(order(1.0, -inf))
        assert jnp.isfinite(order(-inf, -inf))
    # An end that is not there leaves the softplus of the other.
    np.testing.assert_allclose(between(1.0, -inf, 2.0), 2 - np.log1p(np.exp(1.0)), rtol=1e-6)
    np.testing.assert_allclose(between(1.0, 0.0, inf), np.log1p(np.exp(1.0)), rtol=1e-6)
    assert jnp.isfinite(jax.jit(jax.grad(jax.grad(between)))(1.0, -inf, 2.0))


def test_ties_have_second_derivatives():
    tie = jnp.zeros(2)
    hessian = jax.jit(jax.hessian(lambda z: _activations.larger(z[0], z[1])))(tie)
    np.testing.assert_allclose(hessian, [[0.25, -0.25], [-0.25, 0.25]], rtol=1e-6)
