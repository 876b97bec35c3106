"""Build the residual network of 18 layers for images of 32 x 32 pixels."""

import flax.linen as nn
from jaxtyping import Array, Float

from jaxattr.models.convolutions import convolution
from jaxattr.models.layers import Classifier, activation, normalize

_kaiming_normal = nn.initializers.variance_scaling(2.0, "fan_out", "normal")


class ResNet18(Classifier):
    """The ResNet-18 of He et al. 2016 as used on CIFAR: a 3 x 3 stem, no max pooling, four stages of two blocks.

    All activations are softplus, also those after an addition. Images are halved by strided
    convolutions, with one pixel of padding on each side as in PyTorch (Flax's SAME pads even sizes
    on one side only). Batch normalization keeps its statistics in the collection ``batch_stats``:
    momentum 0.9, and the biased variance, where PyTorch stores the unbiased one.

    Args:
      num_classes: number of logits.
      beta: sharpness of softplus; None for ReLU.
      mean: subtracted from the input, see :func:`normalize`.
      std: divides the input.
      width: channels of the first stage; each later one has twice as many.

    Example:
      >>> import jax, jaxattr as ja
      >>> variables = jax.eval_shape(
      ...     lambda key: ja.models.init(ResNet18(), key, (32, 32, 3)), jax.random.key(0)
      ... )
      >>> sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))
      11173962
    """

    width: int = 64

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"], train: bool = False) -> Float[Array, "n k"]:
        """Compute the logits of a batch; ``train`` uses and updates the statistics."""
        self.check_images(x, smallest=8)
        act = activation(self.beta)

        def conv(x, features, size=3, stride=1):
            return nn.Conv(
                features,
                (size, size),
                strides=stride,
                padding=size // 2,
                use_bias=False,
                kernel_init=_kaiming_normal,
                conv_general_dilated=convolution,
            )(x)

        def norm(x):
            return nn.BatchNorm(use_running_average=not train, momentum=0.9, epsilon=1e-5)(x)

        x = normalize(self.mean, self.std)(x)
        x = act(norm(conv(x, self.width)))
        for stage in range(4):
            for block in range(2):
                features = self.width * 2**stage
                stride = 2 if stage > 0 and block == 0 else 1
                y = act(norm(conv(x, features, stride=stride)))
                y = norm(conv(y, features))
                if x.shape != y.shape:
                    x = norm(conv(x, features, size=1, stride=stride))
                x = act(x + y)
        return nn.Dense(self.num_classes)(x.mean(axis=(1, 2)))
