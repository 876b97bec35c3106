from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxattr import metrics
from jaxattr.metrics import pixel_map, top_k_indices

top_k_intersection = jax.jit(metrics.top_k_intersection, static_argnames=("k", "map"))


def largest(values, k):
    """Stable descending order, by NumPy."""
    return np.argsort(-np.abs(np.asarray(values, float)).ravel(), kind="stable")[:k]


@settings(max_examples=30, deadline=None, derandomize=True)
@given(st.lists(st.integers(-2, 2), min_size=9, max_size=9), st.sampled_from([1, 4, 9]))
def test_ties_go_to_the_lower_index(values, k):
    values = jnp.asarray(values, jnp.float32).reshape(3, 3)
    np.testing.assert_array_equal(top_k_indices(jnp.abs(values), k), largest(values, k))


def test_signed_zeros_are_ties():
    np.testing.assert_array_equal(top_k_indices(jnp.array([-0.0, 0.0, -0.0, 1.0]), 3), [3, 0, 1])


@pytest.mark.parametrize("zeros", [0.0, 0.8])
@pytest.mark.parametrize("k", [1, 10, 48])
def test_intersection_equals_sets(zeros, k):
    rng = np.random.default_rng(k)
    a, b = rng.normal(size=(2, 4, 4, 3)).astype(np.float32)
    a, b = (jnp.where(rng.random(x.shape) < zeros, 0, x) for x in (a, b))
    common = set(largest(a, k).tolist()) & set(largest(b, k).tolist())
    np.testing.assert_allclose(top_k_intersection(a, b, k), len(common) / k, rtol=1e-6)
    if k <= 16:
        a, b = pixel_map(a), pixel_map(b)
        common = set(largest(a, k).tolist()) & set(largest(b, k).tolist())
        value = top_k_intersection(a, b, k, map="pixel")
        np.testing.assert_allclose(value, len(common) / k, rtol=1e-6)


def test_features_and_pixels_differ():
    """Two half-strong channels make the strongest pixel."""
    a = jnp.zeros((2, 2, 2)).at[0, 0, 0].set(3.0).at[1, 1].set(-2.0)
    b = jnp.zeros((2, 2, 2)).at[0, 0, 0].set(5.0).at[1, 1].set(-2.0)
    assert top_k_intersection(a, b, 1) == 1
    assert top_k_intersection(a, b, 1, map="pixel") == 0


def test_limits():
    a = jnp.arange(1.0, 9.0)
    assert top_k_intersection(a, -a, 3) == 1
    assert top_k_intersection(a, a[::-1], 4) == 0
    assert top_k_intersection(a, a[::-1], 8) == 1
    assert jnp.isnan(top_k_intersection(a, a.at[0].set(jnp.nan), 3))


def test_gradient_is_zero():
    a = jnp.arange(1.0, 9.0)
    gradient = jax.grad(partial(top_k_intersection, k=3, map="pixel"))
    np.testing.assert_array_equal(gradient(0 * a, a), jnp.zeros(8))


def test_bad_k_and_map():
    a = jnp.ones((2, 2, 3))
    with pytest.raises(ValueError, match="between 1 and the 12 entries of the feature map, got 13"):
        top_k_intersection(a, a, 13)
    with pytest.raises(ValueError, match="between 1 and the 4 entries of the pixel map, got 5"):
        top_k_intersection(a, a, 5, map="pixel")
    with pytest.raises(ValueError, match="between 1 and the 12 entries of `values`, got 0"):
        top_k_indices(a, 0)
    for k in (2.0, True, None):
        with pytest.raises(TypeError, match="`k` must be a Python integer, got"):
            metrics.top_k_intersection(a, a, k)
    with pytest.raises(TypeError, match="static argument"):
        jax.jit(metrics.top_k_intersection)(a, a, 2)
    with pytest.raises(ValueError, match="`map` must be 'feature' or 'pixel', got 'pixels'"):
        top_k_intersection(a, a, 2, map="pixels")
    assert top_k_intersection(a, a, np.int64(2)) == 1
