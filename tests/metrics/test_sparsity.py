import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxattr import metrics

gini = jax.jit(metrics.gini, static_argnames="offset")


def random_map(seed, shape=(8, 8, 3), zeros=0.0):
    rng = np.random.default_rng(seed)
    return np.where(rng.random(shape) < zeros, 0, rng.normal(size=shape))


@pytest.mark.parametrize("zeros", [0.0, 0.8])
@pytest.mark.parametrize("shape", [(1,), (10,), (16, 16, 3)])
def test_equals_the_mean_absolute_difference(shape, zeros):
    """Half the mean |v_i - v_j| over the mean of v: no sort, no ranks."""
    g = random_map(0, shape, zeros)
    v = np.abs(g).ravel() + 1e-7
    expected = np.abs(v[:, None] - v[None, :]).mean() / (2 * v.mean())
    np.testing.assert_allclose(gini(jnp.asarray(g, jnp.float32)), expected, rtol=1e-5)


def test_equals_hurley_and_rickard():
    with jax.enable_x64(True):
        g = random_map(1)
        v = np.sort(np.abs(g).ravel() + 1e-7)
        n = v.size
        expected = 1 - 2 * np.sum(v / v.sum() * (n - np.arange(1, n + 1) + 0.5) / n)
        np.testing.assert_allclose(gini(jnp.asarray(g)), expected, rtol=1e-12)
        assert gini(jnp.asarray(g)).dtype == jnp.float64


@pytest.mark.parametrize("n", [1, 784])
def test_limits(n):
    np.testing.assert_allclose(gini(jnp.full(n, -3.0)), 0, atol=1e-6)
    np.testing.assert_allclose(gini(jnp.zeros(n)), 0, atol=1e-6)
    one_hot = jnp.zeros(n).at[n // 2].set(-5.0)
    np.testing.assert_allclose(gini(one_hot, offset=0.0), 1 - 1 / n, rtol=1e-6)


def test_scale_and_order_do_not_count():
    g = jnp.asarray(random_map(2), jnp.float32)
    np.testing.assert_allclose(gini(7 * g, offset=0.0), gini(g, offset=0.0), rtol=1e-5)
    np.testing.assert_allclose(gini(g[::-1]), gini(g), rtol=1e-5)


def test_singular_values_and_gradients():
    zero = jnp.zeros((4, 4))
    assert jnp.isnan(gini(zero, offset=0.0))
    assert jnp.isnan(gini(zero.at[0, 0].set(jnp.nan)))
    assert bool(jnp.all(jnp.isfinite(jax.grad(gini)(zero))))
    assert bool(jnp.all(jnp.isfinite(jax.grad(lambda g: gini(g, offset=0.0))(zero))))


def test_bad_input():
    with pytest.raises(ValueError, match=r"`offset` must not be negative, got -1\.0"):
        metrics.gini(jnp.ones(3), offset=-1.0)
    with pytest.raises(TypeError, match="`a` must be a map of floats, got dtype bool"):
        gini(jnp.ones(3, bool))
