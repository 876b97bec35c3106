import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage
from jax.test_util import check_grads

from jaxattr import metrics

mass_center = jax.jit(metrics.mass_center)
mass_center_shift = jax.jit(metrics.mass_center_shift, static_argnames="truncate")


def delta(row, column, shape=(8, 6)):
    return jnp.zeros(shape).at[row, column].set(-2.0)


def test_delta():
    np.testing.assert_allclose(mass_center(delta(5, 2)), [5, 2], rtol=1e-6)
    np.testing.assert_allclose(mass_center_shift(delta(5, 2), delta(2, 6 - 1)), 18**0.5, rtol=1e-6)


@pytest.mark.parametrize("shape", [(5, 7), (5, 7, 3)])
def test_equals_scipy(shape):
    g = np.random.default_rng(0).normal(size=shape)
    absolute = np.abs(g) if g.ndim == 2 else np.abs(g).sum(axis=-1)
    expected = scipy.ndimage.center_of_mass(absolute)
    np.testing.assert_allclose(mass_center(jnp.asarray(g, jnp.float32)), expected, rtol=1e-5)


def test_truncation():
    """Centers (0, 0.9) and (0, 1.1): 0.2 apart, 1 apart once truncated."""
    a, b = jnp.array([[1.1, 0.0, 0.9]]), jnp.array([[0.9, 0.0, 1.1]])
    np.testing.assert_allclose(mass_center_shift(a, b), 0.2, rtol=1e-5)
    assert mass_center_shift(a, b, truncate=True) == 1
    assert mass_center_shift(a, jnp.array([[1.5, 0.0, 0.5]]), truncate=True) == 0


def test_a_zero_map_has_no_center():
    zero = jnp.zeros((8, 6))
    assert bool(jnp.all(jnp.isnan(mass_center(zero))))
    assert jnp.isnan(mass_center_shift(delta(1, 1), zero))


def test_gradients_are_finite_where_singular():
    zero, a = jnp.zeros((8, 6)), delta(1, 1)
    for x, y in ((a, a), (zero, a), (a, zero), (zero, zero)):
        assert bool(jnp.all(jnp.isfinite(jax.grad(mass_center_shift)(x, y))))


def test_gradient_equals_finite_differences():
    with jax.enable_x64(True):
        a, b = jnp.asarray(np.random.default_rng(1).normal(size=(2, 3, 4, 2)))
        check_grads(mass_center_shift, (a, b), 1, modes=["rev"])


@pytest.mark.parametrize("shape", [(8,), (2, 8, 8, 1)])
def test_needs_an_image(shape):
    with pytest.raises(ValueError, match="a center of mass needs an image"):
        mass_center_shift(jnp.ones(shape), jnp.ones(shape))
