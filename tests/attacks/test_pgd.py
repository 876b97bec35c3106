import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from jax.tree_util import Partial

import jaxattr as ja

KEY = jax.random.key(0)
X = np.array([0.5, 0.4, 0.6, 0.05, 1.0], np.float32)
W = np.array([[1.0, -2.0, 0.8, -1.0, 1.5], [0.0, 1.0, 0.5, 1.0, -0.5], [-1.0, 0.0, 2.0, 0.0, 1.0]], np.float32)


def linear(weights, x):
    return weights @ x


def unit(weights, x):
    """One softplus unit against a constant logit."""
    w, b = weights
    return jnp.stack([jax.nn.softplus(w @ x + b), 0.3 * jnp.ones_like(b)])


def softmax(values):
    values = np.exp(values - np.max(values))
    return values / np.sum(values)


@functools.cache
def compiled(kind, **options):
    """The attack with its radius as an argument: one compilation per set of options."""

    def attack(logits_fn, x, label, key, epsilon):
        return ja.attacks.pgd(ja.balls.BALLS[kind](epsilon), **options)(logits_fn, x, label, key)

    return jax.jit(attack)


def cross_entropy_gradient(x, label):
    return W.T @ (softmax(W @ x) - np.eye(3)[label])


@pytest.mark.parametrize("kind", ["l2", "linf"])
@pytest.mark.parametrize("label", [0, 1, 2])
def test_one_step_in_closed_form(kind, label):
    """x + step * steepest(W^T (softmax - onehot)), before and after the box."""
    gradient = cross_entropy_gradient(X, label)
    direction = gradient / np.linalg.norm(gradient) if kind == "l2" else np.sign(gradient)
    attack = compiled(kind, num_steps=1, step_size=0.08, random_start=False)
    result = attack(Partial(linear, W), X, label, KEY, 0.1)
    np.testing.assert_allclose(result.x, np.clip(X + 0.08 * direction, 0, 1), rtol=1e-6, atol=1e-7)
    expected = -np.log(softmax(W @ np.asarray(result.x)))[label]
    assert float(result.objective) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("kind", ["l2", "linf"])
def test_a_step_longer_than_the_radius_ends_on_its_boundary(kind):
    gradient = cross_entropy_gradient(X, 2)
    direction = gradient / np.linalg.norm(gradient) if kind == "l2" else np.sign(gradient)
    result = compiled(kind, num_steps=1, step_size=5.0, random_start=False)(Partial(linear, W), X, 2, KEY, 0.02)
    np.testing.assert_allclose(result.x, np.clip(X + 0.02 * direction, 0, 1), rtol=1e-5, atol=1e-6)


def test_two_linear_logits_are_driven_into_the_exact_corner():
    w = W[0] - W[1]
    attack = compiled("linf", num_steps=5)
    for label, epsilon in ((0, 0.1), (1, 0.1), (0, 0.7)):
        result = attack(Partial(linear, W[:2]), X, label, jax.random.key(label), epsilon)
        corner = np.clip(X + (1 - 2 * label) * epsilon * -np.sign(w), 0, 1)
        np.testing.assert_allclose(result.x, corner, rtol=1e-6, atol=1e-7)


def test_two_linear_logits_in_an_l2_ball_reach_the_boundary_along_the_normal():
    w = W[0] - W[1]

    def attack(weights, x):
        return ja.attacks.pgd(ja.L2(0.2, box=None), num_steps=40, step_size=0.05)(Partial(linear, weights), x, 0, KEY)

    result = jax.jit(attack)(W[:2], X)
    np.testing.assert_allclose(result.x - X, -0.2 * w / np.linalg.norm(w), atol=2e-3)
    assert float(result.distance) == pytest.approx(0.2, rel=1e-5)


@pytest.mark.parametrize("kind", ["l2", "linf"])
def test_three_steps_equal_the_update_rule_in_numpy(kind):
    """A softplus unit, the same random start: x <- clip(project(x + step * direction)), in float64."""
    w, b = W[0].astype(float), 0.3
    x = X.astype(float)
    epsilon, step = 0.15, 0.07
    ball = ja.balls.BALLS[kind](epsilon)
    key = jax.random.key(3)
    current = np.clip(x + np.asarray(ball.sample(key, X.shape, jnp.float32), float), 0, 1)
    for _ in range(3):
        z = w @ current + b
        p = softmax(np.array([np.logaddexp(0, z), 0.3]))
        gradient = (p[0] - 1) / (1 + np.exp(-z)) * w
        direction = gradient / np.linalg.norm(gradient) if kind == "l2" else np.sign(gradient)
        delta = current + step * direction - x
        if kind == "l2":
            delta *= min(1, epsilon / np.linalg.norm(delta))
        else:
            delta = np.clip(delta, -epsilon, epsilon)
        current = np.clip(x + delta, 0, 1)
    attack = compiled(kind, num_steps=3, step_size=step)
    result = attack(Partial(unit, (W[0], jnp.float32(b))), X, 0, key, epsilon)
    np.testing.assert_allclose(result.x, current, rtol=1e-5, atol=1e-6)


def test_default_step_crosses_the_ball():
    """2.5 epsilon / num_steps, measured on one step that nothing clips."""

    def attack(x):
        return ja.attacks.pgd(ja.LInf(0.1), num_steps=25, random_start=False)(Partial(linear, W[:2]), x, 0, KEY)

    def one(x):
        return ja.attacks.pgd(ja.LInf(0.1), num_steps=1, step_size=0.01, random_start=False)(
            Partial(linear, W[:2]), x, 0, KEY
        )

    # 25 steps of 0.01 reach the boundary after 10; 1 step of 0.01 does not.
    x = jnp.full(5, 0.5)
    assert float(jax.jit(attack)(x).distance) == pytest.approx(0.1, rel=1e-5)
    assert float(jax.jit(one)(x).distance) == pytest.approx(0.01, rel=1e-4)


@pytest.mark.parametrize("kind", ["l2", "linf"])
def test_random_starts_are_inside_of_ball_and_box_and_spread(kind):
    """A network without gradient shows the start itself."""
    flat = Partial(linear, np.zeros((2, 5), np.float32))
    attack = compiled(kind, num_steps=1)
    keys = jax.random.split(KEY, 200)
    found = jax.jit(jax.vmap(attack, in_axes=(None, None, None, 0, None)))(flat, X, 0, keys, 0.3)
    assert np.all((found.x >= 0) & (found.x <= 1))
    delta = np.asarray(found.x, float) - X
    sizes = np.linalg.norm(delta, 2 if kind == "l2" else np.inf, axis=1)
    assert np.all(sizes <= 0.3 * (1 + 1e-6))
    # X[3] = 0.05 and X[4] = 1 are clipped in part; the others are symmetric.
    standard_error = np.std(delta, axis=0) / np.sqrt(200)
    assert np.all(np.abs(np.mean(delta, axis=0)[:3]) < 4 * standard_error[:3])
    assert np.mean(found.x[:, 4] == 1) == pytest.approx(0.5, abs=4 * 0.5 / np.sqrt(200))
    if kind == "linf":
        assert np.std(delta[:, 0]) == pytest.approx(0.3 / np.sqrt(3), rel=0.15)
    else:
        # In 5 dimensions the radius of a uniform point is epsilon times the fifth root of a uniform number.
        free = np.asarray(jax.vmap(lambda k: ja.L2(0.3).sample(k, (5,), jnp.float32))(keys))
        assert np.mean(np.linalg.norm(free, axis=1)) == pytest.approx(0.3 * 5 / 6, rel=0.03)


def overshooting(weights, x):
    """Cross-entropy of class 0 is largest at x[0] = 0.6, between the steps: the last iterate is not the best."""
    return jnp.stack([weights * (x[0] - 0.6) ** 2, 0.0 * x[0]])


def test_last_best_and_best_label_kept_differ_as_they_say():
    """Steps of 0.08 from 0.5: 0.58, 0.66, 0.58, 0.66; the start is 0.1 away and the nearest iterate 0.02."""
    x = jnp.array([0.5])
    logits_fn = Partial(overshooting, jnp.float32(100.0))
    found = {
        keep: float(
            compiled("linf", num_steps=2, step_size=0.08, random_start=False, keep=keep)(logits_fn, x, 0, KEY, 0.3).x[0]
        )
        for keep in ("last", "best")
    }
    assert found["last"] == pytest.approx(0.66, rel=1e-6)
    assert found["best"] == pytest.approx(0.58, rel=1e-6)


def test_best_label_kept_stops_before_the_label_moves():
    """Logits (1 - x, x - 0.1) with x from 0.1 upwards in steps of 0.1: the label moves beyond 0.55.

    An iterate beyond goes half of the way back to the last one before, and tries again.
    """

    def logits_fn(x):
        return jnp.stack([1.0 - x[0], x[0] - 0.1])

    x = jnp.array([0.1])
    results = {
        keep: compiled("linf", num_steps=8, step_size=0.1, random_start=False, keep=keep)(
            Partial(logits_fn), x, 0, KEY, 0.9
        )
        for keep in ("last", "best", "best_label_kept")
    }
    for keep in ("last", "best"):
        assert float(results[keep].x[0]) == pytest.approx(0.9, rel=1e-5)
        assert (int(results[keep].label), bool(results[keep].label_kept)) == (1, False)
    assert 0.5 <= float(results["best_label_kept"].x[0]) <= 0.55 + 1e-6
    assert bool(results["best_label_kept"].label_kept)


def test_the_last_iterate_counts_as_well():
    """``best`` over one step must look at the point that the step reaches."""
    attack = compiled("linf", num_steps=1, step_size=0.1, random_start=False, keep="best")
    result = attack(Partial(linear, W[:2]), X, 0, KEY, 0.1)
    assert float(result.distance) == pytest.approx(0.1, rel=1e-5)


@pytest.mark.parametrize("keep", ["last", "best", "best_label_kept"])
@pytest.mark.parametrize("kind", ["l2", "linf"])
def test_radius_zero_returns_the_sample(kind, keep):
    def attack(x):
        return ja.attacks.pgd(ja.balls.BALLS[kind](0.0), num_steps=3, keep=keep)(Partial(linear, W), x, 1, KEY)

    result = jax.jit(attack)(X)
    np.testing.assert_array_equal(result.x, X)
    assert (float(result.distance), bool(result.label_kept)) == (0.0, True)


def test_on_the_deviation_it_equals_the_strongest_direction_of_a_quadratic():
    """g(x) = A x: PGD with the deviation as objective ends at sigma_max * epsilon."""
    rng = np.random.default_rng(0)
    A = rng.normal(size=(4, 4)).astype(np.float32)
    A = A + A.T
    saliency = ja.attributions.saliency()

    def attack(A, x, key):
        ball = ja.L2(0.2, box=None)
        objective = ja.attacks.deviation(saliency, ja.attacks.dissimilarities.euclidean())
        return ja.attacks.pgd(ball, num_steps=60, step_size=0.1, objective=objective, keep="best")(
            lambda x: jnp.stack([x @ A @ x / 2, 0.0]), x, 0, key
        )

    result = jax.jit(attack)(A, jnp.ones(4), KEY)
    assert float(result.objective) == pytest.approx(0.2 * np.linalg.norm(A.astype(float), 2), rel=1e-3)


@pytest.mark.parametrize("kind", ["l2", "linf"])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_sample_that_is_not_finite_is_flagged(kind, bad):
    x = X.copy()
    x[1] = bad
    # Compiled: an eager call refuses an infinite input, which lies outside of the box.
    result = compiled(kind, num_steps=2)(Partial(linear, W), x, 0, KEY, 0.1)
    assert not bool(result.label_kept)
    assert not np.isfinite(float(result.distance))


def test_logits_that_are_not_finite_keep_no_label():
    """argmax takes the first NaN for the predicted class, before and after: nothing was kept."""

    def broken(x):
        return jnp.stack([jnp.sum(x), jnp.log(x[0] - 2)])

    result = compiled("linf", num_steps=2)(Partial(broken), X, 0, KEY, 0.1)
    assert not bool(result.label_kept)


def test_unrolling_changes_nothing():
    plain, unrolled = (
        compiled("l2", num_steps=4, unroll=unroll)(Partial(linear, W), X, 0, KEY, 0.1) for unroll in (1, 4)
    )
    np.testing.assert_allclose(plain.x, unrolled.x, rtol=1e-6)


def test_a_number_as_random_start_is_the_deviation_of_gaussian_noise():
    flat = Partial(linear, np.zeros((2, 5), np.float32))
    attack = compiled("linf", num_steps=1, random_start=0.01)
    keys = jax.random.split(KEY, 500)
    middle = np.full(5, 0.5, np.float32)
    delta = jax.jit(jax.vmap(attack, in_axes=(None, None, None, 0, None)))(flat, middle, 0, keys, 0.3).x - middle
    assert np.std(delta) == pytest.approx(0.01, rel=0.05)
    assert scipy.stats.kstest(np.ravel(delta) / 0.01, "norm").pvalue > 1e-3
    # A deviation that is wide against the ball ends on its surface.
    wide = compiled("linf", num_steps=1, random_start=100.0)(flat, middle, 0, KEY, 0.02).x
    np.testing.assert_allclose(np.abs(wide - middle), 0.02, rtol=1e-4)
    with pytest.raises(ValueError, match="`random_start` must be a finite number above 0"):
        ja.attacks.pgd(ja.LInf(0.1), random_start=-1.0)
