"""Measure whether the most important features stay the most important ones."""

from typing import Literal

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int

from jaxattr.metrics import _check
from jaxattr.metrics.maps import pixel_map


def top_k_indices(values: Float[Array, "*shape"], k: int) -> Int[Array, " k"]:
    """Return the flat indices of the k largest values, largest first.

    Equal values are taken in the order of their indices. Maps with a zero baseline have hundreds of
    exact ties on MNIST, so the rule matters; released attack code that ends an unstable sort
    differs there.

    Args:
      values: values to order, of any shape; pass ``abs(g)`` or ``pixel_map(g)`` for importance.
      k: how many.

    Returns:
      Indices into the flattened values.

    Raises:
      TypeError: if the dtype is not a floating one, or ``k`` is not a concrete integer.
      ValueError: if ``values`` is empty, or ``k`` is not between 1 and the number of values.

    Example:
      >>> import jax.numpy as jnp
      >>> top_k_indices(jnp.array([0.0, 2.0, 1.0, 2.0]), 3).tolist()
      [1, 3, 2]
    """
    values = _check.one_map(values, "values").ravel()
    k = _check.number_of_entries(k, values.size, "`values`")
    # Replace -0.0, which equals 0.0, but which a total order of floats puts below it.
    return lax.top_k(jnp.where(values == 0, 0, values), k)[1]


def top_k_intersection(
    a: Float[Array, "*shape"],
    b: Float[Array, "*shape"],
    k: int | np.integer,
    map: Literal["feature", "pixel"] = "feature",
) -> Float[Array, ""]:
    """Compute the share of the k most important entries that two attributions have in common.

    ``|top_k(a) & top_k(b)| / k`` (Ghorbani et al. 2019; Chen et al. 2019, reported in percent),
    with ties resolved as in `top_k_indices`.

    Args:
      a: attribution of the original sample.
      b: attribution of the perturbed sample.
      k: how many entries are important.
      map: ``"feature"`` ranks the features by ``|g|``, ``"pixel"`` the pixels by
        ``pixel_map(g)``.

    Returns:
      A number between 0 and 1; NaN if a map contains NaN, or is so small that parts of it were flushed to zero
      (below 1.2e-35 times the root of the number of features in float32).

    Raises:
      TypeError: if a dtype is not a floating one, or ``k`` is not a concrete integer.
      ValueError: if the shapes differ, the maps are empty, ``k`` is not between 1 and the number
        of entries, or ``map`` is unknown.

    Example:
      >>> import jax.numpy as jnp
      >>> a, b = jnp.array([3.0, -2.0, 1.0, 0.0]), jnp.array([3.0, 0.0, 1.0, 0.0])
      >>> float(top_k_intersection(a, b, k=2))
      0.5
    """
    a, b = _check.two_maps(a, b)
    if map == "feature":
        importance_a, importance_b = jnp.abs(a).ravel(), jnp.abs(b).ravel()
    elif map == "pixel":
        importance_a, importance_b = pixel_map(a).ravel(), pixel_map(b).ravel()
    else:
        raise ValueError(f"`map` must be 'feature' or 'pixel', got {map!r}.")
    k = _check.number_of_entries(k, importance_a.size, f"the {map} map")
    in_a = jnp.zeros(importance_a.size, bool).at[top_k_indices(importance_a, k)].set(True)
    common = jnp.sum(in_a[top_k_indices(importance_b, k)])
    unordered = jnp.any(jnp.isnan(a) | jnp.isnan(b)) | ~_check.resolved(a) | ~_check.resolved(b)
    return jnp.where(unordered, jnp.nan, common.astype(a.dtype) / k)
