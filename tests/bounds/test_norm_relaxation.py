"""Corollary 1, with Theorem 2 and the smaller of both in the same program, against the corners of the cube."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cube import ATTRIBUTIONS, BALL, BOUNDS, EPSILON, KEY, SALIENCY, X, all_bounds, assert_sound, differentiated
from oracles import assert_of_exhausted_run, network, quadratic, symmetric
from units import one_unit

import jaxattr as ja


@pytest.mark.parametrize("name", sorted(ATTRIBUTIONS))
@pytest.mark.parametrize("seed", range(2))
def test_quadratic_in_closed_form_and_no_corner_beyond(name, seed):
    A, b = symmetric(seed, 8), np.arange(8) - 3.0
    J = {
        "saliency": A,
        "input_x_gradient": np.diag(A @ X + b) + X[:, None] * A,
        "integrated_gradients": np.diag(A @ X / 2 + b) + X[:, None] * A / 2,
    }[name]
    found = BOUNDS[name](quadratic(A, b), jnp.asarray(X, jnp.float32), 0, KEY)
    entries = EPSILON * np.sqrt(np.abs(J.T @ J).sum())
    relaxed = EPSILON * np.sqrt(8) * np.linalg.norm(J, 2)
    assert float(found["entrywise"].euclidean) == pytest.approx(entries, rel=1e-5)
    assert float(found["dense_relaxation"].euclidean) == pytest.approx(relaxed, rel=1e-5)
    assert float(found["norm_relaxation"].euclidean) == pytest.approx(relaxed, rel=1e-4)
    assert float(found["smallest"].euclidean) == pytest.approx(min(entries, relaxed), rel=1e-4)
    assert_sound(found, J)
    # Orientation: J J^T has the same singular values but other entries.
    if name != "saliency":
        assert abs(entries - EPSILON * np.sqrt(np.abs(J @ J.T).sum())) > 1e-3 * entries


@pytest.mark.parametrize("name", sorted(ATTRIBUTIONS))
def test_networks_in_float32_against_corners_in_float64(name):
    for seed in range(4):
        with jax.enable_x64(True):
            x = jnp.asarray(X.astype(np.float32), jnp.float64)
            J = np.asarray(differentiated(network(seed, (8, 12, 3)), x, name=name))
        found = BOUNDS[name](network(seed, (8, 12, 3)), jnp.asarray(X, jnp.float32), 1, KEY)
        assert_sound(found, J, slack=5e-6)
        assert all(float(each.euclidean) >= float(each.euclidean_attained) for each in found.values())


def test_one_softplus_unit():
    # Rank one with balanced signs: Theorem 2 is exact, s' ||w||_2 ||w||_1; Corollary 1 gives sqrt(d) s' ||w||_2^2.
    # Where w.x + b = 0 with weights that are powers of two, J is exact in float32 and only the run is rounded.
    w, b, x = np.array([1, -2, 0.5, 1, -1, 2, -0.5, 1]), -1.0, np.full(8, 0.5)
    s = 1 / (1 + np.exp(-(w @ x + b)))
    found = BOUNDS["saliency"](one_unit(w, b), jnp.asarray(x, jnp.float32), 0, KEY)
    norm = np.linalg.norm(w)
    truth = EPSILON * s * (1 - s) * norm * np.abs(w).sum()
    for value in (found["entrywise"].euclidean, found["entrywise"].euclidean_attained, found["smallest"].euclidean):
        assert float(value) == pytest.approx(truth, rel=1e-5)
    relaxed = EPSILON * np.sqrt(8) * s * (1 - s) * norm**2
    assert_of_exhausted_run(found["norm_relaxation"].euclidean, relaxed, 8)
    np.testing.assert_array_equal(np.abs(found["entrywise"].direction @ np.sign(w)), 8)


def test_linear_model_does_not_move():
    w = np.random.default_rng(0).normal(size=8)
    found = BOUNDS["saliency"](quadratic(np.zeros((8, 8)), w), jnp.asarray(X, jnp.float32), 0, KEY)
    for each in found.values():
        for value in (each.euclidean, each.euclidean_attained, each.cosine, each.degrees, each.slope):
            assert float(value) == 0
        assert not bool(each.vacuous)
        np.testing.assert_array_equal(np.abs(each.direction), 1)


@pytest.mark.parametrize("scale", [1e-22, 1e18])
def test_extreme_scales_are_still_bounded(scale):
    # Entries of P are squares: 1e-44 is zero in float32, and a bound of zero would be below the truth.
    A, b = symmetric(0, 8), np.arange(8) - 3.0
    x = jnp.asarray(X, jnp.float32)
    base = BOUNDS["saliency"](quadratic(A, b), x, 0, KEY)
    scaled = BOUNDS["saliency"](quadratic(scale * A, scale * b), x, 0, KEY)
    for name in base:
        np.testing.assert_allclose(scaled[name].euclidean / np.float32(scale), base[name].euclidean, rtol=1e-4)
        np.testing.assert_allclose(scaled[name].degrees, base[name].degrees, rtol=1e-3)


def test_ordering_of_the_bounds():
    # sigma <= sqrt(tr P) <= sqrt(sum |P|): at one radius the l-infinity bound is never below the l2 bound.
    l2 = jax.jit(ja.bounds.singular_value(SALIENCY, ja.L2(EPSILON), method="dense"))
    for seed in range(4):
        logits_fn, x = network(seed, (8, 12, 3)), jnp.asarray(X, jnp.float32)
        found = BOUNDS["saliency"](logits_fn, x, 1, KEY)
        assert float(l2(logits_fn, x, 1, KEY).euclidean) <= float(found["smallest"].euclidean)


def test_radius_zero_and_shapes():
    logits_fn, x = network(0, (8, 12, 3)), jnp.asarray(X, jnp.float32)
    flat = BOUNDS["saliency"](logits_fn, x, 1, KEY)
    image = all_bounds(SALIENCY, ja.LInf(0.0))(logits_fn, x.reshape(2, 2, 2), 1, KEY)
    for name, each in image.items():
        assert each.direction.shape == (2, 2, 2)
        assert float(each.euclidean) == float(each.cosine) == float(each.degrees) == 0
        assert not bool(each.vacuous)
        np.testing.assert_allclose(each.slope, flat[name].slope, rtol=1e-4)


def test_another_ball_is_refused():
    with pytest.raises(TypeError, match=r"`norm_relaxation` bounds .* of LInf, got L2\. For L2: `singular_value`"):
        ja.bounds.norm_relaxation(SALIENCY, ja.L2(0.1))


def test_options_are_checked_when_the_bound_is_built():
    with pytest.raises(ValueError, match="`corner_steps` must be at least 1"):
        ja.bounds.norm_relaxation(SALIENCY, BALL, corner_steps=0)
