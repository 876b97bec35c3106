"""Build a network for small images whose second derivatives cost next to nothing."""

import flax.linen as nn
from jaxtyping import Array, Float

from jaxattr.models.convolutions import convolution
from jaxattr.models.layers import Classifier, Pooling, activation, conv_stride, normalize, pool


class SmallCNN(Classifier):
    """A network of two padded 3 x 3 convolutions, each with a pooling, and two dense layers, for 8 x 8 digits.

    Args:
      num_classes: number of logits.
      beta: sharpness of softplus; None for ReLU.
      mean: subtracted from the input, see :func:`normalize`.
      std: divides the input.
      pooling: one of :data:`POOLINGS`.
      temperature: of the pooling ``logsumexp``.
      features: channels of the two convolutions.
      hidden: units of the first dense layer.

    Example:
      >>> import jax, jax.numpy as jnp, jaxattr as ja
      >>> model = SmallCNN(features=(2, 4), hidden=8)
      >>> variables = ja.models.init(model, jax.random.key(0), (8, 8, 1))
      >>> ja.models.logits_fn(model, variables)(jnp.zeros((8, 8, 1))).shape
      (10,)
    """

    pooling: Pooling = "average"
    temperature: float = 0.1
    features: tuple[int, int] = (16, 32)
    hidden: int = 64

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"], train: bool = False) -> Float[Array, "n k"]:
        """Compute the logits of a batch; training and evaluation are the same."""
        del train
        self.check_images(x, smallest=4)
        act = activation(self.beta)
        x = normalize(self.mean, self.std)(x)
        for features in self.features:
            x = act(nn.Conv(features, (3, 3), strides=conv_stride(self.pooling), conv_general_dilated=convolution)(x))
            x = pool(x, self.pooling, self.temperature)
        x = act(nn.Dense(self.hidden)(x.reshape(x.shape[0], -1)))
        return nn.Dense(self.num_classes)(x)
