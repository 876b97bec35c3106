"""What every metric of two maps has in common."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from absl.testing import parameterized

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


class TestVariants(chex.TestCase):
    """With and without jit; such tests are methods, and take their parameters from absl."""

    @chex.variants(with_jit=True, without_jit=True)
    @parameterized.named_parameters(*((name, metric) for name, metric in sorted(metrics.REGISTRY.items())))
    def test_nan_in_nan_out(self, metric):
        a, b = (jnp.asarray(x[0], jnp.float32) for x in pairs())
        run = self.variant(metric)
        assert jnp.isfinite(run(a, b))
        assert jnp.isnan(run(a.at[2, 3, 0].set(jnp.nan), b))
        assert jnp.isnan(run(a, b.at[2, 3, 0].set(jnp.nan)))


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


SCALE_FREE = sorted(set(metrics.REGISTRY) - {"euclidean"})


@pytest.mark.parametrize("name", sorted(metrics.REGISTRY))
def test_the_scale_of_the_maps_does_not_matter(name):
    """From 1e-30 to 1e30; a Euclidean distance has the scale of the maps."""
    a, b = (jnp.asarray(x[0], jnp.float32) for x in pairs())
    expected = float(COMPILED[name](a, b))
    for exponent in (-30, -20, -10, 10, 20, 30):
        scale = jnp.float32(10.0**exponent)
        found = float(COMPILED[name](a * scale, b * scale))
        assert found / (scale if name == "euclidean" else 1) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("name", SCALE_FREE)
def test_maps_of_which_parts_are_flushed_to_zero_are_right_or_nan(name):
    """Below 1.2e-38 there is nothing in float32, and just above it a map has lost its smaller entries."""
    a, b = (np.asarray(x[0], np.float32) for x in pairs())
    expected = float(COMPILED[name](a, b))
    undefined = 0
    for exponent in range(-38, -29):
        scale = np.float32(10.0**exponent)
        # Flushed as a network's arithmetic would.
        small = [np.where(np.abs(x * scale) < np.finfo(np.float32).tiny, 0, x * scale) for x in (a, b)]
        found = float(COMPILED[name](*small))
        undefined += np.isnan(found)
        assert np.isnan(found) or found == pytest.approx(expected, abs=0.02 * max(1, abs(expected)))
    assert 1 <= undefined <= 7


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_maps_of_16_bits_are_measured_in_32(metric, dtype):
    a, b = (jnp.asarray(x[0], dtype) for x in pairs())
    found, expected = metric(a, b), metric(a.astype(jnp.float32), b.astype(jnp.float32))
    assert found.dtype == jnp.float32
    assert float(found) == pytest.approx(float(expected), rel=1e-6)


def test_a_distance_beyond_the_largest_float16_is_a_number():
    a = jnp.full((100, 100), 300.0, jnp.float16)
    assert float(metrics.euclidean(a, -a)) == pytest.approx(60_000, rel=1e-6)
    assert float(metrics.euclidean(a * 100, -a * 100)) == pytest.approx(6_000_000, rel=1e-6)
