import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import affine, network

import jaxattr as ja

X = np.array([0.1, 0.9, 0.4, 0.0, 1.0, 0.3])
CONSTRAINT = jax.jit(ja.bounds.label_constraint)
IG = ja.attributions.integrated_gradients(20, rule="gauss_legendre", baseline=0.25)
JACOBIAN = jax.jit(lambda logits_fn, x, label: ja.attribution_jacobian(IG, logits_fn, x, label).dense())


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
        J_other, J_label = (np.asarray(JACOBIAN(logits_fn, x, y)) for y in (competitor, label))
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
