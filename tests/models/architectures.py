"""Small networks of every architecture, weights without zeros for them, and their layers once more, in plain JAX."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

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


def sharp(z, beta=10.0):
    """Softplus of the sharpness that is the models' default."""
    return jnp.logaddexp(beta * z, 0) / beta


def convolve(layer, x, strides=1, padding="VALID"):
    x = jax.lax.conv_general_dilated(
        x, layer["kernel"], (strides, strides), padding, dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    return x + layer.get("bias", 0)


def halve(x):
    """The mean of every 2 x 2 pixels."""
    n, height, width, channels = x.shape
    return x.reshape(n, height // 2, 2, width // 2, 2, channels).mean((2, 4))


def dense(layer, x):
    return x @ layer["kernel"] + layer["bias"]
