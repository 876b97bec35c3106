"""The label constraint of the second-best class, and of all classes, against closed forms and affine classifiers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import affine, network

import jaxattr as ja

X = np.array([0.1, 0.9, 0.4, 0.0, 1.0, 0.3])
CONSTRAINT = jax.jit(ja.bounds.label_constraint)
REGION = jax.jit(ja.bounds.label_region, static_argnames="chunk")
IG = ja.attributions.integrated_gradients(20, rule="gauss_legendre", baseline=0.25)
JACOBIAN_OF_IG = jax.jit(lambda logits_fn, x, label: ja.attribution_jacobian(IG, logits_fn, x, label).dense())
JACOBIAN = jax.jit(lambda logits_fn, x: (logits_fn(x), jax.jacrev(logits_fn)(x)))


@pytest.mark.parametrize("label", range(4))
def test_normal_is_the_difference_of_column_sums_of_integrated_gradients(label):
    # Wang and Kong 2023, Eq. 8: M = (J_{y'} - J_y)^T 1, from the Jacobians of the attribution and not from gradients.
    with jax.enable_x64(True):
        logits_fn, x = network(2, (6, 8, 4)), jnp.asarray(X)
        found = CONSTRAINT(logits_fn, x, label)
        logits = np.asarray(logits_fn(x))
        competitor = int(np.argmax(np.where(np.arange(4) == label, -np.inf, logits)))
        assert int(found.competitor) == competitor
        assert float(found.margin) == pytest.approx(logits[label] - logits[competitor], rel=1e-12)
        J_other, J_label = (np.asarray(JACOBIAN_OF_IG(logits_fn, x, y)) for y in (competitor, label))
        sums = J_other.sum(axis=0), J_label.sum(axis=0)
        np.testing.assert_allclose(found.normal, sums[0] - sums[1], rtol=1e-7, atol=1e-10)
        rows = J_other.sum(axis=1), J_label.sum(axis=1)
        assert np.abs(found.normal - (rows[0] - rows[1])).max() > 1e-3


@pytest.mark.parametrize("seed", range(3))
def test_exact_for_two_affine_logits(seed):
    rng = np.random.default_rng(seed)
    with jax.enable_x64(True):
        logits_fn, x = affine(rng.normal(size=(2, 6)), rng.normal(size=2)), jnp.asarray(X)
        label = int(np.argmax(logits_fn(x)))
        constraint = CONSTRAINT(logits_fn, x, label)
        deltas = jnp.asarray(rng.normal(size=(400, 6)))
        kept = np.argmax(jax.vmap(logits_fn)(x + deltas), axis=1) == label
        np.testing.assert_array_equal(jax.vmap(constraint.keeps)(deltas), kept)
        assert 0 < kept.sum() < 400
        # The half-space touches the decision boundary: just before it the label is kept, just behind it is not.
        edge = constraint.normal * constraint.margin / (constraint.normal @ constraint.normal)
        assert bool(constraint.keeps(0.999 * edge))
        assert not bool(constraint.keeps(1.001 * edge))
        np.testing.assert_allclose(*logits_fn(x + edge), rtol=1e-9)


def test_one_of_both_signs_keeps_the_label_against_one_competitor():
    for seed in range(20):
        logits_fn, x = network(seed, (6, 8, 4)), jnp.asarray(X, jnp.float32)
        constraint = CONSTRAINT(logits_fn, x, int(jnp.argmax(logits_fn(x))))
        assert float(constraint.margin) > 0
        v = jnp.asarray(np.random.default_rng(seed).normal(size=6), jnp.float32)
        assert bool(constraint.keeps(v) | constraint.keeps(-v))


def test_two_competitors_can_exclude_both_signs():
    # Class 1 takes over to the right, class 2 to the left: the half-space of the second-best class keeps -v only, and
    # the third class takes that one. The bound holds but neither of its maximizers keeps the label.
    def logits_fn(x):
        z = x - 0.5
        return jnp.stack([1 + 2 * z[0] ** 2 + z[1] ** 2 / 2, 0.9 + 10 * z[0], 0.8 - 10 * z[0]])

    x, epsilon = jnp.array([0.5, 0.5]), 0.1
    bound = ja.bounds.singular_value(ja.attributions.saliency(), ja.L2(epsilon), method="dense")
    found = jax.jit(bound, static_argnums=0)(logits_fn, x, 0, jax.random.key(0))
    assert float(found.euclidean) == pytest.approx(epsilon * 4, rel=1e-5)
    constraint = ja.bounds.label_constraint(logits_fn, x, 0)
    assert int(constraint.competitor) == 1
    right = epsilon * jnp.abs(found.direction)
    np.testing.assert_allclose(right, [0.1, 0], atol=1e-6)
    assert not bool(constraint.keeps(right))
    assert bool(constraint.keeps(-right))
    assert int(jnp.argmax(logits_fn(x + right))) == 1
    assert int(jnp.argmax(logits_fn(x - right))) == 2


def test_a_misclassified_sample_has_a_negative_margin():
    logits_fn = affine(np.eye(3), np.zeros(3))
    found = ja.bounds.label_constraint(logits_fn, jnp.array([0.1, 0.9, 0.4]), 0)
    assert int(found.competitor) == 1
    assert float(found.margin) == pytest.approx(-0.8, rel=1e-6)
    assert not bool(found.keeps(jnp.zeros(3)))
    assert bool(found.keeps(jnp.array([0.9, 0.0, 0.0])))


def test_a_tie_is_not_kept_and_images_keep_their_shape():
    logits_fn = affine(np.eye(4)[:2], np.zeros(2))
    found = ja.bounds.label_constraint(logits_fn, jnp.full((2, 2), 0.5), 1)
    assert found.normal.shape == (2, 2)
    np.testing.assert_array_equal(found.normal.ravel(), [1, -1, 0, 0])
    assert float(found.margin) == 0
    assert not bool(found.keeps(jnp.zeros((2, 2))))


def test_one_class_is_refused():
    with pytest.raises(ValueError, match="at least 2 classes"):
        ja.bounds.label_constraint(lambda x: x[:1], jnp.ones(2), 0)


# The half-spaces of all competing classes


@pytest.mark.parametrize("label", range(4))
def test_normals_and_margins_are_differences_of_logits(label):
    with jax.enable_x64(True):
        logits_fn, x = network(2, (6, 8, 4)), jnp.asarray(X)
        found = REGION(logits_fn, x, label)
        logits, rows = map(np.asarray, JACOBIAN(logits_fn, x))
        np.testing.assert_allclose(found.normals, rows - rows[label], rtol=1e-12, atol=1e-14)
        others = np.arange(4) != label
        np.testing.assert_allclose(found.margins[others], (logits[label] - logits)[others], rtol=1e-12)
        assert float(found.margins[label]) == np.inf
        np.testing.assert_array_equal(found.normals[label], 0)


def test_the_second_best_class_is_one_of_the_rows():
    for seed in range(5):
        logits_fn, x = network(seed, (6, 8, 4)), jnp.asarray(X, jnp.float32)
        label = int(np.argmax(JACOBIAN(logits_fn, x)[0]))
        region, constraint = REGION(logits_fn, x, label), CONSTRAINT(logits_fn, x, label)
        nearest = int(constraint.competitor)
        assert nearest == int(np.argmin(region.margins))
        assert float(region.margins[nearest]) == float(constraint.margin)
        np.testing.assert_allclose(region.normals[nearest], constraint.normal, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("seed", range(3))
def test_exact_for_affine_logits(seed):
    rng = np.random.default_rng(seed)
    with jax.enable_x64(True):
        logits_fn, x = affine(rng.normal(size=(4, 6)), rng.normal(size=4)), jnp.asarray(X)
        label = int(np.argmax(logits_fn(x)))
        region = REGION(logits_fn, x, label)
        deltas = jnp.asarray(rng.normal(size=(400, 6)))
        logits = np.asarray(jax.vmap(logits_fn)(x + deltas))
        kept = jax.vmap(region.keeps)(deltas)
        np.testing.assert_array_equal(kept, np.argmax(logits, axis=1) == label)
        assert 0 < kept.sum() < 400
        beaten = logits < logits[:, [label]]
        beaten[:, label] = True
        np.testing.assert_array_equal(jax.vmap(region.keeps_each)(deltas), beaten)


def test_two_competitors_exclude_both_signs_and_each_by_itself_does_not():
    logits_fn = affine([[0.0, 0.0], [10.0, 0.0], [-10.0, 0.0]], [1.0, 0.9, 0.8])
    region = ja.bounds.label_region(logits_fn, jnp.zeros(2), 0)
    right = jnp.array([0.1, 0.0])
    assert region.keeps_each(right).tolist() == [True, False, True]
    assert region.keeps_each(-right).tolist() == [True, True, False]
    assert not bool(region.keeps(right) | region.keeps(-right))
    assert bool(region.keeps(jnp.array([0.0, 5.0])))


def test_a_misclassified_sample_is_outside_of_its_region_and_a_tie_too():
    x = jnp.array([0.1, 0.9, 0.9])
    logits_fn = affine(np.eye(3), np.zeros(3))
    region = ja.bounds.label_region(logits_fn, x, 0)
    np.testing.assert_allclose(region.margins, [np.inf, -0.8, -0.8], rtol=1e-6)
    assert not bool(region.keeps(jnp.zeros(3)))
    assert bool(region.keeps(jnp.array([0.9, 0.0, 0.0])))
    assert ja.bounds.label_region(logits_fn, x, 1).keeps_each(jnp.zeros(3)).tolist() == [True, True, False]


def test_images_chunks_and_batches():
    logits_fn, x = network(1, (6, 8, 5)), jnp.asarray(X, jnp.float32)
    region = REGION(logits_fn, x, 2)
    for chunk in (1, 3, None):
        image = REGION(logits_fn, x.reshape(3, 2), 2, chunk=chunk)
        assert image.normals.shape == (5, 3, 2)
        np.testing.assert_allclose(image.normals.reshape(5, 6), region.normals, rtol=1e-5, atol=1e-6)
        delta = 0.1 * x.reshape(3, 2)
        np.testing.assert_array_equal(image.keeps_each(delta), region.keeps_each(delta.ravel()))
    xs, labels = jnp.stack([x, x[::-1], 1 - x]), jnp.array([2, 0, 4])
    many = jax.vmap(REGION, in_axes=(None, 0, 0))(logits_fn, xs, labels)
    for i in range(3):
        one = REGION(logits_fn, xs[i], labels[i])
        np.testing.assert_allclose(many.normals[i], one.normals, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(many.margins[i], one.margins, rtol=1e-5)


def test_what_is_not_a_number_keeps_nothing():
    logits_fn, x = network(1, (6, 8, 5)), jnp.asarray(X, jnp.float32)
    assert not bool(REGION(logits_fn, x.at[0].set(jnp.nan), 2).keeps(jnp.zeros(6)))
    # A label that turns out not to be there, in compiled code.
    absent = REGION(logits_fn, x, 7)
    assert np.isnan(absent.margins).all()
    assert not bool(absent.keeps(jnp.zeros(6)))


def test_bad_input_of_a_region_is_refused():
    x = jnp.ones(2)
    with pytest.raises(ValueError, match="at least 2 classes, but `logits_fn` has 1"):
        ja.bounds.label_region(lambda x: x[:1], x, 0)
    with pytest.raises(ValueError, match="`label` must be between 0 and 1"):
        ja.bounds.label_region(lambda x: x, x, 2)
    with pytest.raises(ValueError, match="`chunk` must be at least 1, got 0"):
        ja.bounds.label_region(lambda x: x, x, 0, chunk=0)
    with pytest.raises(TypeError, match="floating-point"):
        ja.bounds.label_region(lambda x: x, np.ones(2, int), 0)
