import dataclasses
import functools
import itertools

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
        "log_odds": np.array([logits[j] - scipy.special.logsumexp(np.delete(logits, j)) for j in range(len(logits))]),
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
            "log_odds": np.eye(3) - np.where(np.eye(3), 0, p / (1 - p)[:, None]),
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


@jax.tree_util.register_dataclass
@dataclasses.dataclass
class Layer:
    """A callable pytree, as an Equinox module is one."""

    weights: jax.Array

    def __call__(self, x):
        return self.weights @ x


def test_a_margin_has_a_kink_from_three_classes_on_and_log_odds_have_none():
    weights, x = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32), jnp.full(4, 0.5)
    assert ja.kinks(ja.outputs.margin(Partial(jnp.dot, weights[:2])), x) == []
    assert [kink.operation for kink in ja.kinks(ja.outputs.margin(Partial(jnp.dot, weights)), x)] == ["reduce_max"]
    for name in CONFIDENT:
        assert ja.kinks(ja.outputs.REGISTRY[name](Partial(jnp.dot, weights)), x) == [], name
    explained = ja.outputs.explaining(ja.attributions.saliency(), ja.outputs.margin)
    with pytest.raises(ValueError, match=r"(?s)explained output is not smooth.*log_odds"):
        ja.bounds.singular_value(explained, ja.L2(0.1))(Partial(jnp.dot, weights), x, 0, jax.random.key(0))


def test_any_callable_pytree_stays_one():
    """Its weights go on being arguments of compiled programs."""
    x = jnp.array([0.2, 0.3])
    for given in (Layer(jnp.eye(2)), functools.partial(jnp.dot, jnp.eye(2))):
        wrapped = ja.outputs.log_odds(ja.outputs.logit(given))
        assert [leaf.shape for leaf in jax.tree.leaves(wrapped)] == [(2, 2)]
        np.testing.assert_allclose(wrapped(x), [-0.1, 0.1], rtol=1e-6)


@pytest.mark.parametrize("attribution", sorted(ja.attributions.REGISTRY))
@pytest.mark.parametrize("name", ["probability", "margin"])
def test_explaining_agrees_with_wrapping_the_logits(attribution, name):
    with jax.enable_x64(True):
        attribute = ja.build(ja.attributions.REGISTRY, attribution, key=jax.random.key(0))
        output = ja.outputs.REGISTRY[name]
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
                # Beside the kink of the margin's maximum all of these are the derivative.
                "jacobian": ja.attribution_jacobian(explained, logits_fn, x, 2, kinks="allow").dense(),
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
    with pytest.raises(TypeError, match="`attribute` must be an attribution"):
        ja.outputs.explaining("saliency", ja.outputs.probability)


def test_explaining_twice_tells_the_function_that_is_explained():
    """What is not twice differentiable is looked for in that function."""
    inner = ja.outputs.explaining(ja.attributions.saliency(), ja.outputs.log_odds)
    twice = ja.outputs.explaining(inner, lambda logits_fn: lambda x: 2 * logits_fn(x))
    logits_fn, x = network(1, (4, 5, 3)), jnp.array([0.1, 0.9, 0.4, 0.3])
    expected = jax.grad(lambda z: ja.outputs.log_odds(lambda x: 2 * logits_fn(x))(z)[1])(x)
    np.testing.assert_allclose(twice(logits_fn, x, 1), expected, rtol=1e-5)
    np.testing.assert_allclose(jax.grad(lambda z: twice.output(logits_fn)(z)[1])(x), expected, rtol=1e-5)
    assert ja.attributions.saliency().output is None


CONFIDENT = ("probability", "log_probability", "loss", "log_odds")


def confident(gap, weights, x):
    """Ten classes, of which class 0 is ahead by about ``gap``."""
    hidden, out = weights
    return out @ jnp.tanh(hidden @ (x - 0.5)) + gap * jnp.eye(10, dtype=x.dtype)[0]


def log_odds_by_differences(logits, label):
    """All K x K differences: nothing can cancel that has not been subtracted."""
    gaps = jnp.where(jnp.arange(logits.size) == label, -jnp.inf, logits - logits[label])
    return -jax.nn.logsumexp(gaps)


IN_FLOAT64 = {
    "probability": lambda odds: jnp.exp(-jnp.logaddexp(0, -odds)),
    "log_probability": lambda odds: -jnp.logaddexp(0, -odds),
    "loss": lambda odds: jnp.logaddexp(0, -odds),
    "log_odds": lambda odds: odds,
}


@functools.cache
def derivatives(exact):
    """``(gap, label, weights, x, v) -> {name: (value, gradient, Hessian product)}``, compiled once for all gaps."""

    def output(name, logits_fn, z, label):
        if exact:
            return IN_FLOAT64[name](log_odds_by_differences(logits_fn(z), label))
        return ja.outputs.REGISTRY[name](logits_fn)(z)[label]

    def of_all(gap, label, weights, x, v):
        logits_fn = functools.partial(confident, gap, weights)
        found = {}
        for name in CONFIDENT:
            value = functools.partial(output, name, logits_fn, label=label)
            found[name] = (value(x), *jax.jvp(jax.grad(value), (x,), (v,)))
        return found

    return jax.jit(of_all)


def test_confident_predictions_against_float64():
    """Values, gradients and Hessian products; softmax has lost the gradient of class 0 from a gap of 17 on."""
    rng = np.random.default_rng(0)
    arguments = (rng.normal(size=(30, 20)), rng.normal(size=(10, 30)) * 0.3), *rng.uniform(size=(2, 20))
    for gap, label in itertools.product((2.0, 10.0, 15.0, 20.0, 40.0, 60.0, 80.0), (0, 1)):
        single = derivatives(False)(
            jnp.float32(gap), label, *jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), arguments)
        )
        with jax.enable_x64(True):
            reference = jax.tree.map(np.asarray, derivatives(True)(gap, label, *arguments))
        for name in CONFIDENT:
            # Of a gradient of the order of 1e-35 parts are below the smallest float32 and flushed to zero.
            tolerance = 1e-2 if gap == 80 and name != "log_odds" else 2e-5
            for value, expected in zip(single[name], reference[name], strict=True):
                error = np.linalg.norm(np.asarray(value, float) - expected) / np.linalg.norm(expected)
                assert error < tolerance, (name, gap, label, error)


@pytest.mark.parametrize("gap", [10.0, 15.0, 17.0, 30.0, 80.0])
def test_bounds_of_a_probability_in_closed_form(gap):
    """p = sigmoid(gap + w.(z - x)): the map is p (1 - p) w, and J = p (1 - p) (1 - 2 p) w w^T."""
    w, x = np.random.default_rng(0).normal(size=20).astype(np.float32), jnp.full(20, 0.5)
    explained = ja.outputs.explaining(ja.attributions.saliency(), ja.outputs.probability)
    bound = ja.bounds.singular_value(explained, ja.L2(0.5), method="dense")

    def logits_fn(z):
        return jnp.stack([w @ (z - x) + gap, 0 * z[0]])

    found = jax.jit(lambda x: bound(logits_fn, x, 0, jax.random.key(0)))(x)
    q, length = 1 / (1 + np.exp(gap)), np.linalg.norm(w)
    assert float(found.attribution_norm) == pytest.approx((1 - q) * q * length, rel=1e-4)
    assert float(found.euclidean) == pytest.approx((1 - q) * q * abs(2 * q - 1) * length**2 * 0.5, rel=1e-4)


def test_classes_that_are_ruled_out():
    """Logits of minus infinity are probabilities of 0, with gradients that are numbers."""

    def logits_fn(x):
        return jnp.stack([x[0], 2 * x[1], -jnp.inf])

    x = jnp.array([0.3, 0.4])
    expected = scipy.special.softmax([0.3, 0.8, -np.inf])
    np.testing.assert_allclose(ja.outputs.probability(logits_fn)(x), expected, rtol=1e-6)
    gradient = jax.grad(lambda z: ja.outputs.log_probability(logits_fn)(z)[0])(x)
    assert np.all(np.isfinite(gradient))


@pytest.mark.parametrize("name", sorted(set(ja.outputs.REGISTRY) - {"logit"}))
def test_one_logit_is_refused_with_its_cure(name):
    def one(x):
        return jnp.sum(x)[None]

    with pytest.raises(ValueError, match=rf"`outputs.{name}` .* at least 2, but the network has 1.*jnp.concatenate"):
        ja.outputs.REGISTRY[name](one)(jnp.ones(3))
    # What the message says.
    two = ja.outputs.REGISTRY[name](lambda x: jnp.concatenate([jnp.zeros_like(one(x)), one(x)], axis=-1))
    assert two(jnp.ones(3)).shape == (2,)
    assert float(ja.outputs.logit(one)(jnp.ones(3))[0]) == 3
