import jax
import jax.numpy as jnp
import numpy as np
from architectures import randomized

import jaxattr as ja
from jaxattr import models


def test_without_a_hidden_layer_it_is_logistic_regression():
    """A linear network: its logits are W^T x + b, and its saliency is a column of W, at any input."""
    model = models.MLP(num_classes=3, hidden=())
    variables = randomized(model, (2, 3))
    weights, bias = (np.asarray(variables["params"]["Dense_0"][name]) for name in ("kernel", "bias"))
    logits_fn = models.logits_fn(model, variables)
    for x in np.random.default_rng(1).uniform(size=(2, 2, 3)).astype(np.float32):
        np.testing.assert_allclose(logits_fn(x), x.ravel() @ weights + bias, rtol=1e-5, atol=1e-6)
        found = ja.attributions.saliency()(logits_fn, jnp.asarray(x), 1)
        np.testing.assert_allclose(found, weights[:, 1].reshape(2, 3), rtol=1e-5)


def test_hidden_layers_against_numpy():
    model = models.MLP(num_classes=3, beta=4.0, hidden=(5, 4))
    variables = randomized(model, (6,))
    h = x = np.random.default_rng(1).uniform(size=(7, 6)).astype(np.float32)
    for index in range(3):
        layer = variables["params"][f"Dense_{index}"]
        h = h @ np.asarray(layer["kernel"], float) + np.asarray(layer["bias"], float)
        h = np.log1p(np.exp(4 * h)) / 4 if index < 2 else h
    logits, updates = jax.jit(models.apply_fn(model))(variables, x)
    np.testing.assert_allclose(logits, h, rtol=1e-5, atol=1e-6)
    assert updates == {}
