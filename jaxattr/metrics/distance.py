"""Compute distances and angles between two attributions, as vectors of signed features."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxattr._numerics import norm
from jaxattr.metrics import _check


def _units(a: Array, b: Array) -> tuple[Array, Array, Array]:
    """Divide both maps by their norms, and return whether both have a direction that survived rounding."""
    resolved = _check.resolved(a) & _check.resolved(b)
    a, b = _near_one(a), _near_one(b)
    norm_a, norm_b = norm(a), norm(b)
    defined = (norm_a != 0) & (norm_b != 0) & resolved
    return a / jnp.where(norm_a == 0, 1, norm_a), b / jnp.where(norm_b == 0, 1, norm_b), defined


def _near_one(a: Array) -> Array:
    """Scale a map by a power of two that brings its largest entry near 1.

    Directions are the same to the last bit. Their derivative divides by the square of the norm, which float32 flushes
    to zero below 1e-19, where the maps of saturated networks are.
    """
    largest = jax.lax.stop_gradient(jnp.max(jnp.abs(a)))
    usable = (largest > 0) & jnp.isfinite(largest)
    _, exponent = jnp.frexp(jnp.where(usable, largest, 1))
    return a / jnp.ldexp(jnp.ones((), a.dtype), exponent - 1)


def euclidean(a: Float[Array, "*shape"], b: Float[Array, "*shape"]) -> Float[Array, ""]:
    """Compute the Euclidean distance ``||a - b||_2``.

    Its derivative at ``a == b`` is taken to be 0, which lies in the subdifferential.

    Args:
      a: attribution of the original sample.
      b: attribution of the perturbed sample.

    Returns:
      The distance.

    Raises:
      TypeError: if a dtype is not a floating one.
      ValueError: if the shapes differ or the maps are empty.

    Example:
      >>> import jax.numpy as jnp
      >>> float(euclidean(jnp.array([1.0, 2.0]), jnp.array([4.0, 6.0])))
      5.0
    """
    a, b = _check.two_maps(a, b)
    return norm(a - b)


def cosine_distance(a: Float[Array, "*shape"], b: Float[Array, "*shape"]) -> Float[Array, ""]:
    """Compute the cosine distance ``1 - <a, b> / (||a|| ||b||)``, between 0 and 2.

    It is computed as ``||a / ||a|| - b / ||b|| ||^2 / 2``, which keeps its relative precision for nearly
    parallel maps, where 1 minus a rounded cosine would leave nothing.

    Args:
      a: attribution of the original sample.
      b: attribution of the perturbed sample.

    Returns:
      The distance; NaN if a map is zero, for it has no direction then, or so small (in
      float32 below 1.2e-35 times the root of the number of features) that parts of it were flushed to zero.

    Raises:
      TypeError: if a dtype is not a floating one.
      ValueError: if the shapes differ or the maps are empty.

    Example:
      >>> import jax.numpy as jnp
      >>> float(cosine_distance(jnp.array([1.0, 0.0]), jnp.array([0.0, 3.0])))
      1.0
    """
    a, b, defined = _units(*_check.two_maps(a, b))
    return jnp.where(defined, jnp.sum(jnp.square(a - b)) / 2, jnp.nan)


def cosine_similarity(a: Float[Array, "*shape"], b: Float[Array, "*shape"]) -> Float[Array, ""]:
    """Compute the cosine of the angle between the maps, ``<a, b> / (||a|| ||b||)``.

    It equals ``1 - cosine_distance(a, b)``, so it is never above 1.

    Args:
      a: attribution of the original sample.
      b: attribution of the perturbed sample.

    Returns:
      The similarity; NaN if a map is zero, for it has no direction then, or so small (in
      float32 below 1.2e-35 times the root of the number of features) that parts of it were flushed to zero.

    Raises:
      TypeError: if a dtype is not a floating one.
      ValueError: if the shapes differ or the maps are empty.

    Example:
      >>> import jax.numpy as jnp
      >>> float(cosine_similarity(jnp.array([1.0, 0.0]), jnp.array([-3.0, 0.0])))
      -1.0
    """
    return 1 - cosine_distance(a, b)


def degrees(a: Float[Array, "*shape"], b: Float[Array, "*shape"]) -> Float[Array, ""]:
    """Compute the angle between the maps in degrees, the unit of reported cosine bounds.

    For unit vectors u and v it is ``2 atan2(||u - v||, ||u + v||)`` (Kahan, "How futile are
    mindless assessments of roundoff", section 12), accurate at every angle. The arc cosine of a
    rounded cosine knows no angle between 0 and 0.02 degrees in float32.

    Args:
      a: attribution of the original sample.
      b: attribution of the perturbed sample.

    Returns:
      The angle, between 0 and 180; NaN if a map is zero, for it has no direction then, or so small (in
      float32 below 1.2e-35 times the root of the number of features) that parts of it were flushed to zero.

    Raises:
      TypeError: if a dtype is not a floating one.
      ValueError: if the shapes differ or the maps are empty.

    Example:
      >>> import jax.numpy as jnp
      >>> float(degrees(jnp.array([1.0, 0.0]), jnp.array([0.0, 3.0])))
      90.0
    """
    a, b, defined = _units(*_check.two_maps(a, b))
    # Avoid atan2(0, 0), whose derivative is undefined: both arguments are not zero for unit vectors.
    angle = 2 * jnp.arctan2(norm(a - b), jnp.where(defined, norm(a + b), 1))
    return jnp.where(defined, jnp.rad2deg(angle), jnp.nan)
