import jax
import numpy as np
import pytest
import scipy.special

import jaxattr as ja
from jaxattr.defenses import natural, trades
from tests.defenses.cases import BALL, EPSILON, batch, cross_entropies, linear, run

W = np.random.default_rng(0).normal(size=(4, 2)).astype(np.float32)
SAMPLES = batch(classes=2)


def test_without_weight_on_the_divergence_it_is_natural():
    loss, _, gradient, _ = run(trades(BALL, beta=0.0, num_steps=2), linear, W, SAMPLES)
    expected, _, expected_gradient, _ = run(natural(), linear, W, SAMPLES)
    np.testing.assert_allclose(loss, expected, rtol=1e-6)
    np.testing.assert_allclose(gradient, expected_gradient, rtol=1e-5, atol=1e-7)


def test_loss_on_a_linear_network_in_closed_form():
    """The divergence of two classes grows with the change of the margin, so that PGD ends in a corner of the ball."""
    loss, metrics, _, adversaries = run(trades(BALL, beta=3.0, num_steps=5), linear, W, SAMPLES)
    w = W[:, 1] - W[:, 0]
    shift = (adversaries - SAMPLES.x) @ w
    np.testing.assert_allclose(np.abs(shift), EPSILON * np.abs(w).sum(), rtol=1e-4)
    p, q = (scipy.special.softmax(x.astype(np.float64) @ W, axis=-1) for x in (SAMPLES.x, adversaries))
    divergence = scipy.special.rel_entr(p, q).sum(-1).mean()
    np.testing.assert_allclose(metrics["kl_divergence"], divergence, rtol=1e-4)
    expected = cross_entropies(SAMPLES.x @ W, SAMPLES.label).mean() + 3 * divergence
    np.testing.assert_allclose(loss, expected, rtol=1e-5)


def test_gradient_by_differences():
    """Of clean and adversarial pass, the adversaries held fixed."""
    objective = trades(BALL, beta=3.0, num_steps=5)
    _, _, gradient, adversaries = run(objective, linear, W, SAMPLES)

    def value(weights):
        p, q = (scipy.special.softmax(x.astype(np.float64) @ weights, axis=-1) for x in (SAMPLES.x, adversaries))
        clean = cross_entropies(SAMPLES.x.astype(np.float64) @ weights, SAMPLES.label).mean()
        return clean + 3 * scipy.special.rel_entr(p, q).sum(-1).mean()

    numeric = np.zeros_like(W, np.float64)
    for index in np.ndindex(*W.shape):
        step = np.zeros_like(numeric)
        step[index] = 1e-5
        numeric[index] = (value(W + step) - value(W - step)) / 2e-5
    np.testing.assert_allclose(gradient, numeric, rtol=1e-3, atol=1e-5)


def test_the_attack_starts_with_little_noise():
    """From x itself, where the gradient of the divergence is zero, it would not move."""
    one_step = trades(ja.LInf(0.5, box=None), num_steps=1, step_size=1e-6)
    adversaries = one_step.adversaries(linear, {"params": W}, SAMPLES, jax.random.key(1))
    moved = np.abs(np.asarray(adversaries) - SAMPLES.x)
    assert 1e-4 < moved.mean() < 2e-3


@pytest.mark.parametrize("beta", [-1.0, float("nan")])
def test_a_weight_that_is_none_is_refused(beta):
    with pytest.raises(ValueError, match="`beta` must be a finite number of at least 0"):
        trades(BALL, beta=beta)
