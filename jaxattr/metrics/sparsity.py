"""Measure how concentrated an attribution is on few features."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxattr.metrics import _check
from jaxattr.metrics.maps import magnitude


def gini(a: Float[Array, "*shape"], *, offset: float = 1e-7) -> Float[Array, ""]:
    """Compute the Gini index of the absolute attribution: 0 for equal entries, ``1 - 1/n`` for a single one.

    With ``v = |a| + offset`` sorted ascending, ``G = sum_i (2 i - n - 1) v_i / (n sum_i v_i)`` for
    i = 1 .. n (Chalasani et al. 2020, "Concise explanations of neural networks using adversarial
    training", section 6.2; the offset is that of their released code). It is equal to ``1 - 2 sum_i
    v_i (n - i + 1/2) / (n sum_i v_i)`` of Hurley and Rickard (2009).

    The offset is absolute: it hides the differences within a map whose entries are smaller than it.

    Args:
      a: attribution of one sample; every feature counts, also each channel of a pixel.
      offset: added to every entry. With 0, the index of an all-zero map is undefined.

    Returns:
      The index; NaN if all ``v`` are zero.

    Raises:
      TypeError: if the dtype is not a floating one.
      ValueError: if the map is empty or ``offset`` is negative.

    Example:
      >>> import jax.numpy as jnp
      >>> float(gini(jnp.array([0.0, 0.0, 0.0, -4.0]), offset=0.0))
      0.75
    """
    a = _check.one_map(a)
    if not offset >= 0:
        raise ValueError(f"`offset` must not be negative, got {offset}.")
    n = a.size
    v = jnp.sort(magnitude(a).ravel() + offset)
    total = jnp.sum(v)
    share = v / jnp.where(total == 0, 1, total)
    # These weights have mean 0, so that a constant map gives 0 up to the rounding of its sum.
    weight = (2 * jnp.arange(1, n + 1, dtype=a.dtype) - (n + 1)) / n
    return jnp.where(total == 0, jnp.nan, jnp.sum(weight * share))
