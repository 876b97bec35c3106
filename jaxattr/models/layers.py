"""Pieces of networks whose logits are twice differentiable in the input.

Attributions are first derivatives of a network and their bounds are made of second ones, so
everything between input and logit has to be smooth. Softplus instead of ReLU is half of that; the
other half is pooling, since a max-pooling makes the gradient jump wherever two pixels of a window
tie (on MNIST: at almost every black pixel).
"""

import math
from collections.abc import Callable, Sequence
from numbers import Real
from typing import Any, Literal, TypeAlias, get_args

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxattr.models.pooling import window_mean

Pooling: TypeAlias = Literal["average", "stride", "logsumexp", "max"]
"""How a network halves its images; all but ``max`` are smooth."""

POOLINGS: tuple[str, ...] = get_args(Pooling)


@jax.custom_jvp
def sigmoid(z: Array) -> Array:
    """Compute 1 / (1 + exp(-z)), with derivatives that keep their relative accuracy at both ends."""
    # Takes half of the time of jax.nn.sigmoid on a CPU, and shares its exponential with softplus.
    small = jnp.exp(-jnp.abs(z))
    return jnp.where(z < 0, small, 1) / (1 + small)


@sigmoid.defjvp
def _sigmoid_jvp(primals, tangents):
    (z,), (dz,) = primals, tangents
    # s(z) s(-z) and not s(z) (1 - s(z)): the subtraction would lose all digits at large z.
    return sigmoid(z), sigmoid(z) * sigmoid(-z) * dz


@jax.custom_jvp
def _softplus(z: Array) -> Array:
    if z.dtype != jnp.float32:
        return jax.nn.softplus(z)
    # The same within float32, in 40 % of the time on a CPU, where it was most of what is not a convolution:
    # log(1 + e) = 2 artanh(e / (2 + e)) for e = exp(-|z|) <= 1, whose series falls by a factor of 9 a term, or more.
    small = jnp.exp(-jnp.abs(z))
    ratio = small / (2 + small)
    series = jnp.polyval(jnp.asarray([2 / (2 * k + 1) for k in reversed(range(8))], z.dtype), ratio**2, unroll=8)
    return jnp.maximum(z, 0) + ratio * series


@_softplus.defjvp
def _softplus_jvp(primals, tangents):
    (z,), (dz,) = primals, tangents
    return _softplus(z), sigmoid(z) * dz


def softplus(beta: float = 1.0) -> Callable[[Float[Array, "*shape"]], Float[Array, "*shape"]]:
    r"""Build the smooth ReLU :math:`z \mapsto \log(1 + \exp(\beta z)) / \beta`.

    Value and all derivatives keep their relative accuracy at both ends (the derivative rules of
    :func:`jax.nn.softplus` lose the second derivative to cancellation at large ``z``).
    The second derivative is at most ``beta / 4``: bounds computed with different ``beta`` are not
    comparable.

    Args:
      beta: sharpness; larger is closer to ReLU.

    Returns:
      The activation function.

    Raises:
      ValueError: if ``beta`` is not a positive, finite number.

    Example:
      >>> softplus(beta=2.0)(jnp.array([0.0, 100.0])).tolist()  # log(2) / 2, then the identity
      [0.3465735912322998, 100.0]
    """
    check_positive("beta", beta, hint="use beta=None in a model for ReLU")

    def activation(z):
        return _softplus(beta * z) / beta

    return activation


def activation(beta: float | None) -> Callable[[Float[Array, "*shape"]], Float[Array, "*shape"]]:
    """Build ``softplus(beta)``, or ReLU for ``beta=None``."""
    return nn.relu if beta is None else softplus(beta)


def normalize(
    mean: float | Sequence[float], std: float | Sequence[float]
) -> Callable[[Float[Array, "*shape"]], Float[Array, "*shape"]]:
    """Build the first layer of a network, ``x -> (x - mean) / std``.

    It belongs to the network and not to the data, so that radii stay in units of the input. It is
    affine: standardizing each image by its own statistics would make the logits blind to the scale
    of the input, and integrated gradients from a black image would collapse to input times
    gradient.

    Args:
      mean: a number, or one per channel (the last axis).
      std: likewise, positive.

    Returns:
      The layer, a plain function.

    Raises:
      ValueError: if a ``std`` is not positive and finite.

    Example:
      >>> normalize(0.5, 0.25)(jnp.array([0.0, 1.0])).tolist()
      [-2.0, 2.0]
    """
    for value in std if isinstance(std, Sequence) else (std,):
        check_positive("std", value, hint="use one positive number, or one per channel")

    def layer(x):
        return (x - jnp.asarray(mean, x.dtype)) / jnp.asarray(std, x.dtype)

    return layer


def pool(
    x: Float[Array, "n h w c"], kind: Pooling = "average", temperature: float = 0.1
) -> Float[Array, "n h//2 w//2 c"]:
    r"""Reduce windows of 2 x 2 pixels to one; an odd last row or column is dropped.

    ``average`` is the mean, ``max`` the maximum (not smooth), and ``logsumexp`` lies between the
    two,

    .. math:: t \log \Big( \tfrac{1}{4} \sum_{i=1}^{4} \exp(z_i / t) \Big),

    with the mean as its limit for a large temperature ``t`` and the maximum for a small one.
    ``stride`` leaves ``x`` as it is: there the convolution before it takes steps of two
    (:func:`conv_stride`).

    Example:
      >>> z = jnp.array([0.0, 0.0, 0.0, 1.0]).reshape(1, 2, 2, 1)
      >>> [round(float(pool(z, kind)[0, 0, 0, 0]), 3) for kind in ("average", "logsumexp", "max")]
      [0.25, 0.861, 1.0]
    """
    check_pooling(kind, temperature)
    if kind == "stride":
        return x
    if kind == "max":
        return nn.max_pool(x, (2, 2), strides=(2, 2))
    if kind == "average":
        return window_mean(x)
    n, height, width, channels = x.shape
    windows = x[:, : height // 2 * 2, : width // 2 * 2].reshape(n, height // 2, 2, width // 2, 2, channels)
    total = jax.nn.logsumexp(windows / temperature, axis=(2, 4))
    return temperature * (total - math.log(4))


def conv_stride(kind: Pooling) -> int:
    """Steps of the convolution in front of a :func:`pool` of this kind."""
    return 2 if kind == "stride" else 1


def check_pooling(kind: str, temperature: float = 0.1) -> None:
    """Raise ``ValueError`` unless ``kind`` and ``temperature`` are accepted by :func:`pool`."""
    if kind not in POOLINGS:
        raise ValueError(f"`pooling` is {kind!r}; accepted are {', '.join(map(repr, POOLINGS))}.")
    check_positive("temperature", temperature, hint="it divides the values of a window")


class Classifier(nn.Module):
    """What the networks here share: a batch ``(n, *shape)`` to logits ``(n, num_classes)``.

    Args:
      num_classes: number of logits.
      beta: sharpness of every :func:`softplus`; None for ReLU, whose bounds do not hold.
      mean: of the :func:`normalize` layer, a number or one per channel.
      std: likewise.
    """

    num_classes: int = 10
    # Seen on digits and MNIST: 10 trains as fast as ReLU does, 1 takes 1.5 to 3 times the steps.
    beta: float | None = 10.0
    mean: float | tuple[float, ...] = 0.0
    std: float | tuple[float, ...] = 1.0

    def __post_init__(self):
        # A module is a static part of compiled programs, so its fields have to be hashable.
        for name, value in vars(self).items():
            if isinstance(value, list):
                setattr(self, name, tuple(value))
        if not isinstance(self.num_classes, int) or self.num_classes < 1:
            raise ValueError(f"`num_classes` is {self.num_classes!r}; give a positive integer.")
        activation(self.beta)
        normalize(self.mean, self.std)
        if hasattr(self, "pooling"):
            check_pooling(self.pooling, self.temperature)
        super().__post_init__()

    def check_images(self, x: Array, smallest: int) -> None:
        """Raise ``ValueError`` unless ``x`` is a batch of images of ``smallest`` pixels."""
        if x.ndim != 4 or min(x.shape[1:3]) < smallest:
            raise ValueError(
                f"{type(self).__name__} takes a batch of images (n, height, width, channels) of at "
                f"least {smallest}x{smallest} pixels, got shape {x.shape}."
            )


def check_positive(name: str, value: Any, hint: str) -> None:
    """Raise ``ValueError`` unless ``value`` is a positive, finite number."""
    if not (isinstance(value, Real) and 0 < float(value) < math.inf):
        raise ValueError(f"`{name}` is {value!r}; give a positive, finite number ({hint}).")
