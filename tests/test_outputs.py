import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
from jax.tree_util import Partial
from oracles import network, quadratic

import jaxattr as ja

LABELS = range(3)


def expected_values(logits):
    log_softmax = logits - scipy.special.logsumexp(logits)
    margins = [logits[j] - np.delete(logits, j).max() for j in range(len(logits))]
    return {
        "logit": logits,
        "probability": np.exp(log_softmax),
        "log_probability": log_softmax,
        "loss": -log_softmax,
        "margin": np.array(margins),
    }


@pytest.mark.parametrize("name", sorted(ja.outputs.REGISTRY))
@pytest.mark.parametrize("logits", [[0.3, -1.2, 2.0], [50.0, -50.0, 0.0], [1.0, 1.0, 1.0]])
def test_values_against_numpy(name, logits):
    wrapped = ja.outputs.REGISTRY[name](lambda x: jnp.asarray(logits) * x[0])
    expected = expected_values(np.array(logits))[name]
    np.testing.assert_allclose(wrapped(jnp.ones(1)), expected, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("name", sorted(ja.outputs.REGISTRY))
def test_gradients_in_closed_form(name):
    with jax.enable_x64(True):
        logits_fn = network(0, (4, 3))
        x = jnp.array([0.1, 0.9, 0.4, 0.3])
        kernel, logits = np.asarray(logits_fn.args[0][0][0]), np.asarray(logits_fn(x))
        p = scipy.special.softmax(logits)
        derivative = {  # d output_j / d logit_k
            "logit": np.eye(3),
            "probability": np.diag(p) - np.outer(p, p),
            "log_probability": np.eye(3) - p,
            "loss": p - np.eye(3),
            "margin": np.eye(3) - np.eye(3)[[np.argmax(np.where(np.arange(3) == j, -np.inf, logits)) for j in LABELS]],
        }[name]
        found = jax.jit(jax.jacrev(ja.outputs.REGISTRY[name](logits_fn)))(x)
        np.testing.assert_allclose(found, derivative @ kernel.T, rtol=1e-12, atol=1e-14)


def test_two_classes_and_infinite_logits():
    margin = ja.outputs.margin(lambda _: jnp.array([2.0, 5.0]))(jnp.ones(1))
    np.testing.assert_array_equal(margin, [-3.0, 3.0])
    p = ja.outputs.probability(lambda _: jnp.array([200.0, -200.0]))(jnp.ones(1))
    np.testing.assert_array_equal(p, [1.0, 0.0])
    loss = ja.outputs.loss(lambda _: jnp.array([200.0, -200.0]))(jnp.ones(1))
    np.testing.assert_array_equal(loss, [0.0, 400.0])


@pytest.mark.parametrize("name", sorted(ja.outputs.REGISTRY))
def test_a_partial_stays_one_and_does_not_retrace(name):
    wrapper, traces = ja.outputs.REGISTRY[name], []

    @jax.jit
    def evaluate(logits_fn, x):
        traces.append(1)
        return logits_fn(x)

    x = jnp.array([0.2, 0.3])
    for scale in (1.0, 3.0):
        logits_fn = quadratic(scale * np.eye(2))
        wrapped = wrapper(logits_fn)
        assert isinstance(wrapped, Partial)
        assert len(jax.tree.leaves(wrapped)) == 2
        np.testing.assert_allclose(evaluate(wrapped, x), expected_values(np.asarray(logits_fn(x)))[name], rtol=1e-5)
    assert len(traces) == 1
    assert not isinstance(wrapper(lambda x: x), Partial)


@pytest.mark.parametrize("attribution", sorted(ja.attributions.REGISTRY))
@pytest.mark.parametrize("name", ["probability", "margin"])
def test_explaining_agrees_with_wrapping_the_logits(attribution, name):
    with jax.enable_x64(True):
        attribute, output = ja.attributions.REGISTRY[attribution](), ja.outputs.REGISTRY[name]
        logits_fn, x = network(1, (4, 5, 3)), jnp.array([0.1, 0.9, 0.4, 0.3])
        explained = ja.outputs.explaining(attribute, output)
        generic = ja.outputs.explaining(functools.partial(attribute), output)  # any other function
        assert explained.symmetric == attribute.symmetric

        @jax.jit
        def evaluate(logits_fn, x):
            return {
                "wrapped": attribute(output(logits_fn), x, 2),
                "explained": explained(logits_fn, x, 2),
                "generic": generic(logits_fn, x, 2),
                "jacobian": ja.attribution_jacobian(explained, logits_fn, x, 2).dense(),
                "differentiated": jax.jacfwd(lambda z: attribute(output(logits_fn), z, 2))(x),
            }

        found = evaluate(logits_fn, x)
        np.testing.assert_allclose(found["explained"], found["wrapped"], rtol=1e-12)
        np.testing.assert_allclose(found["generic"], found["wrapped"], rtol=1e-12)
        np.testing.assert_allclose(found["jacobian"], found["differentiated"], rtol=1e-9, atol=1e-12)


def test_completeness_gap_is_of_the_explained_output():
    ig = ja.attributions.integrated_gradients(8, rule="gauss_legendre")
    explained = ja.outputs.explaining(ig, ja.outputs.probability)
    logits_fn, x = quadratic(np.eye(2)), jnp.array([0.3, 0.9])
    wrapped = ja.attributions.completeness_gap(ig)(ja.outputs.probability(logits_fn), x, 0)
    assert abs(float(wrapped)) < 1e-6
    # Either the same number, or a refusal: the difference of two logits says nothing about a probability.
    try:
        gap = ja.attributions.completeness_gap(explained)(logits_fn, x, 0)
    except (ValueError, TypeError):
        return
    assert abs(float(gap)) < 1e-6


def test_bad_output_is_refused():
    with pytest.raises(TypeError, match="wrapper"):
        ja.outputs.explaining(ja.attributions.saliency(), "probability")
