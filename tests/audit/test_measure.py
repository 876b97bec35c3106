"""The programs of one sample: what is computed together is what each method computes alone."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

import jaxattr as ja
from jaxattr.audit import measure, spec
from jaxattr.audit.measure import attack_labels, attack_program, bound_labels, bounds_program, main_label
from jaxattr.audit.spec import Measures

IFIA = "ifia(dissimilarity={}, num_steps=3)"
MEASURES = Measures(
    attributions=("saliency",),
    l2=(0.1, 0.3),
    linf=(0.1, 0.2),
    attacks=(IFIA.format("top_k(2)"),),
    metrics=("kendall_tau", "tau=kendall_tau(magnitudes=True)"),
    top_k=2,
    top_k_map="feature",
)
READOUT = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
X, KEY = jnp.array([0.3, 0.5, 0.6, 0.4]), jax.random.key(3)
SALIENCY = ja.attributions.saliency()


def sure(z):
    """Logits of three classes, of which the first stays far above the others."""
    return jnp.tanh(READOUT @ z) + jnp.array([9.0, 0.0, 0.0])


def unsure(z):
    """Logits of three classes, which are close to each other everywhere."""
    return 0.1 * jnp.sin(READOUT @ z)


def changed(**options):
    return dataclasses.replace(MEASURES, **options)


def points_of(attacks, network, norm="linf"):
    """Compute the points of all attacks, (radii, attacks, 4)."""
    program = attack_program("saliency", norm, (0.1, 0.2), changed(attacks=tuple(attacks)))
    label = jnp.argmax(network(X))
    return program(network, X, label, KEY)["perturbed"]


# Attacks


def test_attacks_of_one_group_give_the_points_of_each_alone():
    """Where no iterate loses its label it does not matter whether a dissimilarity is a distance.

    The gradient of the cosine distance is flat near these starts, where rounding decides about signs: it is not here.
    """
    kendall = IFIA.format("top_k(1, measure='kendall')")
    texts = [IFIA.format("top_k(2)"), f"a={IFIA.format('euclidean()')}", f"b={kendall}"]
    assert measure._groups(spec.attacks(changed(attacks=tuple(texts)))) == [("ifia", "a", "b")]
    all_of_them, *alone = jax.jit(lambda: [points_of(some, sure) for some in (texts, *([text] for text in texts))])()
    for i, points in enumerate(alone):
        np.testing.assert_allclose(all_of_them[:, i], points[:, 0], atol=1e-6)
    # They are different attacks.
    assert not np.allclose(all_of_them[:, 0], all_of_them[:, 1], atol=1e-4)


def test_attacks_of_other_steps_and_one_of_a_kind_are_groups_of_their_own():
    attacks = changed(attacks=("pgd", "ifia", "long=ifia(num_steps=7)", "far=ifia(dissimilarity=cosine())"))
    assert measure._groups(spec.attacks(attacks)) == [("pgd",), ("ifia",), ("long",), ("far",)]


def test_attacks_on_predictions_and_explanations_are_the_librarys_own():
    attacks = (f"twice=restarts({IFIA.format('top_k(2)')}, 2)", "restarts(pgd(num_steps=2), 2)")
    labels = attack_labels(changed(attacks=attacks), points=6)
    assert labels == [
        ("twice", 0), ("twice", 1), ("pgd", 0), ("pgd", 1), ("worst_direction", 0), ("worst_direction", 1),
    ]  # fmt: skip

    @jax.jit
    def compute():
        ball, label = ja.L2(0.2), jnp.argmax(unsure(X))
        on_prediction, on_explanation = jax.random.split(KEY)
        pgd = ja.attacks.restarts(ja.attacks.pgd(ball, num_steps=2), 2)(unsure, X, label, on_prediction)
        ifia = ja.attacks.ifia(ball, SALIENCY, ja.attacks.dissimilarities.top_k(2), num_steps=3)
        starts = [ifia(unsure, X, label, key).x for key in jax.random.split(on_explanation, 2)]
        return points_of(attacks, unsure, "l2")[1], jnp.stack([*starts, *pgd.x])

    found, expected = compute()
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_points_are_described_with_their_maps_labels_and_distances():
    program = attack_program("saliency", "l2", (0.1, 0.3), changed(attacks=("restarts(pgd(num_steps=2), 3)",)))
    label = jnp.argmax(unsure(X))
    found = jax.jit(lambda: program(unsure, X, label, KEY))()
    assert found["perturbed"].shape == (2, 3, 4)
    distances = np.linalg.norm(found["perturbed"] - X, axis=-1)
    np.testing.assert_allclose(found["distance"], distances, rtol=1e-4)
    assert (found["distance"] <= np.array([[0.1], [0.3]]) * (1 + 1e-5)).all()
    logits = jax.vmap(jax.vmap(unsure))(found["perturbed"])
    np.testing.assert_array_equal(found["label_kept"], logits.argmax(-1) == label)
    maps = jax.vmap(jax.vmap(lambda z: SALIENCY(unsure, z, label)))(found["perturbed"])
    np.testing.assert_allclose(found["maps"], maps, atol=1e-6)


# Bounds


def test_main_bounds_come_first_and_their_smallest_one_counts():
    some = changed(bounds=("semidefinite", *MEASURES.bounds))
    assert bound_labels(some, "linf", 4) == ("norm_relaxation", "entrywise", "smallest", "semidefinite")
    assert main_label(some, bound_labels(some, "linf", 4)) == "smallest"
    # Of the bounds within this size one main one is left, and nothing is to be merged.
    large = dataclasses.replace(some, max_dense_features=3)
    assert bound_labels(large, "linf", 4) == ("norm_relaxation", "semidefinite")
    assert main_label(large, bound_labels(large, "linf", 4)) == "norm_relaxation"
    assert bound_labels(some, "l2", 4) == ("singular_value",)


def points_of_bounds(*bounds):
    """Return how many points the bounds name, by the shapes alone."""
    program = bounds_program("saliency", "linf", (0.1,), changed(bounds=bounds))
    shapes = jax.eval_shape(lambda: program(sure, X, jnp.asarray(0), KEY))
    return shapes["points"]["perturbed"].shape[1]


def test_a_bound_within_the_box_adds_one_end():
    within = ("box=entrywise(within_box=True)", "corner=entrywise(within_box=True)")
    assert points_of_bounds("entrywise", within[0]) == 3
    # Their smallest one names no other.
    assert points_of_bounds(*within) == 2


def test_bounds_of_one_sample_are_the_librarys_own():
    """On the linear model, which in l-infinity is a matrix that all bounds share."""
    program = bounds_program("saliency", "linf", (0.1, 0.2), MEASURES)
    label = jnp.argmax(sure(X))

    @jax.jit
    def compute():
        given = {
            name: getattr(ja.bounds, name)(SALIENCY, ja.LInf(0.2))(sure, X, label, KEY)
            for name in ("norm_relaxation", "entrywise")
        }
        return program(sure, X, label, KEY), given

    found, expected = compute()
    for name, bound in expected.items():
        np.testing.assert_allclose(found["bounds"][name]["euclidean"][1], bound.euclidean, rtol=1e-3)
    smallest = np.minimum(*(found["bounds"][name]["euclidean"] for name in expected))
    np.testing.assert_array_equal(found["bounds"]["smallest"]["euclidean"], smallest)
    assert (found["corrected"]["corrected"] >= smallest * (1 - 1e-6)).all()
    np.testing.assert_allclose(found["before"], SALIENCY(sure, X, label), rtol=1e-5)
    np.testing.assert_allclose(found["sample"]["attribution_sum"], found["before"].sum(), rtol=1e-5)
    assert np.isnan(found["sample"]["completeness_gap"])
    points = found["points"]["perturbed"][1]
    np.testing.assert_allclose(points[0] - X, X - points[1], atol=1e-6)


def test_options_that_were_given_stay_as_they_are():
    call = ja.parse(ja.bounds.REGISTRY, "semidefinite(method='products')")
    replaced = measure.with_defaults(call, {"method": "dense", "kinks": "allow", "unknown": 1})
    assert replaced == ja.parse(ja.bounds.REGISTRY, "semidefinite(method='products', kinks='allow')")


# Ranks and metrics


def test_ranks_are_guaranteed_for_small_radii():
    def quadratic(z):
        weights = jnp.array([1.0, 2.0, 4.0, 8.0])
        return jnp.stack([jnp.sum(weights * z**2) / 2, 0.0])

    program = measure.rank_program("saliency", "l2", (1e-4, 0.4), MEASURES)
    found = jax.jit(lambda: program(quadratic, X, jnp.asarray(0), KEY))()
    assert found["kendall_guaranteed"].shape == found["top_k_guaranteed"].shape == (2,)
    assert found["kendall_guaranteed"][0] == found["top_k_guaranteed"][0] == 1
    assert found["kendall_guaranteed"][1] < 1


def test_metrics_compare_all_maps_with_the_first():
    maps = jnp.array([[1.0, -2.0, 3.0, 4.0], [1.0, -2.0, 3.0, 4.0], [-1.0, 2.0, -3.0, -4.0], [4.0, 1.0, 1.0, 1.0]])
    found = jax.jit(measure.compare_program(MEASURES))(maps)
    assert set(found) == {"euclidean", "cosine", "degrees", "kendall_tau", "tau"}
    np.testing.assert_allclose(found["euclidean"], np.linalg.norm(maps[1:] - maps[0], axis=1), rtol=1e-5)
    np.testing.assert_allclose(found["cosine"][:2], [0, 2], atol=1e-6)
    np.testing.assert_allclose(found["degrees"][:2], [0, 180], atol=0.1)
    np.testing.assert_allclose(found["kendall_tau"][:2], [1, -1], atol=1e-6)
    np.testing.assert_allclose(found["tau"][:2], [1, 1], atol=1e-6)
