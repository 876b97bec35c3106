"""What every architecture is asked: second derivatives, kinks, normalized inputs, sizes that are too small."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from architectures import SMOOTH, randomized, shapes_of

import jaxattr as ja
from jaxattr import models


def test_every_architecture_is_among_the_smooth_ones():
    assert {name.split("/")[0] for name in SMOOTH} == set(models.REGISTRY)


@pytest.mark.parametrize("name", SMOOTH)
def test_hessian_agrees_with_differences_of_the_gradient(name):
    model, shape = SMOOTH[name]
    with jax.enable_x64(True):
        variables = randomized(model, shape, np.float64)
        logits_fn = models.logits_fn(model, variables)
        rng = np.random.default_rng(1)
        x, v = jnp.asarray(rng.uniform(size=shape)), jnp.asarray(rng.normal(size=shape))
        logits = jax.eval_shape(logits_fn, x)
        assert (logits.shape, logits.dtype) == ((3,), jnp.float64)

        @jax.jit
        def gradient_and_product(logits_fn, x, v):
            return jax.jvp(jax.grad(lambda x: logits_fn(x)[1]), (x,), (v,))

        def gradient(x):
            return gradient_and_product(logits_fn, x, v)[0]

        step = 1e-5
        differences = (gradient(x + step * v) - gradient(x - step * v)) / (2 * step)
        product = gradient_and_product(logits_fn, x, v)[1]
        assert jnp.abs(product).max() > 1e-6
        # Truncation step^2, cancellation 1e-16 / step.
        error = jnp.abs(product - differences).max()
        assert error < 1e-5 * jnp.abs(product).max(), float(error)


@pytest.mark.parametrize("name", SMOOTH)
def test_kinks_are_those_that_were_asked_for(name):
    model, shape = SMOOTH[name]
    x = jax.ShapeDtypeStruct(shape, np.float32)
    # Neither the activation nor the pooling changes what variables there are.
    zeros = jax.tree.map(lambda leaf: np.zeros(leaf.shape, np.float32), shapes_of(model, shape))

    def kinks(model):
        return {kink.operation for kink in ja.kinks(models.logits_fn(model, zeros), x)}

    assert kinks(model) == set()
    assert kinks(model.clone(beta=None)) == {"clip" if "efficientnet" in name else "relu"}
    if hasattr(model, "pooling"):
        assert kinks(model.clone(pooling="max")) == {"reduce_window_max"}


def test_input_is_normalized_first():
    plain, shape = SMOOTH["mlp"]
    scaled = plain.clone(mean=(0.1, 0.2, 0.3), std=[0.5, 2.0, 1.0])
    variables = randomized(plain, shape)
    x = jnp.ones(shape)
    by_hand = (x - jnp.array([0.1, 0.2, 0.3])) / jnp.array([0.5, 2.0, 1.0])
    np.testing.assert_allclose(
        models.logits_fn(scaled, variables)(x),
        models.logits_fn(plain, variables)(by_hand),
        rtol=1e-5,
    )
    assert hash(scaled) == hash(plain.clone(mean=(0.1, 0.2, 0.3), std=(0.5, 2.0, 1.0)))


def test_wrong_usage_is_named():
    with pytest.raises(ValueError, match=r"ConvNet takes .* at least 16x16 pixels, got shape \(1, 8"):
        models.init(models.ConvNet(), jax.random.key(0), (8, 8, 1))
    with pytest.raises(ValueError, match=r"SmallCNN takes .*got shape \(1, 64\)"):
        models.init(models.SmallCNN(), jax.random.key(0), (64,))
    with pytest.raises(ValueError, match="`num_classes` is 0"):
        models.MLP(num_classes=0)
