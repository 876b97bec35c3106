import jax
import jax.numpy as jnp
import numpy as np
from oracles import affine, central_difference, network, quadratic, symmetric

import jaxattr as ja

X = np.array([0.1, 0.9, 0.4, 0.0, 1.0])


def test_quadratic_in_closed_form():
    A, b = symmetric(0, 5), np.arange(5) - 2.0
    with jax.enable_x64(True):
        found = ja.attributions.saliency()(quadratic(A, b), jnp.asarray(X), 0)
        np.testing.assert_allclose(found, A @ X + b, rtol=1e-13)


def test_linear_model_is_its_weights_with_sign():
    W = np.random.default_rng(0).normal(size=(3, 5)).astype(np.float32)
    for label in range(3):
        found = ja.attributions.saliency()(affine(W, np.ones(3)), jnp.asarray(X, jnp.float32), label)
        np.testing.assert_array_equal(found, W[label])


def test_finite_differences_of_the_logit():
    with jax.enable_x64(True):
        logits_fn, x = network(0, (5, 7, 3)), jnp.asarray(X)
        found = ja.attributions.saliency()(logits_fn, x, 1)
        units = np.eye(5)
        expected = [central_difference(lambda z: logits_fn(z)[1], x, unit, 1e-5) for unit in units]
        np.testing.assert_allclose(found, expected, rtol=1e-7, atol=1e-9)


def test_image_shape_and_label_from_an_array():
    A = symmetric(1, 8)
    x = jnp.linspace(0, 1, 8).reshape(2, 2, 2)
    found = ja.attributions.saliency()(quadratic(A), x, jnp.asarray(0, jnp.int8))
    assert found.dtype == x.dtype
    np.testing.assert_allclose(found, (A @ np.linspace(0, 1, 8)).reshape(2, 2, 2), rtol=1e-5, atol=1e-6)
