"""What every metric of two maps has in common."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxattr import metrics

COMPILED = {name: jax.jit(metric) for name, metric in metrics.REGISTRY.items()}


@pytest.fixture(params=sorted(metrics.REGISTRY))
def metric(request):
    return metrics.REGISTRY[request.param]


@pytest.fixture
def compiled(request, metric):
    return COMPILED[request.node.callspec.params["metric"]]


def pairs():
    rng = np.random.default_rng(0)
    a = rng.normal(size=(3, 8, 8, 2)) * (rng.random((3, 8, 8, 2)) < 0.7)
    return a, a + 0.3 * rng.normal(size=a.shape)


def test_scalar_of_the_same_dtype(compiled):
    a, b = (jnp.asarray(x[0], jnp.float32) for x in pairs())
    value = compiled(a, b)
    assert value.shape == ()
    assert value.dtype == jnp.float32
    assert bool(jnp.isfinite(value))


def test_jit_and_vmap_equal_a_loop(metric, compiled):
    a, b = (jnp.asarray(x, jnp.float32) for x in pairs())
    loop = [metric(a[0], b[0]), *map(compiled, a[1:], b[1:])]
    # The shift of a center subtracts what is nearly equal.
    np.testing.assert_allclose(compiled(a[0], b[0]), loop[0], rtol=5e-5)
    np.testing.assert_allclose(jax.jit(jax.vmap(metric))(a, b), jnp.stack(loop), rtol=5e-5)


def test_float64_agrees(compiled):
    a, b = (x[0] for x in pairs())
    single = compiled(jnp.asarray(a, jnp.float32), jnp.asarray(b, jnp.float32))
    with jax.enable_x64(True):
        double = compiled(jnp.asarray(a), jnp.asarray(b))
        assert double.dtype == jnp.float64
    np.testing.assert_allclose(single, double, rtol=1e-5)


def test_nan_in_nan_out(compiled):
    a, b = (jnp.asarray(x[0], jnp.float32) for x in pairs())
    assert jnp.isnan(compiled(a.at[2, 3, 0].set(jnp.nan), b))
    assert jnp.isnan(compiled(a, b.at[2, 3, 0].set(jnp.nan)))


def test_bad_input(metric):
    a = jnp.ones((8, 8, 2))
    with pytest.raises(ValueError, match=r"one shape, got \(8, 8, 2\) and \(8, 8\)"):
        metric(a, a[..., 0])
    with pytest.raises(TypeError, match="`b` must be a map of floats, got dtype int32"):
        metric(a, a.astype(int))
    with pytest.raises(ValueError, match="`a` must have at least one entry"):
        metric(a[:0], a[:0])
    with pytest.raises(TypeError, match="got dtype complex64"):
        metric(a.astype(complex), a)
