"""Functions of logits against SciPy in float64, also where the network is far surer than float32 can say."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special

from jaxattr import _logits

RNG = np.random.default_rng(0)
LOGITS = {
    "unsure": RNG.normal(size=5),
    "sure": np.array([60.0, 1.0, 0.5, -2.0, 0.0]),
    "tie": np.array([3.0, 3.0, -1.0, 0.0, 0.0]),
    "ruled out": np.array([1.0, -np.inf, 0.5, 0.0, 2.0]),
}


def log_odds(logits):
    return np.array([f - scipy.special.logsumexp(np.delete(logits, k)) for k, f in enumerate(logits)])


@pytest.mark.parametrize("name", LOGITS)
def test_log_odds_of_every_class(name):
    logits = LOGITS[name].astype(np.float32)
    found = _logits.jaxattr_log_odds(logits)
    np.testing.assert_allclose(found, log_odds(logits.astype(float)), rtol=1e-6, atol=1e-6)
    for label in range(5):
        np.testing.assert_allclose(_logits.log_odds_of(logits, label), found[label], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", ["unsure", "sure", "tie"])
def test_cross_entropy_and_its_gradient(name):
    logits = LOGITS[name].astype(np.float32)
    run = jax.jit(jax.value_and_grad(_logits.cross_entropy))
    for label in range(5):
        value, gradient = run(logits, label)
        # -log p = log(1 + exp(-o)), and of the label p - 1 = -exp(-o) / (1 + exp(-o)): nothing cancels.
        o = log_odds(logits.astype(float))[label]
        np.testing.assert_allclose(value, np.logaddexp(0, -o), rtol=2e-6)
        np.testing.assert_allclose(gradient[label], -scipy.special.expit(-o), rtol=1e-5)


@pytest.mark.parametrize("name", LOGITS)
def test_log_softmax_and_divergence(name):
    a, b = LOGITS[name], RNG.normal(size=5)
    p, q = (scipy.special.softmax(z) for z in (a, b))
    log_p, log_q = (_logits.log_softmax(jnp.asarray(z, jnp.float32)) for z in (a, b))
    np.testing.assert_allclose(log_p, scipy.special.log_softmax(a), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(_logits.divergence(log_p, log_q), scipy.special.rel_entr(p, q).sum(), rtol=1e-4)
    assert float(_logits.divergence(log_p, log_p)) == 0


def test_what_is_predicted():
    nan, inf = np.nan, np.inf
    logits = np.array([[1, 2, 2], [nan, 1, 0], [inf, 0, 0], [-inf, 0, -1], [-inf, -inf, -inf]], np.float32)
    assert _logits.predicted(logits).tolist() == [1, -1, -1, 1, -1]


def test_a_label_without_a_logit_is_no_number():
    assert np.isnan(jax.jit(_logits.log_odds_of)(LOGITS["unsure"].astype(np.float32), 7))
    with pytest.raises(ValueError, match="needs logits of at least 2, but the network has 1"):
        _logits.require_classes(1, "margin")
