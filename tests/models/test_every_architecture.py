import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxattr as ja
from jaxattr import models

SMOOTH = {
    "conv_net": (models.ConvNet(num_classes=3), (16, 16, 1)),
    "conv_net/stride": (models.ConvNet(num_classes=3, pooling="stride"), (16, 16, 1)),
    "efficientnet_lite0": (
        models.EfficientNetLite0(num_classes=3, beta=10.0, blocks=((1, 3, 1, 1, 2), (2, 5, 2, 2, 3)), stem=3, head=4),
        (8, 8, 3),
    ),
    "mlp": (models.MLP(num_classes=3, hidden=(5, 4)), (2, 3)),
    "resnet18": (models.ResNet18(num_classes=3, width=2), (8, 8, 3)),
    "small_cnn": (models.SmallCNN(num_classes=3, features=(2, 3), hidden=4), (8, 8, 1)),
    "small_cnn/logsumexp": (
        models.SmallCNN(num_classes=3, features=(2, 3), hidden=4, pooling="logsumexp"),
        (8, 8, 1),
    ),
}


@functools.cache
def shapes_of(model, shape):
    return jax.eval_shape(lambda key: models.init(model, key, shape), jax.random.key(0))


def randomized(model, shape, dtype=np.float32):
    """Weights without zeros: a fresh ConvNet is constant."""
    shapes = shapes_of(model, shape)
    rng = np.random.default_rng(0)

    def draw(leaf):
        scale = 1 / np.sqrt(max(leaf.size // leaf.shape[-1], 1))
        return jnp.asarray(rng.normal(size=leaf.shape) * scale, dtype)

    ones = jax.tree.map(lambda leaf: jnp.ones(leaf.shape, dtype), shapes)
    return ones | {"params": jax.tree.map(draw, shapes["params"])}


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


@pytest.mark.parametrize("pooling", models.POOLINGS)
def test_conv_net_has_the_parameters_counted_by_hand(pooling):
    convolutions = (9 * 1 * 32 + 32) + (9 * 32 * 32 + 32) + (9 * 32 * 64 + 64) + (9 * 64 * 64 + 64)
    dense = (4 * 4 * 64 * 200 + 200) + (200 * 200 + 200) + (200 * 10 + 10)
    model = models.ConvNet(pooling=pooling)
    shapes = jax.eval_shape(lambda key: models.init(model, key, (28, 28, 1)), jax.random.key(0))
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == convolutions + dense == 312_202


def test_conv_net_starts_as_trades_does():
    params = models.init(models.ConvNet(), jax.random.key(0), (16, 16, 1))["params"]
    assert not np.any(params["Dense_2"]["kernel"])
    assert not np.any(params["Dense_2"]["bias"])
    for layer, fan_in in {"Conv_1": 9 * 32, "Conv_3": 9 * 64}.items():
        kernel = np.asarray(params[layer]["kernel"])
        # The standard error of a standard deviation of n normal numbers is 1 / sqrt(2 n).
        assert kernel.std() == pytest.approx(np.sqrt(2 / fan_in), rel=5 / np.sqrt(2 * kernel.size))
        assert not np.any(params[layer]["bias"])
    for part in params["Dense_1"].values():
        assert 0.95 / np.sqrt(200) < np.abs(part).max() <= 1 / np.sqrt(200)


def test_conv_net_is_these_layers():
    """The layers once more, in lax, with given weights."""
    model, shape = SMOOTH["conv_net"]
    variables = randomized(model, shape)
    params = variables["params"]
    x = np.random.default_rng(2).uniform(size=(2, *shape)).astype(np.float32)

    def act(z):
        return jnp.logaddexp(10.0 * z, 0) / 10.0

    @jax.jit
    def layers(params, h):
        for index in range(4):
            layer = params[f"Conv_{index}"]
            dims = ("NHWC", "HWIO", "NHWC")
            h = jax.lax.conv_general_dilated(h, layer["kernel"], (1, 1), "VALID", dimension_numbers=dims)
            h = act(h + layer["bias"])
            if index in (1, 3):
                n, height, width, channels = h.shape
                h = h.reshape(n, height // 2, 2, width // 2, 2, channels).mean((2, 4))
        h = h.reshape(2, -1)
        for index in range(3):
            h = h @ params[f"Dense_{index}"]["kernel"] + params[f"Dense_{index}"]["bias"]
            h = act(h) if index < 2 else h
        return h

    logits, updates = jax.jit(models.apply_fn(model))(variables, x)
    np.testing.assert_allclose(logits, layers(params, x), rtol=1e-4, atol=1e-5)
    assert updates == {}


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
