"""Provide the two views of an attribution that metrics compare: signed features, and pixels."""

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from jaxattr.metrics import _check


def magnitude(g: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Compute ``|g|`` with derivative 0 at 0, as in the TensorFlow and PyTorch code of the papers.

    JAX gives ``jnp.abs`` the derivative 1 there, which would pull exact zeros, the whole background
    of an MNIST attribution, towards negative values.

    Args:
      g: attribution of one sample.

    Returns:
      Absolute values.

    Example:
      >>> import jax
      >>> jax.grad(magnitude)(0.0).item(), jax.grad(magnitude)(-2.0).item()
      (0.0, -1.0)
    """
    return g * lax.stop_gradient(jnp.sign(g))


def feature_map(g: Float[Array, "*shape"]) -> Float[Array, " features"]:
    """Return the attribution as a signed vector of features.

    This is the view of the bounds: every deviation bound is about ``||feature_map(a) -
    feature_map(b)||``.

    Args:
      g: attribution of one sample.

    Returns:
      The same numbers, flattened; 16-bit maps as float32.

    Raises:
      TypeError: if ``g`` is not of a floating dtype.
      ValueError: if ``g`` is empty.

    Example:
      >>> import jax.numpy as jnp
      >>> feature_map(jnp.array([[1.0, -2.0], [0.0, 3.0]])).tolist()
      [1.0, -2.0, 0.0, 3.0]
    """
    return _check.one_map(g, "g").ravel()


def pixel_map(g: Float[Array | np.ndarray, "*shape"]) -> Float[Array, "*pixels"]:
    """Return the absolute attribution per pixel, with mean 1.

    ``S_p = sum_c |g_{p,c}|``, then ``S <- N S / sum(S)`` over the N pixels, as in the released code
    of Chen et al. (2019), "Robust attribution regularization", and Ghorbani et al. (2019),
    "Interpretation of neural networks is fragile". A map that is zero everywhere stays zero. The
    scale makes the map independent of the attribution's magnitude, which is why no bound on
    ``||g(x') - g(x)||`` carries over to it. A map so small that parts of it were flushed to zero (in float32 with a
    largest entry below 1.2e-35 times the root of the number of features) has no such view: it is NaN.

    Args:
      g: attribution of one sample. The last axis of a 3-d map is its channels; a 1-d or 2-d map
        has none.

    Returns:
      A nonnegative map without the channel axis.

    Raises:
      TypeError: if ``g`` is not of a floating dtype.
      ValueError: if ``g`` is empty or has more than three axes.

    Example:
      >>> import jax.numpy as jnp
      >>> pixel_map(jnp.array([[[1.0, -2.0], [0.0, -1.0]]])).tolist()
      [[1.5, 0.5]]
    """
    g = _check.one_map(g, "g")
    if g.ndim not in (1, 2, 3):
        raise ValueError(
            f"`g` must have the shape (features,), (rows, columns) or (rows, columns, channels), "
            f"got {g.shape}; use `jax.vmap` for a batch."
        )
    pixels = jnp.where(_check.resolved(g), magnitude(g), jnp.nan)
    # The result does not depend on the scale of g, so a constant may be divided out first: the
    # squared sum in the derivative of a quotient underflows for the tiny gradients of a saturated
    # network otherwise.
    largest = lax.stop_gradient(jnp.max(pixels))
    pixels = pixels / jnp.where(largest == 0, 1, largest)
    if g.ndim == 3:
        pixels = jnp.sum(pixels, axis=-1)
    total = jnp.sum(pixels)
    return pixels * (pixels.size / jnp.where(total == 0, 1, total))
