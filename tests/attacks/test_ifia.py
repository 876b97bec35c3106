import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

import jaxattr as ja

KEY = jax.random.key(0)
SALIENCY = ja.attributions.saliency()
EUCLIDEAN, TOP_2 = ja.attacks.dissimilarities.euclidean(), ja.attacks.dissimilarities.top_k(2)
X = np.array([0.5, 0.4, 0.6, 0.2], np.float32)


def unit(weights, x):
    """One softplus unit: g = sigmoid(z) w and J = sigmoid'(z) w w^T, with z = w.x + b."""
    w, b = weights
    z = w @ x + b
    return jnp.stack([jax.nn.softplus(z), 0.9 * jnp.ones_like(z)])


def quadratic(A, x):
    return jnp.stack([x @ A @ x / 2 + 50, 0.0])


def linear(W, x):
    return W @ x.ravel()


def symmetric(seed, size):
    A = np.random.default_rng(seed).normal(size=(size, size)).astype(np.float32)
    return A + A.T


@functools.cache
def compiled(dissimilarity, kind="linf", attribute=SALIENCY, box=(0.0, 1.0), num_restarts=None, **options):
    def attack(logits_fn, x, label, key, epsilon):
        run = ja.attacks.ifia(ja.balls.BALLS[kind](epsilon, box=box), attribute, dissimilarity, **options)
        run = run if num_restarts is None else ja.attacks.restarts(run, num_restarts)
        return run(logits_fn, x, label, key)

    return jax.jit(attack)


@pytest.mark.parametrize(("kind", "measure"), [("l2", "intersection"), ("linf", "kendall")])
def test_saliency_of_a_linear_model_does_not_move(kind, measure):
    W = np.random.default_rng(0).normal(size=(2, 6)).astype(np.float32)
    attack = compiled(ja.attacks.dissimilarities.top_k(2, measure=measure), kind, num_steps=3)
    x = np.full(6, 0.5, np.float32)
    result = attack(Partial(linear, W), x, int(np.argmax(W @ x)), KEY, 0.2)
    assert float(result.objective) == pytest.approx(0, abs=1e-6)
    np.testing.assert_array_equal(result.x, x)
    assert bool(result.label_kept)


def test_input_x_gradient_of_a_linear_model_moves_through_x_alone():
    """g = W_y * x: the top feature of 0.5 * (3, 2.9) is overtaken once 3 (1 - t) < 2.9 (1 + t)."""
    W = np.array([[3.0, 2.9], [0.0, 0.0]], np.float32)
    attack = compiled(ja.attacks.dissimilarities.top_k(1), attribute=ja.attributions.input_x_gradient(), num_steps=20)
    for epsilon, expected in ((0.001, 0.0), (0.1, 1.0)):
        result = attack(Partial(linear, W), np.full(2, 0.5, np.float32), 0, KEY, epsilon)
        assert float(result.objective) == expected
        assert int(result.label) == 0


@pytest.mark.parametrize("kind", ["l2", "linf"])
def test_the_best_of_all_iterates_that_keep_the_label_is_returned(kind):
    """The same loop in NumPy's float64, every iterate looked at again."""
    w, b = np.array([2.0, -1.0, 1.5, 0.5]), -0.6
    x, epsilon, step, steps = X.astype(float), 0.4, 0.11, 7

    def predicts(z):
        return 0 if np.logaddexp(0, w @ z + b) >= 0.9 else 1

    def sigmoid(z):
        return 1 / (1 + np.exp(-(w @ z + b)))

    kept_some = False
    for seed in range(6):
        key = jax.random.key(seed)
        ball = ja.balls.BALLS[kind](epsilon)
        current = np.clip(x + np.asarray(ball.sample(key, X.shape, jnp.float32), float), 0, 1)
        iterates, anchor, mirrored = [x, current], x, False
        for _ in range(steps):
            if predicts(current) != predicts(x):
                # The opposite point the first time, half of the way back after that.
                current = (current + anchor) / 2 if mirrored else np.clip(2 * x - current, 0, 1)
                anchor, mirrored = anchor if mirrored else x, True
                iterates.append(current)
                continue
            anchor = current
            s = sigmoid(current)
            # J^T (g - g0) for the score ||g - g0||^2 / 2.
            gradient = s * (1 - s) * w * (w @ ((s - sigmoid(x)) * w))
            direction = gradient / np.linalg.norm(gradient) if kind == "l2" else np.sign(gradient)
            delta = current + step * direction - x
            delta = delta * min(1, epsilon / np.linalg.norm(delta)) if kind == "l2" else np.clip(delta, -0.4, 0.4)
            current = np.clip(x + delta, 0, 1)
            iterates.append(current)
        kept = [z for z in iterates if predicts(z) == predicts(x)]
        kept_some |= 1 < len(kept) < len(iterates)
        values = [abs(sigmoid(z) - sigmoid(x)) * np.linalg.norm(w) for z in kept]
        attack = compiled(EUCLIDEAN, kind, num_steps=steps, step_size=step)
        result = attack(Partial(unit, (w.astype(np.float32), np.float32(b))), X, 0, key, np.float32(epsilon))
        assert float(result.objective) == pytest.approx(max(values), rel=2e-5, abs=1e-6)
        np.testing.assert_allclose(result.x, kept[int(np.argmax(values))], rtol=1e-4, atol=2e-5)
        assert bool(result.label_kept)
    # The test would be empty if no iterate ever lost its label.
    assert kept_some


@pytest.mark.parametrize("kind", ["l2", "linf"])
def test_without_an_iterate_that_keeps_the_label_the_sample_is_returned(kind):
    """A label that only x itself has."""

    def logits_fn(x):
        off = jnp.sum(jnp.abs(x - X)) > 1e-4
        return jnp.stack([x @ x, jnp.where(off, 100.0, -100.0)])

    attack = compiled(EUCLIDEAN, kind, num_steps=3, kinks="allow")
    result = attack(Partial(logits_fn), X, 0, KEY, 0.1)
    np.testing.assert_array_equal(result.x, X)
    assert int(result.kinks) > 0
    assert (float(result.objective), float(result.distance), bool(result.label_kept)) == (0.0, 0.0, True)


def test_euclidean_on_a_quadratic_reaches_the_largest_singular_value():
    A = symmetric(1, 5)
    attack = compiled(EUCLIDEAN, "l2", box=None, num_steps=60)
    for epsilon in (1e-3, 0.3):
        result = attack(Partial(quadratic, A), np.full(5, 0.5, np.float32), 0, KEY, epsilon)
        assert float(result.objective) == pytest.approx(epsilon * np.linalg.norm(A.astype(float), 2), rel=2e-3)


def test_euclidean_on_a_quadratic_reaches_the_best_of_all_corners():
    A, epsilon = symmetric(2, 6), 0.2
    corners = epsilon * np.array(list(itertools.product([-1, 1], repeat=6)))
    best = np.max(np.linalg.norm(corners @ A.astype(float), axis=1))
    attack = compiled(EUCLIDEAN, box=None, num_steps=25, num_restarts=16)
    result = attack(Partial(quadratic, A), np.full(6, 0.5, np.float32), 0, KEY, epsilon)
    assert float(jnp.max(result.objective)) == pytest.approx(best, rel=1e-5)
    assert np.all(result.objective <= best * (1 + 1e-5))


def test_the_box_is_respected_and_costs_deviation():
    """x at a corner of the box: only the valid half of the corners counts."""
    A, epsilon = symmetric(2, 6), 0.2
    x = np.array([0.0, 1.0, 0.0, 1.0, 0.5, 0.5], np.float32)
    corners = np.clip(x + epsilon * np.array(list(itertools.product([-1, 0, 1], repeat=6))), 0, 1) - x
    best = np.max(np.linalg.norm(corners @ A.astype(float), axis=1))
    result = compiled(EUCLIDEAN, num_steps=25, num_restarts=16)(Partial(quadratic, A), x, 0, KEY, epsilon)
    assert float(jnp.max(result.objective)) == pytest.approx(best, rel=1e-5)


@pytest.mark.parametrize("dissimilarity", [EUCLIDEAN, TOP_2, ja.attacks.dissimilarities.cosine()], ids=lambda d: d.name)
def test_what_is_reported_is_true_of_the_returned_point(dissimilarity):
    A = symmetric(3, 4)
    logits_fn = Partial(quadratic, A)
    attack = compiled(dissimilarity, "l2", num_steps=4)
    for seed in range(4):
        result = attack(logits_fn, X, 0, jax.random.key(seed), 0.3)
        a, b = A.astype(float) @ X, A.astype(float) @ np.asarray(result.x, float)
        top = [set(np.argsort(-np.abs(g), kind="stable")[:2]) for g in (a, b)]
        expected = {
            "euclidean": np.linalg.norm(a - b),
            "cosine": 1 - a @ b / np.linalg.norm(a) / np.linalg.norm(b),
            "top_k": 1 - len(top[0] & top[1]) / 2,
        }[dissimilarity.name]
        assert float(result.objective) == pytest.approx(expected, rel=1e-5, abs=1e-6)
        assert float(result.distance) == pytest.approx(
            np.linalg.norm(np.asarray(result.x, float) - X), rel=1e-5, abs=1e-8
        )
        assert int(result.label) == 0
        assert bool(result.label_kept)


def test_a_misclassified_sample_keeps_the_label_that_is_predicted():
    """Label 1 is explained, 0 is predicted: what must not change is the prediction."""
    logits_fn = Partial(unit, (np.array([2.0, -1.0, 1.5, 0.5], np.float32), np.float32(0.5)))

    def both(weights, x):
        values = unit(weights, x)
        return jnp.stack([values[0], values[1] - 0.3 * x @ x])

    predicted = int(jnp.argmax(both(*logits_fn.args, X)))
    assert predicted == 0
    result = compiled(EUCLIDEAN, num_steps=5)(Partial(both, *logits_fn.args), X, 1, KEY, 0.1)
    assert int(result.label) == predicted
    assert bool(result.label_kept)
    assert float(result.objective) > 0


def test_it_does_not_do_worse_than_its_random_start():
    A = symmetric(4, 4)
    attack = compiled(EUCLIDEAN, num_steps=2)
    ball = ja.LInf(0.2)
    for seed in range(5):
        key = jax.random.key(seed)
        start = ball.clip(X + ball.sample(key, X.shape, jnp.float32))
        moved = np.linalg.norm(A.astype(float) @ (np.asarray(start, float) - X))
        assert float(attack(Partial(quadratic, A), X, 0, key, 0.2).objective) >= moved * (1 - 1e-5)


@pytest.mark.parametrize("dissimilarity", [EUCLIDEAN, TOP_2], ids=lambda d: d.name)
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_sample_that_is_not_finite_is_flagged(dissimilarity, bad):
    x = X.copy()
    x[2] = bad
    result = compiled(dissimilarity, num_steps=2)(Partial(quadratic, symmetric(5, 4)), x, 0, KEY, 0.1)
    assert not bool(result.label_kept)
    if np.isnan(bad):
        assert np.isnan(float(result.objective))


def test_logits_that_are_not_finite_keep_no_label():
    """The explained logit is fine, another one is NaN throughout: nothing is known about the label."""

    def broken(x):
        return jnp.stack([x @ x / 2, jnp.log(x[0] - 2)])

    result = compiled(EUCLIDEAN, num_steps=2)(Partial(broken), X, 0, KEY, 0.1)
    assert not bool(result.label_kept)


@pytest.mark.parametrize("k", [5, 100])
def test_k_beyond_the_map_says_so(k):
    attack = ja.attacks.ifia(ja.LInf(0.1), SALIENCY, ja.attacks.dissimilarities.top_k(k))
    with pytest.raises(ValueError, match=rf"`k` must be between 1 and the 4 entries .* got {k}"):
        jax.eval_shape(attack, Partial(quadratic, symmetric(0, 4)), X, 0, KEY)


def half_plane(weights, x):
    """g(x) = H x for both classes; class 1 is kept while x_0 stays above a limit."""
    H, limit = weights
    return jnp.stack([x @ H @ x / 2, x @ H @ x / 2 + x[0] - limit])


HESSIAN = np.array([[2.0, 0.5], [0.5, 1.0]], np.float32)


def test_a_start_that_loses_the_label_comes_back():
    """A quarter of the starts; the corner (0.1, 0.1) keeps the label and moves the map by 0.29155."""
    attack = ja.attacks.ifia(ja.LInf(0.1), SALIENCY, ja.attacks.dissimilarities.euclidean())
    logits_fn = Partial(half_plane, (HESSIAN, np.float32(0.45)))
    run = jax.jit(jax.vmap(attack, in_axes=(None, None, None, 0)))
    found = run(logits_fn, jnp.full(2, 0.5), 1, jax.random.split(KEY, 400))
    assert np.all(found.label_kept)
    np.testing.assert_allclose(found.objective, np.linalg.norm(HESSIAN @ [0.1, 0.1]), rtol=1e-4)


def test_where_both_sides_lose_the_label_the_limit_is_approached():
    """|x_0 - 0.5| < 0.04 keeps the label: no corner does, and no start that is beyond may end at the sample itself."""

    def strip(x):
        return jnp.stack([x @ HESSIAN @ x / 2, x @ HESSIAN @ x / 2 + 1e-2 - (x[0] - 0.5) ** 2 * 6.25])

    attack = ja.attacks.ifia(ja.LInf(0.1), SALIENCY, ja.attacks.dissimilarities.euclidean())
    x = jnp.full(2, 0.5)
    found = jax.jit(jax.vmap(lambda key: attack(strip, x, 1, key)))(jax.random.split(KEY, 50))
    # Class 1 is explained, whose map has the term of the strip, too.
    slope = HESSIAN - np.diag([12.5, 0])
    grid = np.stack(np.meshgrid(np.linspace(-0.04, 0.04, 81), np.linspace(-0.1, 0.1, 81)), axis=-1)
    best = np.linalg.norm(grid @ slope.T, axis=-1).max()
    assert np.all(found.label_kept)
    assert np.all(found.objective <= best * (1 + 1e-4))
    assert np.min(found.objective) > 0.8 * best


def test_pgd_that_keeps_the_label_approaches_the_limit_from_every_start():
    """The cross-entropy of class 1 is largest at the limit; starts beyond it used to return the sample itself."""
    logits_fn = Partial(half_plane, (HESSIAN, np.float32(0.45)))
    attack = ja.attacks.pgd(ja.LInf(0.1), keep="best_label_kept")
    x = jnp.full(2, 0.5)
    found = jax.jit(jax.vmap(attack, in_axes=(None, None, None, 0)))(logits_fn, x, 1, jax.random.split(KEY, 200))
    assert np.all(found.label_kept)
    assert np.all(found.x[:, 0] >= 0.45 - 1e-6)
    assert np.max(found.x[:, 0]) < 0.455


@pytest.mark.parametrize("dissimilarity", [EUCLIDEAN, TOP_2], ids=lambda d: d.name)
def test_kinks_are_refused_by_name_or_counted(dissimilarity):
    def with_relu(weights, x):
        return weights @ jax.nn.relu(x - 0.5)

    logits_fn = Partial(with_relu, symmetric(0, 4))
    with pytest.raises(ValueError, match=r"(?s)`ifia` needs two derivatives.*relu.*ja.smooth"):
        jax.eval_shape(ja.attacks.ifia(ja.LInf(0.1), SALIENCY, dissimilarity, num_steps=2), logits_fn, X, 0, KEY)
    allowed = compiled(dissimilarity, num_steps=2, kinks="allow")(logits_fn, X, 0, KEY, 0.1)
    assert int(allowed.kinks) == 1
    if dissimilarity is EUCLIDEAN:
        # An attack on the prediction needs one derivative.
        assert int(jax.jit(ja.attacks.pgd(ja.LInf(0.1), num_steps=2))(logits_fn, X, 0, KEY).kinks) == 0
    smooth = compiled(dissimilarity, num_steps=2)(ja.smooth(logits_fn), X, 0, KEY, 0.1)
    assert int(smooth.kinks) == 0


def test_what_is_no_attribution_or_dissimilarity_is_refused_where_the_attack_is_built():
    with pytest.raises(TypeError, match=r"constructor `saliency`, whose parentheses are missing: write `saliency\(\)`"):
        ja.attacks.ifia(ja.LInf(0.1), ja.attributions.saliency)
    with pytest.raises(TypeError, match=r"`dissimilarity` must be a Dissimilarity .*with parentheses"):
        ja.attacks.ifia(ja.LInf(0.1), SALIENCY, ja.attacks.dissimilarities.euclidean)
    assert "ifia" in repr(ja.attacks.ifia(ja.LInf(0.1), SALIENCY))
    assert "pgd" in repr(ja.attacks.pgd(ja.LInf(0.1)))
