import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.spatial.distance
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.test_util import check_grads

from jaxattr import metrics

cosine_distance = jax.jit(metrics.cosine_distance)
cosine_similarity = jax.jit(metrics.cosine_similarity)
degrees = jax.jit(metrics.degrees)
euclidean = jax.jit(metrics.euclidean)

ANGLES = (cosine_distance, cosine_similarity, degrees)


def pair(seed, shape=(4, 4, 2)):
    rng = np.random.default_rng(seed)
    return tuple(jnp.asarray(rng.normal(size=shape), jnp.float32) for _ in range(2))


@settings(max_examples=20, deadline=None, derandomize=True)
@given(st.integers(0, 2**32 - 1), st.sampled_from([1e-30, 1e-3, 1.0, 1e30]))
def test_equals_scipy(seed, scale):
    a, b = pair(seed)
    wide_a, wide_b = (np.asarray(x, float).ravel() for x in (a, b))
    distance = scipy.spatial.distance.cosine(wide_a, wide_b)
    np.testing.assert_allclose(euclidean(scale * a, scale * b) / scale, np.linalg.norm(wide_a - wide_b), rtol=1e-5)
    np.testing.assert_allclose(cosine_distance(scale * a, b), distance, rtol=1e-5)
    np.testing.assert_allclose(cosine_similarity(a, scale * b), 1 - distance, atol=1e-6)
    np.testing.assert_allclose(degrees(scale * a, b), np.rad2deg(np.arccos(1 - distance)), rtol=1e-5)


@pytest.mark.parametrize("angle", [1e-6, 1e-4, 0.01, 1.0, 45.0, 90.0, 135.0, 179.99])
def test_plane_rotations(angle):
    radians = np.deg2rad(angle)
    a = jnp.array([2.0, 0.0])
    b = 5 * jnp.array([np.cos(radians), np.sin(radians)], jnp.float32)
    np.testing.assert_allclose(degrees(a, b), angle, rtol=2e-6)
    np.testing.assert_allclose(cosine_distance(a, b), 2 * np.sin(radians / 2) ** 2, rtol=4e-6)


def test_tiny_angles_survive_float32():
    """A rounded cosine is 1 here, and its arc cosine 0."""
    a, b = pair(0)
    b = b - jnp.sum(a * b) / jnp.sum(a * a) * a
    b = a + 1e-5 * b * euclidean(a, 0 * a) / euclidean(b, 0 * b)
    np.testing.assert_allclose(degrees(a, b), np.rad2deg(1e-5), rtol=0.02)  # entries of a are rounded


def test_limits():
    a, _ = pair(1)
    # XLA may round the two unit vectors differently: 1e-7 radians.
    np.testing.assert_allclose(degrees(a, a), 0, atol=2e-5)
    assert cosine_similarity(a, 4 * a) == 1
    np.testing.assert_allclose(degrees(a, -a), 180, rtol=1e-6)
    np.testing.assert_allclose(cosine_distance(a, -2 * a), 2, rtol=1e-6)


@pytest.mark.parametrize("metric", ANGLES)
def test_a_zero_map_has_no_angle(metric):
    a, b = pair(2)
    zero = jnp.zeros_like(a)
    assert jnp.isnan(metric(zero, b))
    assert jnp.isnan(metric(a, zero))
    assert jnp.isnan(metric(zero, zero))


@pytest.mark.parametrize("metric", [*ANGLES, euclidean])
def test_gradients_are_finite_where_singular(metric):
    a, _ = pair(3)
    gradient = jax.jit(jax.grad(metric, argnums=(0, 1)))
    zero = jnp.zeros_like(a)
    for x, y in ((a, a), (a, -a), (zero, a), (a, zero), (zero, zero)):
        assert all(bool(jnp.all(jnp.isfinite(g))) for g in gradient(x, y))
    np.testing.assert_array_equal(jax.grad(euclidean)(a, a), zero)


@pytest.mark.parametrize("metric", [*ANGLES, euclidean])
def test_gradients_equal_finite_differences(metric):
    with jax.enable_x64(True):
        a, b = (jnp.asarray(x, jnp.float64) for x in pair(4, (6,)))
        assert metric(a, b).dtype == jnp.float64
        check_grads(metric, (a, b), 1, modes=["rev"])


def test_euclidean_passes_on_what_is_not_finite():
    a, _ = pair(5)
    assert jnp.isnan(euclidean(a, a.at[0, 0, 0].set(jnp.nan)))
    assert euclidean(a, a.at[0, 0, 0].set(jnp.inf)) == jnp.inf


@pytest.mark.parametrize("size", [1e-30, 1e-20, 1.0, 1e15])
def test_the_gradient_of_an_angle_falls_as_the_map_grows_however_small_it_is(size):
    """The cosine distance does not change with the size of a map, so that its gradient is that at size 1 over it."""
    a, b = jnp.array([1.0, 2.0, 3.0]), jnp.array([3.0, 1.0, -2.0])
    gradient = jax.grad(metrics.cosine_distance)(a * size, b)
    cosine = float(a @ b) / (14**0.5 * 14**0.5)
    expected = -(np.asarray(b) / 14 - cosine * np.asarray(a) / 14)
    np.testing.assert_allclose(np.asarray(gradient) * size, expected, rtol=1e-5)
