import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxattr import models
from jaxattr.defenses import natural
from jaxattr.training import Batch


def test_gradient_of_logistic_regression_in_closed_form():
    rng = np.random.default_rng(0)
    x, label = rng.normal(size=(7, 4)).astype(np.float32), rng.integers(0, 3, 7)
    kernel, bias = rng.normal(size=(4, 3)), rng.normal(size=3)
    model = models.MLP(num_classes=3, hidden=())
    params = {"Dense_0": {"kernel": jnp.array(kernel, "float32"), "bias": jnp.array(bias, "float32")}}

    def loss_fn(params):
        return natural()(models.apply_fn(model), {"params": params}, Batch(x, label), None)

    (loss, aux), gradient = jax.value_and_grad(loss_fn, has_aux=True)(params)
    logits = x.astype(np.float64) @ kernel + bias
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    error = (p - np.eye(3)[label]) / 7
    np.testing.assert_allclose(loss, -np.log(p[np.arange(7), label]).mean(), rtol=1e-5)
    np.testing.assert_allclose(gradient["Dense_0"]["kernel"], x.T @ error, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(gradient["Dense_0"]["bias"], error.sum(0), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(aux["metrics"]["accuracy"], (p.argmax(1) == label).mean(), rtol=1e-6)
    assert aux["updates"] == {}


def test_pass_is_in_training_mode_with_the_key():
    seen = []

    def apply_fn(variables, xs, *, train=False, key=None):
        seen.append((train, key))
        return xs @ variables["params"], {"batch_stats": "new"}

    batch = Batch(jnp.eye(2), jnp.array([0, 1]))
    _, aux = natural()(apply_fn, {"params": jnp.eye(2)}, batch, "key")
    assert seen == [(True, "key")]
    assert aux["updates"] == {"batch_stats": "new"}


def test_the_penalty_is_the_sum_of_absolute_parameters_biases_included():
    params = {"kernel": jnp.array([[1.0, -2.0]]), "bias": jnp.array([0.5, 0.0])}

    def apply_fn(variables, xs, *, train=False, key=None):
        return xs @ variables["params"]["kernel"] + variables["params"]["bias"], {}

    batch = Batch(jnp.array([[1.0]]), jnp.array([0]))
    plain, penalized = (natural(l1)(apply_fn, {"params": params}, batch, None)[0] for l1 in (0.0, 0.1))
    assert penalized - plain == pytest.approx(0.35, rel=1e-5)
    with pytest.raises(ValueError, match="`l1` must be a finite number of at least 0, got -1"):
        natural(-1)
