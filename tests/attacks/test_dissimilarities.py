import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from jax.tree_util import Partial

import jaxattr as ja

RNG = np.random.default_rng(0)
A, B = RNG.normal(size=(2, 4, 3, 2))
WEIGHTS = RNG.uniform(size=(4, 3))


def pixels(g):
    """Absolute values summed over channels, of mean 1."""
    S = np.abs(g).sum(-1) if g.ndim == 3 else np.abs(g)
    return S.size * S / S.sum()


def center(g):
    S = pixels(g)
    rows, columns = np.indices(S.shape)
    return np.array([(S * rows).sum(), (S * columns).sum()]) / S.size


def top(values, k):
    return np.argsort(-values.ravel(), kind="stable")[:k]


def by_hand(name, a, b, k=4):
    """(surrogate, measure) in NumPy, from the definitions."""
    if name == "top_k":
        chosen = top(pixels(a), k)
        return -pixels(b).ravel()[chosen].sum(), 1 - len(set(chosen) & set(top(pixels(b), k))) / k
    if name == "top_k_feature":
        feature = [(g.size * np.abs(g) / np.abs(g).sum()).ravel() for g in (a, b)]
        chosen = top(feature[0], k)
        return -feature[1][chosen].sum(), 1 - len(set(chosen) & set(top(feature[1], k))) / k
    if name == "mass_center":
        return np.sum((center(b) - np.trunc(center(a))) ** 2), np.linalg.norm(center(b) - center(a))
    if name == "targeted":
        return (np.sum(pixels(b) * WEIGHTS),) * 2
    if name == "euclidean":
        return np.sum((a - b) ** 2) / 2, np.linalg.norm(a - b)
    if name == "pearson":
        distance = (1 - np.corrcoef(a.ravel(), b.ravel())[0, 1]) / 2
    else:
        distance = 1 - np.sum(a * b) / np.linalg.norm(a) / np.linalg.norm(b)
    return distance, distance


MADE = {
    "top_k": ja.attacks.dissimilarities.top_k(4),
    "top_k_feature": ja.attacks.dissimilarities.top_k(4, map="feature"),
    "mass_center": ja.attacks.dissimilarities.mass_center(),
    "targeted": ja.attacks.dissimilarities.targeted(WEIGHTS),
    "euclidean": ja.attacks.dissimilarities.euclidean(),
    "cosine": ja.attacks.dissimilarities.cosine(),
    "pearson": ja.attacks.dissimilarities.pearson(),
}


@functools.cache
def compared_by(name):
    """Score and measure, compiled for all maps."""

    @jax.jit
    def run(first, second):
        compared = MADE[name].compare(first)
        return compared.surrogate(second), compared.measure(second)

    return lambda *maps: tuple(float(value) for value in run(*(jnp.asarray(each, jnp.float32) for each in maps)))


each = pytest.mark.parametrize("name", sorted(MADE))


def test_all_of_them_are_here():
    assert {made.name for made in MADE.values()} == set(ja.attacks.DISSIMILARITIES)


@each
def test_surrogate_and_measure_by_hand(name):
    assert compared_by(name)(A, B) == pytest.approx(by_hand(name, A, B), rel=1e-5)


@pytest.mark.parametrize("name", sorted(set(MADE) - {"targeted"}))
def test_the_measure_is_smallest_at_the_map_itself(name):
    """Except for ``targeted``, which measures mass at a target and not a distance."""
    assert compared_by(name)(A, A)[1] == pytest.approx(0, abs=1e-6)
    # The scale of a map is no dissimilarity, except for the Euclidean one.
    scaled = compared_by(name)(A, 3 * A)[1]
    assert scaled == pytest.approx(2 * np.linalg.norm(A) if name == "euclidean" else 0, rel=1e-5, abs=1e-6)


@each
def test_the_gradient_of_the_surrogate_equals_finite_differences(name):
    with jax.enable_x64(True):
        a, b = jnp.asarray(A), jnp.asarray(B)
        gradient = jax.jit(lambda a, b: jax.grad(MADE[name].compare(a).surrogate)(b))(a, b)
        direction = np.random.default_rng(1).normal(size=B.shape)
        h = 1e-6
        up, down = (by_hand(name, A, B + s * h * direction)[0] for s in (1, -1))
        assert float(jnp.vdot(gradient, direction)) == pytest.approx((up - down) / (2 * h), rel=1e-6, abs=1e-8)


@each
def test_the_ascent_direction_through_the_attribution_equals_finite_differences(name):
    """J^T at x' times the surrogate's gradient, for integrated gradients of a softplus unit."""
    with jax.enable_x64(True):
        W = np.random.default_rng(2).normal(size=(2, A.size))
        x, z = np.random.default_rng(3).uniform(size=(2, *A.shape))
        attribute = ja.attributions.integrated_gradients(num_steps=3, chunk=2)
        objective = ja.attacks.deviation(attribute, MADE[name])

        @jax.jit
        def gradient_and_merit(x, z):
            merit, gradient = objective(Partial(lambda w, x: jax.nn.softplus(w @ x.ravel()), W), x, 0).value_and_grad(z)
            return gradient, merit

        def g(z):
            """IG with the midpoint rule: x times the mean of sigmoid(w . t x) w."""
            w = W[0]
            mean = np.mean([1 / (1 + np.exp(-t * (w @ z.ravel()))) for t in (1 / 6, 0.5, 5 / 6)])
            return z * (mean * w).reshape(z.shape)

        gradient, merit = gradient_and_merit(x, z)
        assert float(merit) == pytest.approx(by_hand(name, g(x), g(z))[1], rel=1e-9)
        direction, h = np.random.default_rng(4).normal(size=z.shape), 1e-6
        up, down = (by_hand(name, g(x), g(z + s * h * direction))[0] for s in (1, -1))
        assert float(jnp.vdot(gradient, direction)) == pytest.approx((up - down) / (2 * h), rel=1e-5, abs=1e-8)


@pytest.mark.parametrize("measure", ["kendall", "spearman"])
def test_rank_measures_are_those_of_the_pixel_maps(measure):
    made = ja.attacks.dissimilarities.top_k(4, measure=measure)
    a, b = (jnp.asarray(each, jnp.float32) for each in (A, B))
    found = jax.jit(lambda a, b: made.compare(a).measure(b))(a, b)
    reference = scipy.stats.kendalltau if measure == "kendall" else scipy.stats.spearmanr
    expected = 1 - reference(pixels(A).ravel(), pixels(B).ravel()).statistic
    assert float(found) == pytest.approx(expected, rel=1e-5)


def test_ties_go_to_the_lower_index():
    """Zeros are everywhere in maps with a zero baseline."""
    compared = ja.attacks.dissimilarities.top_k(2).compare(jnp.array([0.0, 0.0, 1.0, 0.0]))
    assert float(compared.surrogate(jnp.array([1.0, 2.0, 3.0, 2.0]))) == pytest.approx(-(1 + 3) / 2)


def test_maps_without_direction_or_center_measure_nan():
    zero = jnp.zeros((3, 3))
    for made in (ja.attacks.dissimilarities.cosine(), ja.attacks.dissimilarities.mass_center()):
        measure = jax.jit(lambda a, b, made=made: made.compare(a).measure(b))
        assert np.isnan(float(measure(jnp.ones((3, 3)), zero)))
        assert np.isnan(float(measure(zero, jnp.ones((3, 3)))))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"k": 0}, r"`k` must be at least 1, got 0"),
        ({"k": 3, "map": "channel"}, r"`map` must be one of 'pixel', 'feature'; got 'channel'"),
        ({"k": 3, "measure": "tau"}, r"`measure` must be one of 'intersection', 'kendall', 'spearman'; got 'tau'"),
    ],
)
def test_options_of_top_k(options, message):
    with pytest.raises(ValueError, match=message):
        ja.attacks.dissimilarities.top_k(**options)


def test_a_target_of_another_shape_or_with_negative_weights():
    with pytest.raises(ValueError, match=r"shaped like the pixel map \(4, 3\), got shape \(4, 3, 2\)"):
        ja.attacks.dissimilarities.targeted(np.ones((4, 3, 2))).compare(jnp.asarray(A, jnp.float32))
    with pytest.raises(ValueError, match="must not be negative"):
        ja.attacks.dissimilarities.targeted(-WEIGHTS)
    with pytest.raises(ValueError, match="needs an image"):
        ja.attacks.dissimilarities.mass_center().compare(jnp.ones(5)).surrogate(jnp.ones(5))
