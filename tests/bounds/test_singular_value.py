import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import assert_of_exhausted_run, network, quadratic, symmetric, with_spectrum
from units import one_unit

import jaxattr as ja

EPSILON = 0.1
KEY = jax.random.key(3)
X = np.array([0.1, 0.9, 0.4, 0.0, 1.0, 0.3, 0.7, 0.2])
SALIENCY = ja.attributions.saliency()
IXG = ja.attributions.input_x_gradient()
IG = ja.attributions.integrated_gradients(4, chunk=2)
ATTRIBUTIONS = {"saliency": SALIENCY, "input_x_gradient": IXG, "integrated_gradients": IG}


def bound_of(attribute, method):
    """One program for all networks of a shape, samples and radii."""

    @jax.jit
    def run(logits_fn, x, label, key, epsilon):
        # All steps: what is compared is exact.
        bound = ja.bounds.singular_value(attribute, ja.L2(epsilon), method=method, tolerance=0.0)
        return bound(logits_fn, x, label, key)

    return lambda *arguments, epsilon=EPSILON: run(*arguments, epsilon)


BOUNDS = {(name, method): bound_of(a, method) for name, a in ATTRIBUTIONS.items() for method in ("lanczos", "dense")}


@functools.partial(jax.jit, static_argnames="name")
def differentiated(logits_fn, x, *, name):
    """J by plain forward mode of the attribution."""
    return jax.jacfwd(lambda z: ATTRIBUTIONS[name](logits_fn, z, 1))(x)


def dense_jacobian(name, A, b):
    if name == "saliency":
        return A
    if name == "input_x_gradient":
        return np.diag(A @ X + b) + X[:, None] * A
    return np.diag(A @ X / 2 + b) + X[:, None] * A / 2


@pytest.mark.parametrize("method", ["lanczos", "dense"])
@pytest.mark.parametrize("name", sorted(ATTRIBUTIONS))
@pytest.mark.parametrize("seed", range(2))
def test_quadratic_is_exact(name, method, seed):
    A, b = symmetric(seed, 8), np.arange(8) - 3.0
    J = dense_jacobian(name, A, b)
    sigma = np.linalg.norm(J, 2)
    found = BOUNDS[name, method](quadratic(A, b), jnp.asarray(X, jnp.float32), 0, KEY)
    np.testing.assert_allclose(found.euclidean, EPSILON * sigma, rtol=1e-4 if method == "lanczos" else 1e-5)
    np.testing.assert_allclose(found.euclidean_attained, EPSILON * sigma, rtol=1e-5)
    np.testing.assert_allclose(found.slope, sigma, rtol=1e-4)
    assert found.euclidean >= found.euclidean_attained
    direction = np.asarray(found.direction, np.float64)
    assert np.linalg.norm(direction) == pytest.approx(1, rel=1e-5)
    assert np.linalg.norm(J @ direction) == pytest.approx(sigma, rel=1e-5)
    assert float(found.confidence) == pytest.approx(0.999 if method == "lanczos" else 1)
    assert found.methods[int(found.active)] == "singular_value"


def test_equality_is_attained_by_the_attribution_itself():
    # Saliency of a quadratic IS linear: the bound is reached at x +- epsilon v, and by no random perturbation exceeded.
    A, b = symmetric(0, 8), np.arange(8) - 3.0
    with jax.enable_x64(True):
        logits_fn, x = quadratic(A, b), jnp.asarray(X)
        found = BOUNDS["saliency", "dense"](logits_fn, x, 0, KEY)
        for sign in (1, -1):
            moved = SALIENCY(logits_fn, x + sign * EPSILON * found.direction, 0) - SALIENCY(logits_fn, x, 0)
            assert np.linalg.norm(moved) == pytest.approx(float(found.euclidean), rel=1e-12)
        draws = np.random.default_rng(0).normal(size=(1000, 8))
        draws *= EPSILON / np.linalg.norm(draws, axis=1, keepdims=True)
        assert np.linalg.norm(draws @ A, axis=1).max() <= found.euclidean


@pytest.mark.parametrize("name", sorted(ATTRIBUTIONS))
def test_float32_bound_is_not_below_the_float64_truth(name):
    for seed in range(6):
        with jax.enable_x64(True):
            x = jnp.asarray(X.astype(np.float32), jnp.float64)
            truth = EPSILON * np.linalg.norm(differentiated(network(seed, (8, 12, 3)), x, name=name), 2)
        logits_fn = network(seed, (8, 12, 3))
        lanczos = BOUNDS[name, "lanczos"](logits_fn, jnp.asarray(X, jnp.float32), 1, KEY)
        dense = BOUNDS[name, "dense"](logits_fn, jnp.asarray(X, jnp.float32), 1, KEY)
        # Entries of J themselves carry the rounding of the network, which no method on top can know.
        assert float(lanczos.euclidean) >= truth * (1 - 2e-6)
        assert float(dense.euclidean) >= truth * (1 - 5e-6)
        assert float(lanczos.euclidean) <= truth * 1.001
        assert float(lanczos.euclidean_attained) <= truth * (1 + 5e-6)


def test_few_steps_are_wide_and_still_hold():
    # 24 features, 3 steps: far from converged. Attained is low, the upper value is not.
    A = with_spectrum(0, np.linspace(1, 0.2, 24))
    x = jnp.full(24, 0.5)
    bound = jax.jit(
        jax.vmap(ja.bounds.singular_value(SALIENCY, ja.L2(1.0), num_steps=3), in_axes=(None, None, None, 0))
    )
    found = bound(quadratic(A), x, 0, jax.random.split(KEY, 50))
    assert np.median(found.euclidean_attained) < 0.999
    assert np.all(np.asarray(found.euclidean) >= 1)


def test_linear_model_does_not_move():
    w = np.random.default_rng(0).normal(size=8)
    for method in ("lanczos", "dense"):
        found = BOUNDS["saliency", method](quadratic(np.zeros((8, 8)), w), jnp.asarray(X, jnp.float32), 0, KEY)
        for value in (found.euclidean, found.euclidean_attained, found.cosine, found.degrees, found.slope):
            assert float(value) == 0
        assert not bool(found.vacuous)
        assert np.linalg.norm(found.direction) == pytest.approx(1, rel=1e-5)
        assert float(found.attribution_norm) == pytest.approx(np.linalg.norm(w), rel=1e-5)


@pytest.mark.parametrize("method", ["lanczos", "dense"])
def test_one_softplus_unit(method):
    # f = softplus(w.x + b): Hessian s' w w^T, rank one.
    w, b = np.random.default_rng(1).normal(size=8), -0.2
    sigmoid = 1 / (1 + np.exp(-(w @ X + b)))
    found = BOUNDS["saliency", method](one_unit(w, b), jnp.asarray(X, jnp.float32), 0, KEY)
    truth = EPSILON * sigmoid * (1 - sigmoid) * (w @ w)
    np.testing.assert_allclose(found.euclidean_attained, truth, rtol=2e-5)
    if method == "dense":
        np.testing.assert_allclose(found.euclidean, truth, rtol=2e-5)
    else:
        assert_of_exhausted_run(found.euclidean, truth, len(w))
    ratio = float(found.euclidean) / (sigmoid * np.linalg.norm(w))
    assert float(found.degrees) == pytest.approx(np.degrees(np.arcsin(ratio)), rel=1e-4)
    assert float(found.cosine) == pytest.approx(1 - np.sqrt(1 - ratio**2), rel=1e-4)
    assert abs(np.asarray(found.direction) @ w) == pytest.approx(np.linalg.norm(w), rel=1e-5)


def test_zero_attribution_is_vacuous():
    found = BOUNDS["saliency", "dense"](quadratic(np.eye(8)), jnp.zeros(8), 0, KEY)
    assert float(found.attribution_norm) == 0
    # Above by the rounding that it states.
    assert EPSILON <= float(found.euclidean) <= EPSILON * (1 + 5 * np.sqrt(8) * np.finfo(np.float32).eps)
    assert np.isnan(found.degrees)
    assert np.isnan(found.cosine)
    assert bool(found.vacuous)


@pytest.mark.parametrize("method", ["lanczos", "dense"])
def test_radii_are_batched_and_zero_is_one_of_them(method):
    logits_fn, x = quadratic(symmetric(0, 8), np.arange(8) - 3.0), jnp.asarray(X, jnp.float32)

    def at(epsilon):
        bound = ja.bounds.singular_value(SALIENCY, ja.L2(epsilon), method=method, tolerance=0.0)
        return bound(logits_fn, x, 0, KEY)

    radii = jnp.array([0.0, EPSILON, 0.4])
    found = jax.jit(jax.vmap(at))(radii)
    sigma = np.linalg.norm(symmetric(0, 8), 2)
    np.testing.assert_allclose(found.euclidean, radii * sigma, rtol=1e-4)
    assert float(found.cosine[0]) == float(found.degrees[0]) == 0
    assert not bool(found.vacuous[0])
    np.testing.assert_allclose(found.slope, sigma, rtol=1e-4)
    single = BOUNDS["saliency", method](logits_fn, x, 0, KEY)
    np.testing.assert_allclose(found.euclidean[1], single.euclidean, rtol=1e-5)
    np.testing.assert_array_equal(found.epsilon, radii)


def test_scaling_laws():
    # f -> t f: T times t, the same angle. x -> x / s at the radius epsilon / s: T of saliency times s, the same angle.
    A, b, t, s = symmetric(0, 8), np.arange(8) - 3.0, 7.0, 4.0
    x = jnp.asarray(X, jnp.float32)
    for name in ATTRIBUTIONS:
        base = BOUNDS[name, "dense"](quadratic(A, b), x, 0, KEY)
        scaled = BOUNDS[name, "dense"](quadratic(t * A, t * b), x, 0, KEY)
        np.testing.assert_allclose(scaled.euclidean, t * base.euclidean, rtol=1e-5)
        np.testing.assert_allclose(scaled.attribution_norm, t * base.attribution_norm, rtol=1e-5)
        np.testing.assert_allclose(scaled.degrees, base.degrees, rtol=1e-4)
        power = 1 if name == "saliency" else 0
        rescaled = BOUNDS[name, "dense"](quadratic(s * s * A, s * b), x / s, 0, KEY, epsilon=EPSILON / s)
        np.testing.assert_allclose(rescaled.attribution_norm, s**power * base.attribution_norm, rtol=1e-5)
        np.testing.assert_allclose(rescaled.slope, s ** (power + 1) * base.slope, rtol=1e-5)
        np.testing.assert_allclose(rescaled.degrees, base.degrees, rtol=1e-4)


def test_tiny_outputs_keep_their_angle():
    # A saturated probability: everything times 1e-22, whose square is zero in float32. The angle does not change.
    A, b = symmetric(0, 8), np.arange(8) - 3.0
    x = jnp.asarray(X, jnp.float32)
    for method in ("lanczos", "dense"):
        base = BOUNDS["saliency", method](quadratic(A, b), x, 0, KEY)
        tiny = BOUNDS["saliency", method](quadratic(1e-22 * A, 1e-22 * b), x, 0, KEY)
        np.testing.assert_allclose(tiny.euclidean / 1e-22, base.euclidean, rtol=1e-4)
        np.testing.assert_allclose(tiny.attribution_norm / 1e-22, base.attribution_norm, rtol=1e-4)
        np.testing.assert_allclose(tiny.degrees, base.degrees, rtol=1e-3)


def test_nan_in_the_input_is_flagged():
    for method in ("lanczos", "dense"):
        found = BOUNDS["saliency", method](
            network(0, (8, 12, 3)), jnp.asarray(X, jnp.float32).at[2].set(jnp.nan), 0, KEY
        )
        assert np.isnan(found.euclidean)
        assert np.isnan(found.euclidean_attained)
        assert np.isnan(found.degrees)
        assert bool(found.vacuous)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"method": "qr"}, ValueError, "`method` must be one of 'lanczos', 'dense'; got 'qr'"),
        ({"num_steps": 0}, ValueError, "`num_steps` must be at least 1"),
        ({"num_steps": 2.0}, TypeError, "`num_steps` must be an integer"),
        ({"confidence": 1.0}, ValueError, "`confidence` must lie strictly between 0 and 1"),
        ({"tolerance": -1.0}, ValueError, "`tolerance` must be a finite number of at least 0"),
        ({"chunk": 0}, ValueError, "`chunk` must be at least 1"),
    ],
)
def test_options_are_checked_when_the_bound_is_built(options, error, message):
    with pytest.raises(error, match=message):
        ja.bounds.singular_value(SALIENCY, ja.L2(0.1), **options)
    with pytest.raises(error, match=message):
        ja.bounds.norm_relaxation(SALIENCY, ja.LInf(0.1), **options)


def test_another_ball_is_refused_with_what_to_use():
    with pytest.raises(
        TypeError, match=r"`singular_value` bounds perturbations of L2, got LInf.*norm_relaxation.*entrywise"
    ):
        ja.bounds.singular_value(SALIENCY, ja.LInf(0.1))
    with pytest.raises(TypeError, match=r"`ball` must be .*L2.*got 0\.1"):
        ja.bounds.singular_value(SALIENCY, 0.1)
