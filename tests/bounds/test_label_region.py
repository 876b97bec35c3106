"""The half-spaces of all competing classes, against Jacobians of the logits and affine classifiers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import affine, network

import jaxattr as ja

X = np.array([0.1, 0.9, 0.4, 0.0, 1.0, 0.3])
REGION = jax.jit(ja.bounds.label_region, static_argnames="chunk")
CONSTRAINT = jax.jit(ja.bounds.label_constraint)
JACOBIAN = jax.jit(lambda logits_fn, x: (logits_fn(x), jax.jacrev(logits_fn)(x)))


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


def test_bad_input_is_refused():
    x = jnp.ones(2)
    with pytest.raises(ValueError, match="at least 2 classes, but `logits_fn` has 1"):
        ja.bounds.label_region(lambda x: x[:1], x, 0)
    with pytest.raises(ValueError, match="`label` must be between 0 and 1"):
        ja.bounds.label_region(lambda x: x, x, 2)
    with pytest.raises(ValueError, match="`chunk` must be at least 1, got 0"):
        ja.bounds.label_region(lambda x: x, x, 0, chunk=0)
    with pytest.raises(TypeError, match="floating-point"):
        ja.bounds.label_region(lambda x: x, np.ones(2, int), 0)
