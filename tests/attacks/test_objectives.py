"""What attacks climb on predictions: margins, ratios, and losses of networks that are sure of themselves."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
from jax.tree_util import Partial

import jaxattr as ja

KEY = jax.random.key(0)
W = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)
X, Z = (jnp.asarray(x, jnp.float32) for x in np.random.default_rng(1).uniform(size=(2, 4)))
OF_CLASSES = {
    "cross_entropy": ja.attacks.cross_entropy,
    "margin": ja.attacks.margin,
    "kl_divergence": ja.attacks.kl_divergence,
    "difference_of_logits_ratio": ja.attacks.difference_of_logits_ratio,
}


@functools.cache
def climbing(name):
    """What an objective says of a point, compiled for all networks of a shape, samples, labels and points."""

    @jax.jit
    def run(logits_fn, x, label, z):
        objective = OF_CLASSES[name]()(logits_fn, x, label)
        return {
            "merit": objective.value(z),
            "with gradient": objective.value_and_grad(z),
            "steer": objective.steer and objective.steer(z),
        }

    return run


def linear(weights, x):
    return weights @ x


def shifted(weights, x):
    """Logits with gaps of any size: a linear map and an offset."""
    matrix, offset = weights
    return matrix @ x + offset


@pytest.mark.parametrize("label", range(5))
def test_margin_and_ratio_in_closed_form(label):
    logits = W.astype(float) @ np.asarray(Z, float)
    ordered = np.sort(logits)[::-1]
    others = np.delete(np.arange(5), label)
    rival = others[np.argmax(logits[others])]
    lead = logits[rival] - logits[label]
    first, third = np.argsort(-logits)[[0, 2]]
    gradient = W[rival] - W[label]
    spread = ordered[0] - ordered[2]
    expected = {
        "margin": (lead, gradient),
        "difference_of_logits_ratio": (lead / spread, gradient / spread - lead / spread**2 * (W[first] - W[third])),
    }
    for name, (merit, slope) in expected.items():
        climb = climbing(name)(Partial(linear, W), X, label, Z)
        found, direction = climb["with gradient"]
        assert float(found) == pytest.approx(merit, rel=1e-5)
        assert float(climb["merit"]) == pytest.approx(merit, rel=1e-5)
        np.testing.assert_allclose(direction, slope, rtol=1e-4, atol=1e-5)
        # Positive where the label is not predicted.
        assert (float(found) > 0) == (np.argmax(logits) != label)


def test_the_ratio_has_no_scale_and_no_offset():
    ratio = climbing("difference_of_logits_ratio")
    expected = float(ratio(Partial(linear, W), X, 1, Z)["merit"])
    for scale, offset in ((1e-6, 0.0), (1e6, 0.0), (3.0, 10.0)):
        found = float(ratio(Partial(shifted, (scale * W, np.full(5, offset, np.float32))), X, 1, Z)["merit"])
        assert found == pytest.approx(expected, rel=1e-4)


def test_where_the_three_largest_are_equal_the_ratio_is_a_number():
    tied = Partial(shifted, (np.eye(5, 4, dtype=np.float32), np.array([0, 0, 0, -1, -1], np.float32)))
    merit, gradient = climbing("difference_of_logits_ratio")(tied, X, 0, jnp.full(4, 0.5, jnp.float32))["with gradient"]
    assert float(merit) == 0
    assert np.all(np.isfinite(gradient))
    assert float(jnp.max(jnp.abs(gradient))) > 0


@pytest.mark.parametrize("gap", [2.0, 18.0, 60.0, 300.0, 5000.0])
@pytest.mark.parametrize("name", ["cross_entropy", "kl_divergence"])
def test_what_steers_has_the_direction_of_the_exact_gradient(name, gap):
    """In float64: the gradient of the loss by the logits, over its largest entry, so that it cannot underflow."""
    offset = np.array([gap, 0.0, 0.5, -0.5, 0.2])
    weights = (W, offset.astype(np.float32))
    log_p, log_q = (scipy.special.log_softmax(W.astype(float) @ np.asarray(x, float) + offset) for x in (X, Z))
    # q - p by the logits for KL(p || q), q - onehot(0) for the cross-entropy; the first entry is minus the others.
    others = log_q[1:] if name == "cross_entropy" else np.concatenate([log_q[1:], log_p[1:]])
    scale = others.max()
    by_logit = np.exp(log_q[1:] - scale) - (0 if name == "cross_entropy" else np.exp(log_p[1:] - scale))
    exact = W.T.astype(float) @ np.concatenate([[-by_logit.sum()], by_logit])
    _, direction = climbing(name)(Partial(shifted, weights), X, 0, Z)["steer"]
    direction = np.asarray(direction, float)
    # Logits of 5,000 are rounded by 5e-4.
    error = np.linalg.norm(direction / np.linalg.norm(direction) - exact / np.linalg.norm(exact))
    assert error < max(1e-4, 1e-6 * gap)


def test_scores_that_steer_order_iterates_as_merits_do():
    weights = (W, np.array([3, 0, 0, 0, 0], np.float32))
    points = jnp.asarray(np.random.default_rng(2).uniform(size=(20, 4)), jnp.float32)
    climbs = [climbing("cross_entropy")(Partial(shifted, weights), X, 0, z) for z in points]
    merits, scores = (
        [float(each) for each in values] for values in zip(*((c["merit"], c["steer"][0]) for c in climbs), strict=True)
    )
    np.testing.assert_array_equal(np.argsort(merits), np.argsort(scores))


def confident(weights, z):
    """Two logits, of which the second is 0: ``scale * w.(z - 1/2) + gap``."""
    w, scale, gap = weights
    return jnp.stack([scale * (w @ (z - 0.5)) + gap, 0 * z[0]])


def of_gap(gap):
    """A network whose lead of ``gap`` a corner of ``LInf(0.1)`` outweighs, as 1 / 0.9, and the corner."""
    w = np.random.default_rng(0).normal(size=30).astype(np.float32)
    weights = (w, np.float32(gap / (0.09 * np.abs(w).sum())), np.float32(gap))
    return Partial(confident, weights), 0.5 - 0.1 * np.sign(w)


@pytest.mark.parametrize("name", ["cross_entropy", "margin", "kl_divergence"])
def test_confident_networks_do_not_stop_an_attack(name):
    attack = ja.attacks.pgd(ja.LInf(0.1), objective=OF_CLASSES[name]())
    many = jax.jit(jax.vmap(attack, in_axes=(None, None, None, 0)))
    from_x = jax.jit(ja.attacks.pgd(ja.LInf(0.1), objective=OF_CLASSES[name](), random_start=False))
    for gap in (5.0, 18.0, 60.0, 500.0, 1e5):
        logits_fn, corner = of_gap(gap)
        found = many(logits_fn, jnp.full(30, 0.5), 0, jax.random.split(KEY, 10))
        np.testing.assert_array_equal(found.stalled, False)
        np.testing.assert_allclose(found.distance, 0.1, rtol=1e-5)
        if name == "kl_divergence":
            # Of two ends the far one is a maximum, too: all go to one of them.
            away = np.sign(np.asarray(found.x) - 0.5) * np.sign(corner - 0.5)
            np.testing.assert_array_equal(np.abs(away.mean(axis=1)), 1)
            assert np.any(found.label == 1)
        else:
            np.testing.assert_array_equal(found.label, 1)
            np.testing.assert_allclose(from_x(logits_fn, jnp.full(30, 0.5), 0, KEY).x, corner, atol=1e-6)


@pytest.mark.parametrize("keep", ["best", "best_label_kept"])
def test_the_best_iterate_of_a_confident_network_is_found(keep):
    """Losses of 0 are all equal in float32, and the log-odds are not."""
    logits_fn, corner = of_gap(500.0)
    attack = ja.attacks.pgd(ja.LInf(0.08), keep=keep, random_start=False)
    found = jax.jit(attack)(logits_fn, jnp.full(30, 0.5), 0, KEY)
    np.testing.assert_allclose(found.x, 0.5 + 0.8 * (corner - 0.5), atol=1e-6)


@pytest.mark.parametrize("keep", ["last", "best", "best_label_kept"])
@pytest.mark.parametrize(
    ("logits_fn", "stalled"),
    [
        (lambda x: jnp.round(10 * x), True),
        (lambda x: jnp.stack([jnp.sqrt(x[0] * 0), x[1]]), False),
        (lambda x: jnp.stack([jnp.sum(jnp.sqrt(x * 0)), 0.2 + 0 * x[0]]), True),
        (lambda x: x, False),
    ],
    ids=["steps", "one entry is not finite", "no entry is finite", "smooth"],
)
def test_an_attack_that_could_not_try_says_so(logits_fn, stalled, keep):
    attack = ja.attacks.pgd(ja.LInf(0.1), num_steps=3, keep=keep)
    result = jax.jit(attack, static_argnums=0)(logits_fn, jnp.array([0.4, 0.6, 0.5]), 1, KEY)
    assert bool(result.stalled) == stalled
    assert np.all(np.isfinite(result.x))


def test_an_attack_that_starts_on_top_of_its_objective_says_so():
    """The divergence from x is 0 with gradient 0 at x."""
    attack = ja.attacks.pgd(ja.LInf(0.1), objective=ja.attacks.kl_divergence(), random_start=False)
    assert bool(jax.jit(attack)(Partial(linear, W), X, 0).stalled)


def test_an_attack_stays_where_logits_are_finite():
    """The logarithm of x_0 ends at 0, into which the attack walks: the last iterate with logits is returned."""

    def logits_fn(x):
        return jnp.stack([jnp.log(x[0] - 0.42), jnp.zeros(())])

    attack = ja.attacks.pgd(ja.LInf(0.1), num_steps=5, step_size=0.02, random_start=False)
    result = jax.jit(attack, static_argnums=0)(logits_fn, jnp.array([0.5]), 0)
    assert 0.42 < float(result.x[0]) < 0.5
    assert np.isfinite(float(result.objective))
    assert int(result.label) >= 0


def test_kl_divergence_and_its_gradient_against_scipy():
    """The gradient of KL(p || softmax(W z)) is W^T (q - p)."""
    objective = ja.attacks.kl_divergence()(Partial(linear, W), X, 0)
    p, q = (scipy.special.softmax(W.astype(float) @ np.asarray(x, float)) for x in (X, Z))
    merit, gradient = jax.jit(objective.value_and_grad)(Z)
    assert float(merit) == pytest.approx(scipy.special.rel_entr(p, q).sum(), rel=1e-4)
    assert float(objective.value(jnp.asarray(Z))) == pytest.approx(float(merit), rel=1e-6)
    np.testing.assert_allclose(gradient, W.T @ (q - p), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(objective.value_and_grad(jnp.asarray(X))[1], 0, atol=1e-6)


def test_a_weighted_sum_is_one_in_merit_and_gradient():
    parts = [(2.0, ja.attacks.cross_entropy()), (-0.5, ja.attacks.kl_divergence())]
    objective = ja.attacks.weighted_sum(parts)(Partial(linear, W), X, 1)
    merit, gradient = objective.value_and_grad(jnp.asarray(Z))
    p, q = (scipy.special.softmax(W.astype(float) @ np.asarray(x, float)) for x in (X, Z))
    expected = -2 * np.log(q[1]) - 0.5 * scipy.special.rel_entr(p, q).sum()
    assert float(merit) == pytest.approx(expected, rel=1e-5)
    assert float(objective.value(jnp.asarray(Z))) == pytest.approx(expected, rel=1e-5)
    np.testing.assert_allclose(gradient, W.T @ (2 * (q - np.eye(5)[1]) - 0.5 * (q - p)), rtol=1e-4, atol=1e-6)


def test_a_sum_of_nothing_is_refused():
    with pytest.raises(ValueError, match="`terms` needs at least one pair"):
        ja.attacks.weighted_sum([])


def test_a_sum_of_one_term_is_that_term():
    """A term of weight 0 is not there: a confident cross-entropy alone keeps its direction."""
    weights = (W, np.array([500, 0, 0, 0, 0], np.float32))
    explanation = ja.attacks.deviation(ja.attributions.saliency(), ja.attacks.dissimilarities.euclidean())
    climbed = ja.attacks.weighted_sum([(2.0, ja.attacks.cross_entropy()), (0.0, explanation)])
    attack = ja.attacks.pgd(ja.L2(0.1), objective=climbed, num_steps=3)
    alone = ja.attacks.pgd(ja.L2(0.1), num_steps=3)
    found, expected = (jax.jit(run)(Partial(shifted, weights), X, 0, KEY) for run in (attack, alone))
    np.testing.assert_allclose(found.x, expected.x, rtol=1e-6)
    assert not bool(found.stalled)


@pytest.mark.parametrize("name", sorted(OF_CLASSES))
def test_networks_with_too_few_logits_are_refused(name):
    def one(x):
        return jnp.sum(x)[None]

    with pytest.raises(ValueError, match=rf"`{name}` compares classes .* the network has 1.*jnp.concatenate"):
        ja.attacks.pgd(ja.LInf(0.1), objective=OF_CLASSES[name]())(one, X, 0, KEY)
    two = Partial(linear, W[:2])
    if name == "difference_of_logits_ratio":
        with pytest.raises(ValueError, match=r"compares the 3 largest logits, but the network has 2.*margin\(\)"):
            ja.attacks.pgd(ja.LInf(0.1), objective=OF_CLASSES[name]())(two, X, 0, KEY)
    else:
        assert np.isfinite(float(OF_CLASSES[name]()(two, X, 0).value(Z)))


def test_attacks_on_explanations_of_one_logit_are_refused():
    """They keep the label, and there is none."""

    def one(x):
        return jnp.sum(x**3)[None]

    saliency = ja.attributions.saliency()
    bound = ja.bounds.singular_value(saliency, ja.L2(0.1), method="dense")
    for attack in (
        ja.attacks.ifia(ja.L2(0.1), saliency, ja.attacks.dissimilarities.euclidean()),
        ja.attacks.worst_direction(ja.L2(0.1), saliency, bound),
    ):
        with pytest.raises(ValueError, match="the network has 1"):
            jax.eval_shape(lambda x, attack=attack: attack(one, x, 0, KEY), X)
    # The explanation itself, and its bound, are those of a regression.
    assert float(jax.jit(bound, static_argnums=0)(one, X, 0, KEY).euclidean) == pytest.approx(
        0.1 * 6 * float(jnp.max(X)), rel=1e-5
    )


@pytest.mark.parametrize(
    ("dtype", "keep"), [("float16", "last"), ("bfloat16", "best"), ("bfloat16", "best_label_kept")]
)
def test_inputs_of_16_bits(dtype, keep):
    """They become float32, whatever the network computes in."""
    w = jnp.array([1.0, -2.0, 0.5])
    x = jnp.array([0.25, 0.5, 0.75], dtype)
    for inside in (dtype, "float32"):

        def logits_fn(z, inside=inside):
            return jnp.stack([jnp.tanh(w.astype(inside) @ z.astype(inside)), jnp.zeros((), inside)])

        attack = ja.attacks.pgd(ja.LInf(0.125), num_steps=2, keep=keep)
        result = jax.jit(attack, static_argnums=0)(logits_fn, x, 0, KEY)
        assert result.x.dtype == jnp.float32
        assert float(result.distance) == pytest.approx(0.125, rel=1e-2)


@pytest.mark.parametrize("keep", ["last", "best", "best_label_kept"])
def test_weights_of_64_bits_and_inputs_of_32(keep):
    """NumPy's default for weights, in 64-bit mode."""
    with jax.enable_x64(True):
        weights = W.astype(np.float64)
        x = jnp.asarray(X, jnp.float32)
        saliency = ja.attributions.saliency()
        for objective in (None, ja.attacks.deviation(saliency, ja.attacks.dissimilarities.euclidean())):
            attack = ja.attacks.pgd(ja.LInf(0.1), num_steps=2, keep=keep, objective=objective)
            result = jax.jit(attack)(Partial(linear, weights), x, int(jnp.argmax(weights @ x)), KEY)
            assert result.x.dtype == jnp.float32


@pytest.mark.parametrize(
    "given", [ja.attacks.cross_entropy, ja.attacks.deviation, "margin", 3, ja.attacks.dissimilarities.euclidean()]
)
def test_what_is_no_objective_is_refused_where_the_attack_is_built(given):
    with pytest.raises(TypeError, match=r"`objective` must be an objective such as .*cross_entropy\(\)"):
        ja.attacks.pgd(ja.LInf(0.1), objective=given)
    with pytest.raises(TypeError, match=r"`terms` must be an objective such as"):
        ja.attacks.weighted_sum([(1.0, given)])


def test_an_objective_that_makes_no_functions_is_refused():
    attack = ja.attacks.pgd(ja.LInf(0.1), objective=lambda logits_fn, x, label: logits_fn(x)[label])
    with pytest.raises(TypeError, match=r"must return a `jaxattr.attacks.PointObjective` for one sample, got"):
        attack(Partial(linear, W), X, 0, KEY)


def test_every_objective_has_its_name():
    for name, constructor in ja.attacks.OBJECTIVES.items():
        assert getattr(ja.attacks, name) is constructor
