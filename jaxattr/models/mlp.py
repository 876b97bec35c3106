"""Build networks of dense layers; without a hidden layer they are logistic regression."""

import flax.linen as nn
from jaxtyping import Array, Float

from jaxattr.models.layers import Classifier, activation, normalize


class MLP(Classifier):
    """A network of dense layers on the flattened input; ``hidden=()`` is multinomial logistic regression.

    Args:
      num_classes: number of logits.
      beta: sharpness of softplus; None for ReLU.
      mean: subtracted from the input, see :func:`normalize`.
      std: divides the input.
      hidden: units of the hidden layers.

    Example:
      >>> import jax, jax.numpy as jnp, jaxattr as ja
      >>> model = MLP(num_classes=3, hidden=(4,))
      >>> variables = ja.models.init(model, jax.random.key(0), (2, 2))
      >>> ja.models.logits_fn(model, variables)(jnp.zeros((2, 2))).shape
      (3,)
    """

    hidden: tuple[int, ...] = (64,)

    @nn.compact
    def __call__(self, x: Float[Array, "n ..."], train: bool = False) -> Float[Array, "n k"]:
        """Compute the logits of a batch; training and evaluation are the same."""
        del train
        act = activation(self.beta)
        x = normalize(self.mean, self.std)(x).reshape(x.shape[0], -1)
        for units in self.hidden:
            x = act(nn.Dense(units)(x))
        return nn.Dense(self.num_classes)(x)
