"""What should be free of scale is, from 1e-30 to 1e30: one table of everything that is a ratio, an angle or an order.

The network and everything that is computed from it are multiplied by a power of ten. Deviations follow it, angles,
ratios and ranks do not know it. All powers run in one compiled program.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

import jaxattr as ja

KEY = jax.random.key(1)
SALIENCY = ja.attributions.saliency()
X = jnp.array([0.3, 0.6, 0.55, 0.4])
A = np.array([[2, 0.3, 0.1, 0], [0.3, -1, 0.2, 0.4], [0.1, 0.2, 0.7, 0.1], [0, 0.4, 0.1, 0.2]])
B = np.array([3.0, -2.0, 1.0, 0.4])
SCALES = 10.0 ** np.arange(-30, 31, 10)
L2, LINF = ja.L2(0.05), ja.LInf(0.05)


def _logits(scale, x):
    """A quadratic with a cubic term, times a scale: a saliency that is not linear in x, and three classes."""
    z = x - 0.5
    first = z @ jnp.asarray(A, x.dtype) @ z / 2 + jnp.asarray(B, x.dtype) @ z + jnp.sum(z**3)
    # The others take over where z_0, along which J is largest, is beyond 1/40 on either side.
    shared = jnp.asarray(B, x.dtype) @ z - 0.1
    return scale * jnp.stack([first, shared + 4 * z[0], shared - 4 * z[0]])


def _bounds():
    b = ja.bounds
    few = {"num_steps": 4}
    yield "singular_value", b.singular_value(SALIENCY, L2, **few)
    yield "singular_value, dense", b.singular_value(SALIENCY, L2, method="dense")
    yield "norm_relaxation", b.norm_relaxation(SALIENCY, LINF, **few)
    yield "norm_relaxation, box", b.norm_relaxation(SALIENCY, LINF, method="dense", within_box=True)
    yield "entrywise", b.entrywise(SALIENCY, LINF)
    yield "semidefinite", b.semidefinite(SALIENCY, LINF, method="products", rounds=3, **few)
    yield "semidefinite, dense", b.semidefinite(SALIENCY, LINF, method="dense", rounds=3, within_box=True)
    yield "smallest", b.smallest(b.norm_relaxation(SALIENCY, LINF, method="dense"), b.entrywise(SALIENCY, LINF))


BOUNDS = dict(_bounds())


@functools.cache
def of_bound(name):
    return at_every_scale(BOUNDS[name])


def at_every_scale(method, x=X):
    """The results of a method as NumPy arrays, one entry for each scale."""
    run = jax.jit(jax.vmap(lambda scale: method(Partial(_logits, scale), x, 0, KEY)))
    return jax.tree.map(np.asarray, run(jnp.asarray(SCALES, jnp.float32)))


def assert_proportional(values, name, rtol=1e-4):
    np.testing.assert_allclose(values / SCALES, np.full(len(SCALES), values[SCALES == 1][0]), rtol=rtol, err_msg=name)


def assert_constant(values, name, rtol=1e-4):
    np.testing.assert_allclose(values, np.broadcast_to(values[SCALES == 1], values.shape), rtol=rtol, err_msg=name)


def assert_scale_free(found):
    """A deviation bound: five numbers follow the scale, the others do not know it."""
    for name in ("euclidean", "euclidean_attained", "slope", "attribution_norm"):
        assert_proportional(getattr(found, name), name)
    for name in ("cosine", "degrees", "vacuous", "confidence", "active"):
        assert_constant(getattr(found, name), name)
    # A maximizer and its negative are the same.
    assert_constant(np.abs(found.direction), "direction", rtol=1e-3)
    assert 0 < found.degrees[0] < 90


@pytest.mark.parametrize("name", list(BOUNDS))
def test_bounds(name):
    found = of_bound(name)
    assert_scale_free(found)
    if found.two_sided:
        radii = ja.bounds.largest_epsilon(jax.tree.map(jnp.asarray, found), degrees=5.0)
        assert_constant(np.asarray(radii), "largest_epsilon")
    # Eq. 12 is a difference.
    tightness = [ja.bounds.tightness(found.euclidean[i : i + 1], found.euclidean_attained[i : i + 1]) for i in range(7)]
    assert np.all(np.asarray(tightness) >= 0)


@pytest.mark.parametrize("name", ["singular_value, dense", "entrywise"])
def test_corrected(name):
    found = at_every_scale(ja.bounds.corrected(BOUNDS[name], SALIENCY))
    assert found.remainder[0] > 0.01
    for ratio in ("constant", "constant_plus", "remainder", "cosine", "degrees", "vacuous"):
        assert_constant(getattr(found, ratio), ratio, rtol=2e-3)
    assert_proportional(found.euclidean, "euclidean")


def test_corrected_of_a_map_that_nearly_vanishes_beside_one_that_is_large():
    # f = s (x_0^3 + x_1^2) at 1/2 with a radius of 0.3: g_0 moves by 1.17 s, J says 0.9 s.
    bound = ja.bounds.corrected(ja.bounds.singular_value(SALIENCY, ja.L2(0.3, box=None), method="dense"), SALIENCY)

    def run(scale):
        def logits_fn(z):
            return scale * jnp.stack([z[0] ** 3 + z[1] ** 2, 0 * z[0]])

        found = bound(logits_fn, jnp.array([0.5, 0.5]), 0, KEY)
        return found.constant, found.euclidean / scale, found.remainder

    constants, deviations, remainders = jax.jit(jax.vmap(run))(jnp.asarray(SCALES, jnp.float32))
    np.testing.assert_allclose(constants, 1.3, rtol=1e-4)
    np.testing.assert_allclose(deviations, 1.17, rtol=1e-4)
    np.testing.assert_allclose(remainders, 0.3, rtol=1e-3)


@pytest.mark.parametrize("method", ["products", "dense"])
def test_label_constrained(method):
    found = at_every_scale(
        ja.bounds.label_constrained(SALIENCY, ja.L2(0.2), method=method, num_steps=4), jnp.full(4, 0.5)
    )
    assert found.both_excluded.all()
    for name in ("euclidean", "slope", "attribution_norm"):
        assert_proportional(getattr(found.bound, name), name, rtol=2e-3)
    assert_proportional(found.bound.euclidean_attained, "euclidean_attained", rtol=1e-2)
    assert_constant(found.bound.degrees, "degrees", rtol=5e-3)
    assert found.bound.euclidean[0] < 0.99 * found.unconstrained.euclidean[0]


@pytest.mark.parametrize("ball", [L2, LINF], ids=["l2", "linf"])
def test_rank_guarantee(ball):
    found = at_every_scale(ja.bounds.rank_guarantee(SALIENCY, ball, k=2))
    for name, values in found._asdict().items():
        assert_constant(values, name, rtol=1e-6)
    assert found.fixed_pairs[0] > 0
    assert found.guaranteed_top_k.any()


@pytest.mark.parametrize("ball", [L2, LINF], ids=["l2", "linf"])
def test_worst_direction(ball):
    bound = BOUNDS["singular_value, dense" if ball is L2 else "entrywise"]
    found = at_every_scale(ja.attacks.worst_direction(ball, SALIENCY, bound))
    assert_constant(found.distance, "distance")
    assert_constant(found.label_kept, "label_kept")
    assert_constant(np.abs(found.x - np.asarray(X)), "x", rtol=1e-3)


@pytest.mark.parametrize("name", ["cosine_distance", "degrees", "kendall_tau", "spearman"])
def test_metrics(name):
    metric = getattr(ja.metrics, name)
    first, second = jnp.array([1.0, -2.0, 0.5, 3.0]), jnp.array([0.7, 2.5, 0.4, -1.0])
    scales = jnp.asarray(SCALES, jnp.float32)
    both = jax.jit(jax.vmap(lambda s: metric(s * first, s * second)))(scales)
    one = jax.jit(jax.vmap(lambda s: metric(s * first, second)))(scales)
    assert_constant(np.asarray(both), name, rtol=1e-5)
    assert_constant(np.asarray(one), name, rtol=1e-5)


def test_the_value_itself():
    # Against NumPy: J = A + 6 diag(z) at z = x - 1/2.
    sigma = 0.05 * np.linalg.norm(A + np.diag(6 * (np.asarray(X, np.float64) - 0.5)), 2)
    found = of_bound("singular_value, dense")
    np.testing.assert_allclose(found.euclidean / SCALES, sigma, rtol=3e-6)
