"""Kendall's tau-b and Spearman's rho against SciPy, and the pair counts against a plain double loop."""

import warnings
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxattr.metrics import _pairs, kendall_tau, spearman

FLOAT32 = 2e-6

# One compilation for all examples of a length.
tau = jax.jit(kendall_tau)
tau_nonzero = jax.jit(partial(kendall_tau, nonzero_only=True))
rho = jax.jit(spearman)


def scipy_tau(a, b):
    return scipy.stats.kendalltau(np.ravel(a), np.ravel(b)).statistic


def scipy_rho(a, b):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a constant input, for which it returns NaN
        return scipy.stats.spearmanr(np.ravel(a), np.ravel(b)).statistic


def pair(seed, shape, *, zeros=0.0, levels=None):
    rng = np.random.default_rng(seed)
    a = rng.normal(size=shape).astype(np.float32)
    b = (a + rng.normal(size=shape)).astype(np.float32)
    if levels is not None:
        a, b = np.round(a * levels) / levels, np.round(b * levels) / levels
    mask = rng.random(shape) < zeros
    a, b = np.where(mask, 0, a), np.where(mask & (rng.random(shape) < 0.9), 0, b)
    # Of NumPy: each operation on arrays of JAX would be a program of its own.
    return a.astype(np.float32), b.astype(np.float32)


@pytest.mark.parametrize("shape", [(2,), (65,), (66,), (28, 28)])
@pytest.mark.parametrize("ties", [{}, {"zeros": 0.8}, {"levels": 1}, {"zeros": 0.5, "levels": 2}])
def test_equals_scipy(shape, ties):
    a, b = pair(len(shape), shape, **ties)
    np.testing.assert_allclose(tau(a, b), scipy_tau(a, b), atol=FLOAT32)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.data())
def test_equals_scipy_on_small_integers(data):
    values = st.lists(st.integers(-2, 2), min_size=9, max_size=9)
    a, b = (np.asarray(data.draw(values), np.float32) for _ in range(2))
    np.testing.assert_allclose(tau(a, b), scipy_tau(a, b), atol=FLOAT32)
    used = a != 0
    expected = scipy_tau(a[used], b[used]) if used.sum() > 1 else np.nan
    np.testing.assert_allclose(tau_nonzero(a, b), expected, atol=FLOAT32)


@settings(max_examples=15, deadline=None, derandomize=True)
@given(st.integers(0, 2**32 - 1), st.sampled_from([0.0, 0.8]))
def test_symmetries(seed, zeros):
    a, b = pair(seed, (65,), zeros=zeros)
    value = tau(a, b)
    order = np.random.default_rng(seed).permutation(65)
    assert tau(b, a) == value
    assert tau(a, -b) == -value
    assert tau(a[order], b[order]) == value
    assert tau(np.arctan(a), 8 * b) == value  # only the order counts
    np.testing.assert_allclose(tau(a, a), 1.0, atol=FLOAT32)


def counts_by_definition(a, b):
    i, j = np.triu_indices(len(a), 1)
    a, b = np.sign(a[i] - a[j]).astype(int), np.sign(b[i] - b[j]).astype(int)
    a, b = np.where(np.isnan(a), 0, a), np.where(np.isnan(b), 0, b)
    return [(a * b).sum(), (a != 0).sum(), (b != 0).sum()]


@pytest.mark.parametrize("count", [_pairs.all_pairs, _pairs.blocked])
@pytest.mark.parametrize("n", [1, 129, 1000])
def test_pair_counts_are_exact(count, n):
    count = jax.jit(count)
    for ties in ({}, {"zeros": 0.8}, {"levels": 1}):
        a, b = pair(n, (n,), **ties)
        counts = [int(c.high) * 2**16 + int(c.low) for c in count(a, b)]
        assert counts == counts_by_definition(np.asarray(a, float), np.asarray(b, float))


@pytest.mark.parametrize("zeros", [0.0, 0.8])
@pytest.mark.parametrize("shape", [(71 * 71,), (224, 224)])
def test_large_maps(shape, zeros):
    a, b = pair(3, shape, zeros=zeros)
    np.testing.assert_allclose(tau(a, b), scipy_tau(a, b), atol=FLOAT32)


def test_counts_beyond_32_bits():
    """2^17 features have 2^33 pairs; the order is known, so the counts have closed forms."""
    n = 2**17
    ascending = np.arange(n, dtype=np.float32)
    assert tau(ascending, ascending) == 1
    assert tau(ascending, -ascending) == -1
    # Two halves swapped: discordant pairs are those across the halves, n^2 / 4 of n (n - 1) / 2.
    np.testing.assert_allclose(tau(ascending, np.roll(ascending, n // 2)), 1 - n / (n - 1), atol=FLOAT32 / n)


def test_tie_cap_of_a_zero_baseline():
    """150 nonzero of 784 attributions, an attack that only separates the ties: at most 0.588."""
    rng = np.random.default_rng(0)
    a = np.zeros(784, np.float32)
    a[634:] = rng.normal(size=150)
    b = a + rng.uniform(1e-7, 2e-7, size=784).astype(np.float32)
    # The best case: concordant wherever a orders the pair at all.
    n0, n1 = 784 * 783 / 2, 634 * 633 / 2
    np.testing.assert_allclose(tau(a, b), np.sqrt((n0 - n1) / n0), atol=1e-5)
    np.testing.assert_allclose(tau(a, b), 0.588, atol=5e-4)
    np.testing.assert_allclose(tau_nonzero(a, b), 1.0, atol=1e-4)


@pytest.mark.parametrize("shape", [(65,), (71 * 71,)])
def test_nonzero_only_equals_selecting_first(shape):
    a, b = pair(5, shape, zeros=0.8)
    used = np.asarray(a).ravel() != 0
    expected = scipy_tau(a.ravel()[used], b.ravel()[used])
    np.testing.assert_allclose(tau_nonzero(a, b), expected, atol=FLOAT32)


@pytest.mark.parametrize("n", [65, 71 * 71])  # lengths compiled above
def test_special_values(n):
    a, b = pair(6, (n,))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # SciPy warns of a constant input
        assert np.isnan(scipy_tau(a, np.ones(n)))
    ones, zeros = np.ones(n, np.float32), np.zeros(n, np.float32)
    assert np.isnan(tau(a, ones))
    assert np.isnan(tau(zeros, b))
    assert np.isnan(tau_nonzero(zeros, b))
    lost_a, lost_b, infinite = a.copy(), b.copy(), b.copy()
    lost_a[3] = lost_b[3] = np.nan
    assert np.isnan(tau(lost_a, b))
    assert np.isnan(tau(a, lost_b))
    assert np.isnan(tau_nonzero(lost_a, b))
    infinite[:3] = np.inf, np.inf, -np.inf
    np.testing.assert_allclose(tau(a, infinite), scipy_tau(a, infinite), atol=FLOAT32)
    signed_zeros = np.where(np.arange(n) % 2 == 0, -0.0, np.where(b > 0, 0.0, b)).astype(np.float32)
    np.testing.assert_allclose(tau(a, signed_zeros), scipy_tau(a, signed_zeros), atol=FLOAT32)


def test_vmap_of_large_maps_equals_a_loop():
    a, b = pair(7, (3, 71 * 71), zeros=0.5)
    loop = [tau(x, y) for x, y in zip(a, b, strict=True)]
    np.testing.assert_array_equal(jax.jit(jax.vmap(kendall_tau))(a, b), loop)


def test_float64_of_a_large_map():
    with jax.enable_x64(True):
        rng = np.random.default_rng(8)
        a, b = jnp.asarray(rng.normal(size=(2, 4200)))
        b = b.at[1].set(b[0] + 1e-12)  # not tied in float64
        value = jax.jit(kendall_tau)(a, b)
        assert value.dtype == jnp.float64
        np.testing.assert_allclose(value, scipy_tau(a, b), rtol=1e-13)


def test_half_precision_counts_in_float32():
    a, b = (x.astype(np.float16) for x in pair(9, (28, 28)))
    expected = scipy_tau(a.astype(np.float32), b.astype(np.float32))
    np.testing.assert_allclose(tau(a, b), expected, atol=FLOAT32)


def test_gradient_is_zero():
    a, b = pair(10, (40,))
    gradient = jax.jit(jax.grad(kendall_tau))
    for x in (a, np.zeros(40, np.float32)):
        np.testing.assert_array_equal(gradient(x, b), np.zeros(40))


def test_too_many_features():
    huge = jax.ShapeDtypeStruct((1024, 1025), jnp.float32)
    with pytest.raises(ValueError, match=r"at most 2\^20 features, got 1049600"):
        jax.eval_shape(kendall_tau, huge, huge)


# Spearman's rho


@pytest.mark.parametrize("shape", [(2,), (28, 28), (224, 224)])
@pytest.mark.parametrize("zeros", [0.0, 0.8])
def test_spearman_equals_scipy(shape, zeros):
    a, b = pair(0, shape, zeros=zeros)
    np.testing.assert_allclose(rho(a, b), scipy_rho(a, b), atol=FLOAT32)


@settings(max_examples=30, deadline=None, derandomize=True)
@given(st.data())
def test_spearman_equals_scipy_on_small_integers(data):
    values = st.lists(st.integers(-2, 2), min_size=7, max_size=7)
    a, b = (jnp.asarray(data.draw(values), jnp.float32) for _ in range(2))
    np.testing.assert_allclose(rho(a, b), scipy_rho(a, b), atol=FLOAT32)


def test_spearman_tie_cap_of_a_zero_baseline():
    """As for Kendall's tau: 634 of 784 zeros that all move cap the correlation at 0.686."""
    order = jnp.arange(784.0)
    np.testing.assert_allclose(rho(jnp.maximum(order - 633, 0), order), 0.686, atol=5e-4)


def test_spearman_special_values():
    a, b = map(jnp.asarray, pair(1, (20,)))
    assert jnp.isnan(rho(a, jnp.ones(20)))
    assert jnp.isnan(rho(jnp.zeros(20), b))
    assert jnp.isnan(rho(a.at[2].set(jnp.nan), b))
    infinite = b.at[:2].set(jnp.inf)
    np.testing.assert_allclose(rho(a, infinite), scipy_rho(a, infinite), atol=FLOAT32)
    signed_zeros = jnp.where(jnp.arange(20) % 2 == 0, -0.0, jnp.where(b > 0, 0.0, b))
    np.testing.assert_allclose(rho(a, signed_zeros), scipy_rho(a, signed_zeros), atol=FLOAT32)
    np.testing.assert_allclose(rho(a, a), 1, rtol=1e-6)
    np.testing.assert_allclose(rho(a, -a), -1, rtol=1e-6)


def test_spearman_float64():
    with jax.enable_x64(True):
        a, b = jnp.asarray(np.random.default_rng(2).normal(size=(2, 50)))
        value = jax.jit(spearman)(a, b)
        assert value.dtype == jnp.float64
        np.testing.assert_allclose(value, scipy_rho(a, b), rtol=1e-13)


def test_spearman_gradient_is_zero():
    a, b = pair(3, (20,))
    gradient = jax.jit(jax.grad(spearman))
    np.testing.assert_array_equal(gradient(a, b), jnp.zeros(20))
    np.testing.assert_array_equal(gradient(0 * a, b), jnp.zeros(20))
