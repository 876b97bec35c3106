import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxattr as ja
from jaxattr.defenses import adversarial, ig_norm, ig_sum_norm, natural
from jaxattr.defenses.ig_norm import path_norm
from tests.defenses.cases import BALL, EPSILON, batch, cross_entropies, linear, quadratic, run, symmetric

W = np.random.default_rng(0).normal(size=(4, 2)).astype(np.float32)
SAMPLES = batch(classes=2)
EXACT = {"path_steps": 12, "attack_path_steps": 3, "rule": "gauss_legendre"}


def at_worst_corner():
    return adversarial(ja.attacks.pgd(BALL, num_steps=6))


def test_on_one_layer_it_is_adversarial_training():
    """Chalasani et al. 2020, Theorem 5.1: for a convex loss of one layer, CE(x) + max ||IG||_1 = max CE(x').

    For two classes the loss is a convex function of one margin; every entry of IG has one sign at the worst corner.
    """
    expected, _, expected_gradient, worst = run(at_worst_corner(), linear, W, SAMPLES)
    corners = EPSILON * np.array(list(itertools.product([-1, 1], repeat=4)), np.float32)
    norm = path_norm(12, "gauss_legendre")

    def at_corners(x, label):
        merit = norm(lambda x: x @ W, x, label).value
        return jax.vmap(lambda corner: merit(x + corner))(corners)

    norms = jax.jit(jax.vmap(at_corners))(*SAMPLES)
    np.testing.assert_allclose(SAMPLES.x + corners[np.argmax(norms, axis=1)], worst, atol=1e-6)
    # PGD on the norm may end in another corner, each of which is a local maximum; with the maximum they are one.
    at_maximum = dataclasses.replace(ig_norm(BALL, strength=1.0, **EXACT), attack=at_worst_corner().attack)
    loss, _, gradient, _ = run(at_maximum, linear, W, SAMPLES)
    np.testing.assert_allclose(loss, expected, rtol=2e-6)
    np.testing.assert_allclose(gradient, expected_gradient, rtol=1e-4, atol=1e-6)


def test_the_norm_is_a_riemann_sum_of_absolute_integrated_gradients():
    """Against a sum in NumPy, on a network that is not linear."""
    params, samples = symmetric(), batch()
    objective = ig_norm(BALL, strength=0.7, num_steps=2, path_steps=6, attack_path_steps=2, chunk=4)
    loss, metrics, _, adversaries = run(objective, quadratic, params, samples)
    norms = []
    for x, y, z in zip(samples.x.astype(np.float64), samples.label, adversaries.astype(np.float64), strict=True):
        total = np.zeros_like(x)
        for t in np.arange(1, 7) / 6:
            w = x + t * (z - x)
            logits = np.einsum("i,jik,k->j", w, params, w) / 2
            p = np.exp(logits - logits.max())
            p /= p.sum()
            total += np.einsum("j,jik,k->i", p - np.eye(3)[y], params, w) / 6
        norms.append(np.abs((z - x) * total).sum())
    np.testing.assert_allclose(metrics["ig_norm"], np.mean(norms), rtol=1e-4)
    clean = cross_entropies(np.einsum("ni,jik,nk->nj", samples.x, params, samples.x) / 2, samples.label).mean()
    np.testing.assert_allclose(loss, clean + 0.7 * np.mean(norms), rtol=1e-5)


def test_at_strength_zero_they_are_natural_and_adversarial():
    options = {"strength": 0.0, "num_steps": 6, "path_steps": 2, "attack_path_steps": 2}
    losses = [
        run(objective, linear, W, SAMPLES)[0]
        for objective in (ig_norm(BALL, **options), natural(), ig_sum_norm(BALL, **options), at_worst_corner())
    ]
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-6)
    np.testing.assert_allclose(losses[2], losses[3], rtol=1e-6)


def test_the_sum_on_one_layer_in_closed_form():
    """CE(x') + beta (CE(x') - CE(x)) at the worst corner."""
    objective = ig_sum_norm(BALL, strength=0.5, num_steps=6, **EXACT)
    loss, metrics, _, worst = run(objective, linear, W, SAMPLES)
    clean, moved = (cross_entropies(x @ W, SAMPLES.label).mean() for x in (SAMPLES.x, worst))
    np.testing.assert_allclose(metrics["ig_norm"], moved - clean, rtol=1e-4)
    np.testing.assert_allclose(loss, moved + 0.5 * (moved - clean), rtol=1e-5)


def test_the_attack_climbs_by_the_gradient_of_the_norm():
    """The product with the Jacobian, against reverse mode through the whole norm."""
    params, samples = symmetric(), batch()
    logits_fn = lambda x: quadratic({"params": params}, x[None])[0][0]  # noqa: E731
    objective = path_norm(num_steps=4, chunk=3)(logits_fn, jnp.asarray(samples.x[0]), 1)
    z = jnp.asarray(samples.x[0] + 0.3)
    value, gradient = jax.jit(objective.value_and_grad)(z)
    np.testing.assert_allclose(value, objective.value(z), rtol=1e-6)
    np.testing.assert_allclose(gradient, jax.jit(jax.grad(objective.value))(z), rtol=1e-4, atol=1e-6)


def test_rematerialized_gradients_are_the_same():
    params, samples = symmetric(), batch()
    options = {"num_steps": 1, "path_steps": 6, "attack_path_steps": 2, "chunk": 2}
    kept = run(ig_norm(BALL, **options), quadratic, params, samples)
    again = run(ig_norm(BALL, rematerialize=True, **options), quadratic, params, samples)
    np.testing.assert_allclose(again[0], kept[0], rtol=1e-6)
    np.testing.assert_allclose(again[2], kept[2], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("constructor", [ig_norm, ig_sum_norm])
def test_bad_options_are_refused_before_anything_is_traced(constructor):
    with pytest.raises(ValueError, match="`strength` must be a finite number of at least 0, got -1"):
        constructor(BALL, -1)
    with pytest.raises(ValueError, match="`num_steps` must be at least 1, got 0"):
        constructor(BALL, path_steps=0)
    with pytest.raises(TypeError, match="`ball` must be"):
        constructor(0.1)
