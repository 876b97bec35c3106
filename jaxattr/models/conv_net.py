"""Build the network of four convolutional and three dense layers used with MNIST and Fashion-MNIST."""

import math

import flax.linen as nn
import jax
from jaxtyping import Array, Float

from jaxattr.models.convolutions import convolution
from jaxattr.models.layers import Classifier, Pooling, activation, conv_stride, normalize, pool

# PyTorch's defaults initialize the TRADES networks; Flax's own he_normal is truncated.
_kaiming_normal = nn.initializers.variance_scaling(2.0, "fan_in", "normal")
_linear_kernel = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")


def _linear_bias(inputs: int):
    limit = 1 / math.sqrt(inputs)

    def initializer(key, shape, dtype):
        return jax.random.uniform(key, shape, dtype, -limit, limit)

    return initializer


class ConvNet(Classifier):
    """A network of four convolutions (32, 32, pool, 64, 64, pool) and three dense layers (200, 200, classes).

    Wang and Kong, *A Practical Upper Bound for the Worst-Case Attribution Deviations*, section 5,
    give only the numbers of layers;
    the sizes are those of the small network of TRADES (Zhang et al. 2019), which has exactly these:
    convolutions of 3 x 3 without padding, dropout 0.5 after the first dense layer.

    Its initial values are those of TRADES: Kaiming-normal convolutions with bias zero, PyTorch's default uniform
    in the first two dense layers, zeros in the last. **A fresh network is therefore constant, and
    its attributions are zero.** It pools by averages where TRADES takes maxima, since a bound needs
    second derivatives.

    The flattened features are in the order (row, column, channel): the first dense kernel of a
    PyTorch network, which has (channel, row, column), has to be permuted before it fits.

    Args:
      num_classes: number of logits.
      beta: sharpness of softplus; None for ReLU.
      mean: subtracted from the input, see :func:`normalize`.
      std: divides the input.
      pooling: one of :data:`POOLINGS`.
      temperature: of the pooling ``logsumexp``.
      dropout: probability of dropping a unit in training.

    Example:
      >>> import jax, jaxattr as ja
      >>> variables = jax.eval_shape(
      ...     lambda key: ja.models.init(ConvNet(), key, (28, 28, 1)), jax.random.key(0)
      ... )
      >>> sum(leaf.size for leaf in jax.tree.leaves(variables))
      312202
    """

    pooling: Pooling = "average"
    temperature: float = 0.1
    dropout: float = 0.5

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"], train: bool = False) -> Float[Array, "n k"]:
        """Compute the logits of a batch; ``train`` turns the dropout on, which needs a key."""
        self.check_images(x, smallest=16)
        act = activation(self.beta)
        x = normalize(self.mean, self.std)(x)
        for features in (32, 64):
            for stride in (1, conv_stride(self.pooling)):
                x = nn.Conv(
                    features,
                    (3, 3),
                    strides=stride,
                    padding="VALID",
                    kernel_init=_kaiming_normal,
                    conv_general_dilated=convolution,
                )(x)
                x = act(x)
            x = pool(x, self.pooling, self.temperature)
        x = x.reshape(x.shape[0], -1)
        for layer in range(2):
            x = nn.Dense(200, kernel_init=_linear_kernel, bias_init=_linear_bias(x.shape[-1]))(x)
            x = act(x)
            if layer == 0:
                x = nn.Dropout(self.dropout, deterministic=not train)(x)
        return nn.Dense(self.num_classes, kernel_init=nn.initializers.zeros)(x)
