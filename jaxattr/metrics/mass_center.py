"""Locate an attribution's center of mass on the image, and measure how far it moves."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxattr.metrics import _check
from jaxattr.metrics.distance import euclidean
from jaxattr.metrics.maps import pixel_map


def mass_center(g: Float[Array, "*shape"]) -> Float[Array, "2"]:
    """Compute the center of mass (row, column) of the pixel map.

    ``c = (1/N) sum_p S_p (row_p, column_p)`` with the pixel map S of mean 1 (Ghorbani et al. 2019,
    "Interpretation of neural networks is fragile", the mass-center attack).

    Args:
      g: attribution of one image, (rows, columns) or (rows, columns, channels).

    Returns:
      Row and column, counted from 0; NaN for a map that is zero everywhere.

    Raises:
      TypeError: if the dtype is not a floating one.
      ValueError: if the map is empty or is not 2-d or 3-d.

    Example:
      >>> import jax.numpy as jnp
      >>> mass_center(jnp.zeros((8, 8)).at[2, 5].set(-3.0)).tolist()
      [2.0, 5.0]
    """
    center, defined = _center(_check.one_map(g, "g"))
    return jnp.where(defined, center, jnp.nan)


def _center(g: Array) -> tuple[Array, Array]:
    """Return the center, finite with finite derivatives for any finite map, and whether there is one."""
    if g.ndim not in (2, 3):
        raise ValueError(
            f"`g` must have the shape (rows, columns) or (rows, columns, channels), got {g.shape}; "
            "a center of mass needs an image, use `jax.vmap` for a batch."
        )
    pixels = pixel_map(g)
    rows, columns = pixels.shape
    row = jnp.sum(pixels * jnp.arange(rows, dtype=g.dtype)[:, None]) / pixels.size
    column = jnp.sum(pixels * jnp.arange(columns, dtype=g.dtype)[None, :]) / pixels.size
    return jnp.stack([row, column]), jnp.any(pixels != 0)


def mass_center_shift(
    a: Float[Array, "*shape"], b: Float[Array, "*shape"], *, truncate: bool = False
) -> Float[Array, ""]:
    """Compute the distance in pixels between the two centers of mass, ``||c(a) - c(b)||_2``.

    The released code of Ghorbani et al. (2019) truncates both centers to whole pixels, which hides
    most shifts below one pixel and rounds some of them up to one. Wang et al. (2020), "Smoothed
    geometry for robust attribution", published both variants.

    Args:
      a: attribution of the original image, (rows, columns) or (rows, columns, channels).
      b: attribution of the perturbed image.
      truncate: whether to truncate both centers to integers first.

    Returns:
      The distance; NaN if a map is zero everywhere.

    Raises:
      TypeError: if a dtype is not a floating one.
      ValueError: if the shapes differ, the maps are empty or are not 2-d or 3-d.

    Example:
      >>> import jax.numpy as jnp
      >>> a = jnp.zeros((8, 8)).at[2, 5].set(1.0)
      >>> float(mass_center_shift(a, a.at[5, 1].set(1.0)))
      2.5
    """
    a, b = _check.two_maps(a, b)
    (center_a, defined_a), (center_b, defined_b) = _center(a), _center(b)
    if truncate:
        center_a, center_b = jnp.trunc(center_a), jnp.trunc(center_b)
    return jnp.where(defined_a & defined_b, euclidean(center_a, center_b), jnp.nan)
