"""Provide parts of networks whose logits are twice differentiable in the input.

Attributions are first derivatives of a network and their bounds are made of second ones, so
everything between input and logit has to be smooth. Softplus instead of ReLU is half of that; the
other half is pooling, since a max-pooling makes the gradient jump wherever two pixels of a window
tie (on MNIST: at almost every black pixel).
"""

from collections.abc import Callable, Sequence
from typing import Any, Literal, TypeAlias, get_args

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from jaxattr import _activations, _checks, _windows
from jaxattr.models.pooling import window_mean

Pooling: TypeAlias = Literal["average", "stride", "logsumexp", "max"]
"""Kinds of pooling, by which a network halves its images; all but ``max`` are smooth."""

POOLINGS: tuple[str, ...] = get_args(Pooling)


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
    _checks.positive("beta", beta, hint="use beta=None in a model for ReLU")

    def activation(z):
        return _activations.softplus(beta * z) / beta

    return activation


def activation(beta: float | None) -> Callable[[Float[Array, "*shape"]], Float[Array, "*shape"]]:
    """Build ``softplus(beta)``, or ReLU for ``beta=None``, which bounds refuse."""
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
        _checks.positive("std", value, hint="use one positive number, or one per channel")

    def layer(x):
        return (x - jnp.asarray(mean, x.dtype)) / jnp.asarray(std, x.dtype)

    return layer


def pool(
    x: Float[Array | np.ndarray, "n h w c"],
    kind: Pooling = "average",
    temperature: float = 0.1,
    *,
    window: Sequence[int] = (2, 2),
    strides: Sequence[int] | None = None,
    padding: str | Sequence[tuple[int, int]] = "VALID",
) -> Float[Array, "n h_out w_out c"]:
    r"""Reduce windows of pixels to one pixel each; by default 2 x 2, where an odd last row or column is dropped.

    ``average`` is the mean, ``max`` the maximum (not smooth, so that bounds refuse it), and ``logsumexp`` lies between
    the two: of n pixels in a window,

    .. math:: t \log \Big( \tfrac{1}{n} \sum_{i=1}^{n} \exp(z_i / t) \Big),

    with the mean as its limit for a large temperature ``t`` and the maximum for a small one. ``stride`` leaves ``x`` as
    it is: there the convolution before it takes steps of two (:func:`conv_stride`). Padding counts for nothing: means
    are of the pixels that are there.

    Args:
      x: a batch of images.
      kind: one of :data:`POOLINGS`.
      temperature: of ``logsumexp``, in units of the pixels.
      window: rows and columns of a window.
      strides: steps between windows; default: the window's own size.
      padding: "VALID", "SAME", or rows before and after and columns before and after the image.

    Raises:
      ValueError: if ``kind``, ``temperature``, or a window is not accepted.

    Example:
      >>> z = jnp.array([0.0, 0.0, 0.0, 1.0]).reshape(1, 2, 2, 1)
      >>> [round(float(pool(z, kind)[0, 0, 0, 0]), 3) for kind in ("average", "logsumexp", "max")]
      [0.25, 0.861, 1.0]
      >>> pool(jnp.zeros((1, 7, 7, 1)), "logsumexp", window=(3, 3), strides=(2, 2), padding="SAME").shape
      (1, 4, 4, 1)
    """
    check_pooling(kind, temperature)
    x = jnp.asarray(x)
    if kind == "stride":
        return x
    windows = _windows_over(x, window, window if strides is None else strides, padding)
    if kind == "max":
        return lax.reduce_window(x, -jnp.inf, lax.max, windows.sizes, windows.strides, windows.padding)
    if kind == "average":
        plain = windows.sizes == windows.strides == (1, 2, 2, 1) and not any(map(any, windows.padding))
        return window_mean(x) if plain else _windows.mean(x, windows)
    number = np.log(_windows.counts(x.shape, windows)).astype(x.dtype)
    return temperature * (_windows.log_sum_exp(x / temperature, windows) - number)


def _windows_over(x: Array, window: Any, strides: Any, padding: Any) -> _windows.Windows:
    for name, pair in {"window": window, "strides": strides}.items():
        if not (isinstance(pair, Sequence) and len(pair) == 2 and all(isinstance(n, int) and n > 0 for n in pair)):
            raise ValueError(f"`{name}` is {pair!r}; give two positive integers, rows and columns.")
    if not isinstance(padding, str):
        pairs = [tuple(pair) if isinstance(pair, Sequence) else () for pair in padding]
        if [len(pair) for pair in pairs] != [2, 2] or not all(isinstance(n, int) and n >= 0 for p in pairs for n in p):
            raise ValueError(f"`padding` is {padding!r}; give 'VALID', 'SAME', or two pairs of numbers of pixels.")
        padding = [(0, 0), *pairs, (0, 0)]
    elif padding not in ("VALID", "SAME"):
        raise ValueError(f"`padding` is {padding!r}; give 'VALID', 'SAME', or two pairs of numbers of pixels.")
    return _windows.Windows.of((1, *window, 1), (1, *strides, 1), padding, x.shape)


def conv_stride(kind: Pooling) -> int:
    """Return the stride of the convolution in front of a :func:`pool` of this kind."""
    return 2 if kind == "stride" else 1


def check_pooling(kind: str, temperature: float = 0.1) -> None:
    """Raise ``ValueError`` unless ``kind`` and ``temperature`` are accepted by :func:`pool`."""
    if kind not in POOLINGS:
        raise ValueError(f"`pooling` is {kind!r}; accepted are {', '.join(map(repr, POOLINGS))}.")
    _checks.positive("temperature", temperature, hint="it divides the values of a window")


class Classifier(nn.Module):
    """The base class of the networks here, which map a batch ``(n, *shape)`` to logits ``(n, num_classes)``.

    Args:
      num_classes: number of logits.
      beta: sharpness of every :func:`softplus`; None for ReLU, which bounds refuse (``jaxattr.smooth`` replaces it).
      mean: of the :func:`normalize` layer, a number or one per channel.
      std: likewise.
    """

    num_classes: int = 10
    # On digits and MNIST 10 trains as fast as ReLU does, 1 takes 1.5 to 3 times the steps.
    beta: float | None = 10.0
    mean: float | tuple[float, ...] = 0.0
    std: float | tuple[float, ...] = 1.0

    def __post_init__(self):
        # Fields have to be hashable, since a module is a static part of compiled programs.
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
