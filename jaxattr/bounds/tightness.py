"""Measure how near attacks come to a bound over a data set (Wang and Kong 2023, Eq. 12)."""

from collections.abc import Sequence

import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Float


def tightness(bounds: ArrayLike | Sequence[float], deviations: ArrayLike | Sequence[float]) -> Float[Array, ""]:
    """Return ``r = min_i (T_i - That_i)`` over samples; negative where some attack exceeds its bound.

    That is Eq. 12 of Wang and Kong 2023. Their ``That_i`` is the mean over 20 attacks, which understates the worst
    case; pass the largest deviation found to measure against that. For l2 they take ``T'_e`` (the printed sentence
    repeats ``T_e`` by a typo).

    Args:
      bounds: Euclidean bound per sample, (n,).
      deviations: Euclidean deviation per sample, (n,).

    Raises:
      ValueError: if there are no samples, or the shapes differ.

    Example:
      >>> import jax.numpy as jnp
      >>> import jaxattr as ja
      >>> float(ja.bounds.tightness(jnp.array([1.0, 2.0]), jnp.array([0.5, 1.75])))
      0.25
    """
    bounds, deviations = jnp.asarray(bounds), jnp.asarray(deviations)
    if bounds.shape != deviations.shape or bounds.size == 0:
        raise ValueError(
            "`bounds` and `deviations` must hold one value per sample, got shapes"
            f" {bounds.shape} and {deviations.shape}."
        )
    return jnp.min(bounds - deviations)
