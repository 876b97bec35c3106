import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

import jaxattr as ja

KEY = jax.random.key(0)
SALIENCY = ja.attributions.saliency()
A = np.random.default_rng(0).normal(size=(5, 5)).astype(np.float32)
A = A + A.T


def quadratic(A, x):
    return jnp.stack([x @ A @ x / 2 + 50, 0.0])


@functools.cache
def compiled(kind, box=(0.0, 1.0), keep_label=True):
    def run(logits_fn, x, label, key, epsilon):
        ball = ja.balls.BALLS[kind](epsilon, box=box)
        make = ja.bounds.singular_value if kind == "l2" else ja.bounds.norm_relaxation
        bound = make(SALIENCY, ball, method="dense")
        attack = ja.attacks.worst_direction(ball, SALIENCY, bound, keep_label=keep_label)
        return attack(logits_fn, x, label, key), bound(logits_fn, x, label, key)

    return jax.jit(run)


@pytest.mark.parametrize("epsilon", [0.0, 1e-3, 0.3])
def test_on_a_quadratic_it_attains_the_bound(epsilon):
    result, bound = compiled("l2")(Partial(quadratic, A), np.full(5, 0.5, np.float32), 0, KEY, epsilon)
    expected = epsilon * np.linalg.norm(A.astype(float), 2)
    # g = A x loses digits of x' - x: a unit in the last place of x against epsilon.
    assert float(result.objective) == pytest.approx(expected, rel=1e-4, abs=1e-6)
    assert float(bound.euclidean) == pytest.approx(expected, rel=1e-5)
    assert float(result.distance) == pytest.approx(epsilon, rel=1e-4)


def test_on_a_quadratic_in_an_l_infinity_ball_it_attains_the_corner_of_the_bound():
    result, bound = compiled("linf")(Partial(quadratic, A), np.full(5, 0.5, np.float32), 0, KEY, 0.1)
    assert float(result.objective) == pytest.approx(float(bound.euclidean_attained), rel=1e-5)
    np.testing.assert_allclose(np.abs(np.asarray(result.x) - 0.5), 0.1, rtol=1e-5)


def test_it_is_clipped_to_the_box_and_says_what_is_left():
    x = np.array([0.0, 1.0, 0.0, 1.0, 0.5], np.float32)
    result, bound = compiled("linf")(Partial(quadratic, A), x, 0, KEY, 0.2)
    assert np.all((result.x >= 0) & (result.x <= 1))
    moved = [
        np.linalg.norm(A.astype(float) @ (np.clip(x + s * 0.2 * np.asarray(bound.direction, float), 0, 1) - x))
        for s in (1, -1)
    ]
    # Of the two signs the box favors one: the larger deviation is returned.
    assert abs(moved[0] - moved[1]) > 1e-3
    assert float(result.objective) == pytest.approx(max(moved), rel=1e-5)


def skewed(weights, x):
    """g = (3 u^2 + 2 u, 0) with u = x_0 - 0.5, so that +v moves it more; class 1 takes over at u = margin."""
    u = x[0] - 0.5
    return jnp.stack([u**3 + u**2 + 1.0, 1.0 + u**3 + u**2 + 5 * (u - weights)])


@pytest.mark.parametrize(("margin", "keep_label", "sign"), [(0.05, True, -1), (0.05, False, 1), (0.5, True, 1)])
def test_of_both_signs_one_that_keeps_the_label_is_preferred(margin, keep_label, sign):
    x = np.array([0.5, 0.5], np.float32)
    attack = compiled("l2", keep_label=keep_label)
    result, _ = attack(Partial(skewed, np.float32(margin)), x, 0, KEY, 0.1)
    np.testing.assert_allclose(result.x, [0.5 + sign * 0.1, 0.5], atol=1e-6)
    assert float(result.objective) == pytest.approx(abs(3 * 0.1**2 + sign * 2 * 0.1), rel=1e-5)
    assert bool(result.label_kept) == (margin > 0.1 or sign < 0)


def test_where_neither_keeps_the_label_the_stronger_is_returned_and_flagged():
    def logits_fn(x):
        u = x[0] - 0.5
        return jnp.stack([u**3 + u**2, u**3 + u**2 + 10 * (u**2 - 0.001)])

    result, _ = compiled("l2")(Partial(logits_fn), np.array([0.5, 0.5], np.float32), 0, KEY, 0.1)
    assert not bool(result.label_kept)
    assert float(result.objective) == pytest.approx(0.23, rel=1e-4)


@pytest.mark.parametrize("kind", ["l2", "linf"])
def test_a_sample_that_is_not_finite_is_flagged(kind):
    def cubic(x):
        return jnp.stack([jnp.sum(x**3), 0.0])

    x = np.array([0.5, np.nan, 0.5], np.float32)
    result, bound = compiled(kind)(Partial(cubic), x, 0, KEY, 0.1)
    assert not bool(result.label_kept)
    assert np.isnan(float(result.objective))
    assert np.isnan(float(bound.euclidean))


def test_an_attribution_of_another_shape_says_so():
    def total(logits_fn, x, label):
        return jnp.sum(x)

    ball = ja.L2(0.1)
    attack = ja.attacks.worst_direction(ball, total, ja.bounds.singular_value(SALIENCY, ball, method="dense"))
    with pytest.raises(ValueError, match=r"must have the shape of its input \(5,\), but it returned \(\)"):
        jax.eval_shape(attack, Partial(quadratic, A), np.full(5, 0.5, np.float32), 0, KEY)


def test_an_input_outside_of_the_box_is_refused_whatever_the_bound_says():
    """The bound has no box, the attack has one: the result would be farther away than epsilon."""
    bound = ja.bounds.singular_value(SALIENCY, ja.L2(0.1, box=None), method="dense")
    attack = ja.attacks.worst_direction(ja.L2(0.1), SALIENCY, bound)
    with pytest.raises(ValueError, match=r"`x` must lie in the box"):
        attack(Partial(quadratic, A), np.full(5, 1.5, np.float32), 0, KEY)
