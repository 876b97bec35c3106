"""Attributions of one's own, by a function or by a gradient field, against closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import quadratic, symmetric

import jaxattr as ja
from jaxattr.attribution import as_attribution, broadcast_baseline

A, B = symmetric(0, 4), np.arange(4) - 1.5
X = jnp.asarray([0.1, 0.9, 0.4, 0.7], jnp.float32)
LOGITS_FN = quadratic(A, B, jnp.float32)


def gradient(logits_fn, x, label):
    return jax.grad(lambda z: logits_fn(z)[label])(x)


@pytest.mark.parametrize("baseline", [None, 0.0, 0.25, (0.1, 0.2, 0.3, 0.4)])
def test_a_field_and_what_multiplies_it(baseline):
    """Of a quadratic f: m * (A x + b), whose Jacobian is diag(A x + b) + diag(m) A, or A alone."""
    attribute = ja.Attribution("mine", field=gradient, baseline=baseline)
    field, distance = A @ np.asarray(X) + B, None if baseline is None else np.asarray(X) - np.asarray(baseline)
    expected = field if distance is None else distance * field
    np.testing.assert_allclose(attribute(LOGITS_FN, X, 0), expected, rtol=1e-4, atol=1e-6)
    J = A if distance is None else np.diag(field) + distance[:, None] * A
    jacobian = ja.attribution_jacobian(attribute, LOGITS_FN, X, 0)
    np.testing.assert_allclose(jacobian.dense(), J, rtol=1e-4, atol=1e-5)
    assert attribute.symmetric == (baseline is None)


def test_a_function_of_ones_own_has_the_jacobian_of_that_function():
    attribute = ja.Attribution("squared", lambda logits_fn, x, label: gradient(logits_fn, x, label) ** 2)
    field = A @ np.asarray(X) + B
    np.testing.assert_allclose(attribute(LOGITS_FN, X, 0), field**2, rtol=1e-4)
    jacobian = ja.attribution_jacobian(attribute, LOGITS_FN, X, 0)
    np.testing.assert_allclose(jacobian.dense(), 2 * field[:, None] * A, rtol=1e-4, atol=1e-5)
    assert not attribute.symmetric


def test_a_plain_function_is_an_attribution_under_its_name():
    attribute = as_attribution(gradient)
    assert attribute.name == "gradient"
    assert as_attribution(gradient) is attribute
    assert as_attribution(attribute) is attribute
    assert as_attribution(attribute, "another").name == "another"
    np.testing.assert_array_equal(attribute(LOGITS_FN, X, 0), ja.attributions.saliency()(LOGITS_FN, X, 0))


def test_one_of_function_and_field():
    with pytest.raises(TypeError, match="takes one of `function` and `field`, got neither"):
        ja.Attribution("mine")
    with pytest.raises(TypeError, match="takes one of `function` and `field`, got both"):
        ja.Attribution("mine", gradient, field=gradient)
    with pytest.raises(TypeError, match="`field` must be a function"):
        ja.Attribution("mine", field="gradient")


SHAPES = {(): True, (3,): True, (2, 1): True, (2,): False, (1, 2, 3): False}


@pytest.mark.parametrize(("shape", "fits"), SHAPES.items())
def test_baselines_broadcast_as_numpys_arrays_do(shape, fits):
    baseline, x = np.random.default_rng(0).normal(size=shape).astype(np.float32), jnp.zeros((2, 3))
    if not fits:
        with pytest.raises(ValueError, match=r"broadcasts to the input's shape \(2, 3\)"):
            broadcast_baseline(baseline, x)
        return
    np.testing.assert_array_equal(broadcast_baseline(baseline, x), np.broadcast_to(baseline, (2, 3)))
