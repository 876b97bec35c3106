"""What attacks climb beside dissimilarities; the cross-entropy is checked with PGD."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
from jax.tree_util import Partial

import jaxattr as ja

W = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
X, Z = np.random.default_rng(1).uniform(size=(2, 4)).astype(np.float32)


def logits_fn():
    return Partial(lambda w, x: w @ x, W)


def test_kl_divergence_and_its_gradient_against_scipy():
    """The gradient of KL(p || softmax(W z)) is W^T (q - p)."""
    objective = ja.attacks.kl_divergence()(logits_fn(), X, 0)
    p, q = (scipy.special.softmax(W.astype(float) @ x) for x in (X, Z))
    merit, gradient = jax.jit(objective.value_and_grad)(Z)
    assert float(merit) == pytest.approx(scipy.special.rel_entr(p, q).sum(), rel=1e-4)
    assert float(objective.value(jnp.asarray(Z))) == pytest.approx(float(merit), rel=1e-6)
    np.testing.assert_allclose(gradient, W.T @ (q - p), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(objective.value_and_grad(jnp.asarray(X))[1], 0, atol=1e-6)


def test_a_weighted_sum_is_one_in_merit_and_gradient():
    parts = [(2.0, ja.attacks.cross_entropy()), (-0.5, ja.attacks.kl_divergence())]
    objective = ja.attacks.weighted_sum(parts)(logits_fn(), X, 1)
    merit, gradient = objective.value_and_grad(jnp.asarray(Z))
    p, q = (scipy.special.softmax(W.astype(float) @ x) for x in (X, Z))
    expected = -2 * np.log(q[1]) - 0.5 * scipy.special.rel_entr(p, q).sum()
    assert float(merit) == pytest.approx(expected, rel=1e-5)
    assert float(objective.value(jnp.asarray(Z))) == pytest.approx(expected, rel=1e-5)
    np.testing.assert_allclose(gradient, W.T @ (2 * (q - np.eye(3)[1]) - 0.5 * (q - p)), rtol=1e-4, atol=1e-6)


def test_a_sum_of_nothing_is_refused():
    with pytest.raises(ValueError, match="`terms` needs at least one pair"):
        ja.attacks.weighted_sum([])
