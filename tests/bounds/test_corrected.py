import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import affine, network, quadratic, symmetric

import jaxattr as ja

KEY = jax.random.key(3)
SALIENCY = ja.attributions.saliency()
X = np.array([0.5, 0.2])
EPSILON = 0.1


def cubic(x):
    """``g = 3 x^2``, ``J = diag(6 x)``."""
    return jnp.stack([jnp.sum(x**3), 0.0])


def corrected(bound, attribute=SALIENCY):
    return jax.jit(ja.bounds.corrected(bound, attribute), static_argnums=0)


@pytest.mark.parametrize("method", ["dense", "lanczos"])
def test_cubic_by_hand(method):
    # v = +-e_1: T = 0.3; g moves by 3 (2 * 0.5 * 0.1 + 0.01) = 0.33 to the right and 0.27 to the left.
    bound = ja.bounds.singular_value(SALIENCY, ja.L2(EPSILON), method=method)
    found = corrected(bound)(cubic, jnp.asarray(X, jnp.float32), 0, KEY)
    assert float(found.bound.euclidean) == pytest.approx(0.3, rel=1e-4)
    assert float(found.constant) == pytest.approx(1.1, rel=1e-4)
    plus = 1.1 if found.bound.direction[0] > 0 else 1.0
    assert float(found.constant_plus) == pytest.approx(plus, rel=1e-4)
    assert float(found.euclidean) == pytest.approx(0.33, rel=1e-4)
    assert float(found.remainder) == pytest.approx(0.1, rel=1e-3)
    norm = np.linalg.norm(3 * X**2)
    assert float(found.degrees) == pytest.approx(np.degrees(np.arcsin(0.33 / norm)), rel=1e-4)
    assert float(found.cosine) == pytest.approx(1 - np.sqrt(1 - (0.33 / norm) ** 2), rel=1e-4)
    assert not bool(found.vacuous)


def test_both_signs_whatever_the_direction_is():
    # The sign of a singular vector is arbitrary: a bound that reports -v must be corrected to the same number.
    bound = ja.bounds.singular_value(SALIENCY, ja.L2(EPSILON), method="dense")

    def flipped(*arguments):
        found = bound(*arguments)
        return dataclasses.replace(found, direction=-found.direction)

    x = jnp.asarray(X, jnp.float32)
    one, other = corrected(bound)(cubic, x, 0, KEY), corrected(flipped)(cubic, x, 0, KEY)
    np.testing.assert_allclose(one.euclidean, other.euclidean, rtol=1e-6)
    np.testing.assert_allclose(one.constant, other.constant, rtol=1e-6)
    np.testing.assert_allclose(sorted([float(one.constant_plus), float(other.constant_plus)]), [1.0, 1.1], rtol=1e-4)


def test_cubic_in_the_cube_by_hand():
    # At the corner s: g moves by 3 (2 x_i epsilon s_i + epsilon^2) in every entry.
    bound = ja.bounds.entrywise(SALIENCY, ja.LInf(EPSILON))
    found = corrected(bound)(cubic, jnp.asarray(X, jnp.float32), 0, KEY)
    s = np.asarray(found.bound.direction, np.float64)
    T = EPSILON * np.linalg.norm(6 * X)
    moves = [np.linalg.norm(3 * (2 * X * EPSILON * sign * s + EPSILON**2)) for sign in (1, -1)]
    assert float(found.bound.euclidean) == pytest.approx(T, rel=1e-5)
    assert float(found.euclidean) == pytest.approx(max(T, *moves), rel=1e-5)
    assert float(found.constant) == pytest.approx(max(1, max(moves) / T), rel=1e-5)
    assert float(found.constant_plus) == pytest.approx(max(1, moves[0] / T), rel=1e-5)
    assert float(found.remainder) == pytest.approx(3 * EPSILON**2 * np.sqrt(2) / T, rel=1e-4)


def test_quadratic_needs_no_correction():
    bound = ja.bounds.singular_value(SALIENCY, ja.L2(EPSILON))
    x = jnp.linspace(0.1, 0.9, 8)
    found = corrected(bound)(quadratic(symmetric(0, 8), np.ones(8)), x, 0, KEY)
    assert float(found.constant) == pytest.approx(1, abs=1e-5)
    assert float(found.constant) >= 1
    assert float(found.remainder) < 1e-4
    np.testing.assert_allclose(found.euclidean, found.bound.euclidean, rtol=1e-5)


@pytest.mark.parametrize("ball", [ja.L2(0.3), ja.LInf(0.1)])
def test_equation_11_on_a_network(ball):
    build = ja.bounds.singular_value if isinstance(ball, ja.L2) else ja.bounds.entrywise
    bound = jax.jit(ja.bounds.corrected(build(SALIENCY, ball), SALIENCY))
    gradient = jax.jit(lambda logits_fn, x: jax.grad(lambda z: logits_fn(z)[1])(x))
    hessian = jax.jit(lambda logits_fn, x: jax.hessian(lambda z: logits_fn(z)[1])(x))
    for seed in range(3):
        with jax.enable_x64(True):
            logits_fn, x = network(seed, (4, 8, 3), gain=4.0), jnp.asarray([0.2, 0.9, 0.5, 0.4])
            found = bound(logits_fn, x, 1, KEY)
            step = ball.epsilon * np.asarray(found.bound.direction)
            g = np.asarray(gradient(logits_fn, x))
            moved = [np.asarray(gradient(logits_fn, x + sign * step)) - g for sign in (1, -1)]
            J = np.asarray(hessian(logits_fn, x))
        moves = [np.linalg.norm(m) for m in moved]
        gaps = [np.linalg.norm(m - sign * J @ step) for m, sign in zip(moved, (1, -1), strict=True)]
        T = float(found.bound.euclidean)
        assert float(found.constant) == pytest.approx(max(1, *(m / T for m in moves)), rel=1e-9)
        assert float(found.euclidean) == pytest.approx(max(T, *moves), rel=1e-9)
        assert float(found.euclidean) == pytest.approx(float(found.constant) * T, rel=1e-9)
        assert float(found.remainder) == pytest.approx(max(gaps) / np.linalg.norm(J @ step), rel=1e-7)
        assert bool(found.vacuous) == (float(found.euclidean) > np.linalg.norm(g))


@pytest.mark.parametrize("case", ["linear_model", "radius_zero"])
def test_where_nothing_moves_nothing_is_corrected(case):
    # Also in rounding: a map that is evaluated in two ways differs from itself, and any number over 0 is infinite.
    x, W = jnp.asarray(X, jnp.float32), np.array([[1.0, -2.0], [0.5, 0.5]])
    epsilon, logits_fn = (EPSILON, affine(W, np.zeros(2))) if case == "linear_model" else (0.0, cubic)
    found = corrected(ja.bounds.singular_value(SALIENCY, ja.L2(epsilon)))(logits_fn, x, 0, KEY)
    assert float(found.constant) == float(found.constant_plus) == 1
    assert float(found.euclidean) == float(found.degrees) == float(found.cosine) == float(found.remainder) == 0
    assert not bool(found.vacuous)


def test_where_the_linear_model_does_not_move_at_all_the_constant_is_infinite_and_the_bound_is_not():
    # f = sum (x - 1/2)^4 / 4: at x = 1/2 J vanishes, g moves by epsilon^3.
    found = corrected(ja.bounds.singular_value(SALIENCY, ja.L2(0.5), method="dense"))(
        lambda x: jnp.stack([jnp.sum((x - 0.5) ** 4) / 4, 0.0]), jnp.array([0.5, 0.5]), 0, KEY
    )
    v = np.asarray(found.bound.direction, np.float64)
    assert float(found.bound.euclidean) == 0
    assert np.isinf(found.constant)
    assert np.isinf(found.remainder)
    assert float(found.euclidean) == pytest.approx(np.linalg.norm((0.5 * v) ** 3), rel=1e-5)
    assert np.isnan(found.degrees)  # the attribution itself is zero
    assert bool(found.vacuous)
