"""Theorem 2, the sum of absolute entries of P = J^T J, beside Corollary 1 and the best corner of the cube."""

import jax.numpy as jnp
import numpy as np
import pytest
from cube import BALL, BOUNDS, EPSILON, KEY, SALIENCY, X, assert_sound, saliency_at
from oracles import assert_of_exhausted_run, largest_at_corner, quadratic, symmetric

import jaxattr as ja


def test_theorem_2_is_neither_attained_nor_always_smaller():
    # P = 3 I - ones: entries sum to 12, no corner is above 8, and Corollary 1 gives 9.
    P = 3 * np.eye(3) - 1
    root = P / np.sqrt(3)
    squares, found = saliency_at(root)
    assert largest_at_corner(root) ** 2 == pytest.approx(8)
    assert squares["entrywise"] == pytest.approx(12, rel=1e-5)
    # The space of a start has two dimensions of three.
    for name in ("norm_relaxation", "smallest"):
        assert_of_exhausted_run(np.sqrt(squares[name]), 3, 3)
    smallest = found["smallest"]
    assert smallest.methods == ("norm_relaxation", "entrywise")
    assert smallest.methods[int(smallest.active)] == "norm_relaxation"
    assert float(smallest.euclidean_attained / EPSILON) ** 2 == pytest.approx(8, rel=1e-5)


def test_theorem_2_on_a_conference_matrix():
    # Order 14 from the quadratic residues modulo 13: C^2 = 13 I, P = sqrt(13) I + C.
    squares_mod = {i * i % 13 for i in range(1, 13)}
    residues = [[0 if i == j else (1 if (i - j) % 13 in squares_mod else -1) for j in range(13)] for i in range(13)]
    C = np.block([[np.zeros((1, 1)), np.ones((1, 13))], [np.ones((13, 1)), np.array(residues)]])
    np.testing.assert_array_equal(C @ C, 13 * np.eye(14))
    P = np.sqrt(13) * np.eye(14) + C
    root = P / np.sqrt(2 * np.sqrt(13))
    np.testing.assert_allclose(root @ root, P, atol=1e-12)
    squares, found = saliency_at(root)
    assert squares["entrywise"] == pytest.approx(232.5, abs=0.05)
    assert squares["norm_relaxation"] == pytest.approx(101.0, abs=0.05)
    assert int(found["smallest"].active) == 0
    assert_sound(found, root)


@pytest.mark.parametrize("seed", range(2))
def test_theorem_2_is_exact_where_signs_are_balanced(seed):
    # P = S |P| S with signs S: the corner S attains the bound.
    rng = np.random.default_rng(seed)
    signs = rng.choice([-1.0, 1.0], 8)
    root = np.abs(symmetric(seed, 8)) * np.outer(signs, signs)
    squares, found = saliency_at(root)
    assert squares["entrywise"] == pytest.approx(largest_at_corner(root) ** 2, rel=1e-5)
    assert float(found["entrywise"].euclidean_attained) == pytest.approx(float(found["entrywise"].euclidean), rel=1e-5)


def test_input_x_gradient_of_a_linear_model_is_exact():
    w = np.random.default_rng(0).normal(size=8)
    found = BOUNDS["input_x_gradient"](quadratic(np.zeros((8, 8)), w), jnp.asarray(X, jnp.float32), 0, KEY)
    # J = diag(w): every corner is a maximizer.
    truth = EPSILON * np.linalg.norm(w)
    assert float(found["entrywise"].euclidean) == pytest.approx(truth, rel=1e-5)
    assert float(found["entrywise"].euclidean_attained) == pytest.approx(truth, rel=1e-5)


def test_another_ball_is_refused():
    with pytest.raises(TypeError, match=r"`entrywise` bounds perturbations of LInf, got L2\. For L2: `singular_value`"):
        ja.bounds.entrywise(SALIENCY, ja.L2(0.1))


@pytest.mark.parametrize("option", ["chunk", "corner_steps", "corner_starts"])
def test_options_are_checked_when_the_bound_is_built(option):
    with pytest.raises(ValueError, match=f"`{option}` must be at least 1"):
        ja.bounds.entrywise(SALIENCY, BALL, **{option: 0})
