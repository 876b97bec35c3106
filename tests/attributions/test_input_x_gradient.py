import jax
import jax.numpy as jnp
import numpy as np
from oracles import affine, quadratic, symmetric

import jaxattr as ja

X = np.array([0.1, 0.9, 0.4, 0.0, 1.0])


def test_quadratic_in_closed_form():
    A, b = symmetric(0, 5), np.arange(5) - 2.0
    with jax.enable_x64(True):
        found = ja.attributions.input_x_gradient()(quadratic(A, b), jnp.asarray(X), 0)
        np.testing.assert_allclose(found, X * (A @ X + b), rtol=1e-13)


def test_is_complete_for_a_linear_model_through_the_origin():
    W = np.random.default_rng(0).normal(size=(3, 5)).astype(np.float32)
    logits_fn = affine(W, np.zeros(3))
    x = jnp.asarray(X, jnp.float32)
    for label in range(3):
        found = ja.attributions.input_x_gradient()(logits_fn, x, label)
        np.testing.assert_allclose(found, W[label] * X, rtol=1e-6)
        np.testing.assert_allclose(jnp.sum(found), logits_fn(x)[label], rtol=1e-5, atol=1e-6)
