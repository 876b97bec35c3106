import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from jaxattr.metrics import feature_map, pixel_map


def random_map(shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


@pytest.mark.parametrize("shape", [(5,), (4, 6), (4, 6, 3), (4, 6, 1)])
def test_pixel_map_has_mean_one(shape):
    g = random_map(shape)
    absolute = np.abs(np.asarray(g, float))
    if len(shape) == 3:
        absolute = absolute.sum(axis=-1)
    pixels = pixel_map(g)
    assert pixels.shape == shape[:2]
    np.testing.assert_allclose(pixels, absolute * absolute.size / absolute.sum(), rtol=1e-6)
    np.testing.assert_allclose(jnp.mean(pixels), 1, rtol=1e-6)


@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
def test_pixel_map_ignores_the_scale(scale):
    """The gradient scales like 1 / scale: by finite numbers also where squares leave float32."""
    g, weight = random_map((4, 4, 3)), random_map((4, 4), seed=1)

    def score(g):
        return jnp.sum(weight * pixel_map(g))

    np.testing.assert_allclose(score(scale * g), score(g), rtol=1e-5, atol=1e-5)
    scaled = scale * np.asarray(jax.grad(score)(scale * g), float)
    np.testing.assert_allclose(scaled, jax.grad(score)(g), rtol=1e-4, atol=1e-5)


def test_pixel_map_gradient_equals_finite_differences():
    with jax.enable_x64(True):
        g, weight = (jnp.asarray(random_map((3, 3, 2), seed), jnp.float64) for seed in (0, 1))
        weight = weight[..., 0]
        check_grads(lambda g: jnp.sum(weight * pixel_map(g)), (g,), 1, modes=["rev"])


def test_pixel_map_of_nothing_is_zero_with_finite_gradient():
    zero = jnp.zeros((4, 4, 3))
    np.testing.assert_array_equal(pixel_map(zero), jnp.zeros((4, 4)))
    gradient = jax.grad(lambda g: jnp.sum(pixel_map(g)[0]))(zero)
    np.testing.assert_array_equal(gradient, zero)


def test_zero_features_pull_nowhere():
    """The derivative of |g| at 0 is 0, so a feature that is 0 does not move the others either."""
    g = random_map((3, 3)).at[1].set(0.0)
    gradient = jax.grad(lambda g: jnp.sum(pixel_map(g)[0]))(g)
    np.testing.assert_array_equal(gradient[1], jnp.zeros(3))
    assert bool(jnp.all(gradient[2] != 0))


def test_feature_map_keeps_signs_and_order():
    g = random_map((2, 3, 3))
    np.testing.assert_array_equal(feature_map(g), np.asarray(g).reshape(-1))


@pytest.mark.parametrize("transform", [feature_map, pixel_map])
def test_bad_maps(transform):
    with pytest.raises(TypeError, match="`g` must be a map of floats, got dtype int32"):
        transform(jnp.ones((4, 4), int))
    with pytest.raises(ValueError, match=r"at least one entry, got shape \(0, 4\)"):
        transform(jnp.ones((0, 4)))


@pytest.mark.parametrize("shape", [(), (2, 4, 4, 3)])
def test_pixel_map_of_a_batch(shape):
    with pytest.raises(ValueError, match=r"`jax\.vmap` for a batch"):
        pixel_map(jnp.ones(shape))
