"""Define the result of a bound, and turn a Euclidean bound into a cosine bound (Wang and Kong 2023, Corollary 2)."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from jaxattr import _numerics
from jaxattr.balls import Ball, require


def cosine_from_euclidean(
    deviation: Float[Array, "..."], attribution_norm: Float[Array, "..."]
) -> tuple[Array, Array, Array]:
    """Bound the cosine distance and the angle by a Euclidean bound T (Wang and Kong 2023, Corollary 2, Eq. 10).

    If ``T <= ||g||`` the perturbed attribution lies in a ball that does not contain the origin, so that the angle is at
    most ``arcsin(T / ||g||)`` and the cosine distance at most ``1 - sqrt(1 - T^2 / ||g||^2)``. Otherwise it may point
    anywhere: the bound is *vacuous*, 180 degrees and cosine distance 2. (The paper does not say what it does with such
    samples; tables here show their share, the mean over the rest, and the mean with 180 degrees.)

    Args:
      deviation: T, the Euclidean bound.
      attribution_norm: ``||g(x)||_2``.

    Returns:
      ``(cosine, degrees, vacuous)``. A zero attribution has no direction: cosine and degrees are NaN, and ``vacuous``
      is set, as it is where T is NaN.

    Example:
      >>> import jax.numpy as jnp
      >>> import jaxattr as ja
      >>> cosine, degrees, vacuous = ja.bounds.cosine_from_euclidean(jnp.array([0.5, 3.0]), jnp.array([1.0, 1.0]))
      >>> degrees.round(1).tolist(), vacuous.tolist()
      ([30.0, 180.0], [False, True])
    """
    zero = attribution_norm <= 0
    sine = deviation / jnp.where(zero, 1, attribution_norm)
    vacuous = ~(sine <= 1) | zero
    # Treat the end points apart: their derivatives are infinite, and give NaN gradients even where not selected.
    inside = jnp.where(sine < 1, sine, 0)
    # This equals 1 - sqrt(1 - s^2), without the cancellation for small s.
    cosine = jnp.where(vacuous, 2, jnp.where(sine == 1, 1, inside**2 / (1 + jnp.sqrt(1 - inside**2))))
    degrees = jnp.where(vacuous, 180, jnp.where(sine == 1, 90, jnp.rad2deg(jnp.arcsin(inside))))
    undefined = zero | jnp.isnan(deviation) | jnp.isnan(attribution_norm)
    return jnp.where(undefined, jnp.nan, cosine), jnp.where(undefined, jnp.nan, degrees), vacuous


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class DeviationBound:
    """Upper bound of an attribution's deviation, with the perturbation that nearly attains it.

    Everything is exact for the linear model ``g(x + delta) = g(x) + J delta``, as in Wang and Kong 2023; how good that
    model is at the radius is measured by :func:`jaxattr.bounds.corrected`. The box of valid inputs counts only where a
    bound was built ``within_box``.

    *Rounding.* ``euclidean`` is computed in floating-point numbers and carries a slack for it of its own: ``4 sqrt(n)``
    units in the last place of the sums of n terms that it is made of (n is the number of features), and of the terms
    before they cancel where some do. ``euclidean_attained`` is the plain value, rounded on another path. Neither is
    ever moved to the other: if ``euclidean_attained`` is above ``euclidean``, a value of the network itself (a product
    with J) was off by more than this slack, and the bound is no better than that.

    *Not a number.* Where the sample, the attribution or a product with its Jacobian has a NaN, so is every value of the
    result, ``direction`` included, and ``vacuous`` is set.

    Attributes:
      euclidean: at least ``max ||J delta||_2`` over the ball, with probability ``confidence``.
      euclidean_attained: ``||J delta||_2`` at ``delta = epsilon * direction``, at most that maximum.
      cosine: bound of ``1 - cos(g(x), g(x + delta))``, from ``euclidean``; 2 where vacuous.
      degrees: bound of the angle; 180 where vacuous, NaN for a zero attribution.
      vacuous: whether ``euclidean`` exceeds the attribution's norm, so that it says nothing about the angle.
      direction: shaped like x; the perturbation is ``epsilon * direction``. Unit Euclidean norm for L2, signs for LInf
        (between them where the box is in the way).
      attribution_norm: ``||g(x)||_2``.
      slope: ``euclidean / epsilon``; it does not depend on the radius where the bound is ``two_sided``.
      epsilon: the radius.
      confidence: probability (over the key) with which ``euclidean`` holds; 1 where nothing is random.
      products: products with J or its transpose, one vector each, that the bound took.
      kinks: operations of the network that are not twice differentiable, 0 unless they were allowed: with any, the
        linear model has no slope to stand on and the bound holds for nothing but its own Jacobian.
      active: index into ``methods`` of the bound that gave ``euclidean``.
      methods: names of the bounds that were combined (static).
      two_sided: whether ``-direction`` is allowed, too, and the bound proportional to the radius (static): not so for a
        bound within the box.
    """

    euclidean: Array
    euclidean_attained: Array
    cosine: Array
    degrees: Array
    vacuous: Array
    direction: Array
    attribution_norm: Array
    slope: Array
    epsilon: Array
    confidence: Array
    products: Array
    kinks: Array
    active: Array
    methods: tuple[str, ...] = dataclasses.field(metadata={"static": True})
    two_sided: bool = dataclasses.field(metadata={"static": True})

    @classmethod
    def from_slope(
        cls,
        method: str,
        ball: Ball,
        *,
        sample: Array,
        value: Array,
        direction: Array,
        slope: Any,
        attained_slope: Any,
        confidence: Any,
        products: Any,
        two_sided: bool = True,
        kinks: int = 0,
    ) -> "DeviationBound":
        """Assemble a bound from its values per unit of epsilon.

        Args:
          method: name of the bound.
          ball: the threat model.
          sample: where the attribution was taken.
          value: the attribution.
          direction: perturbation per unit of epsilon.
          slope: upper value of ``max ||J d||`` over the unit ball.
          attained_slope: ``||J direction||``.
          confidence: probability with which ``slope`` holds.
          products: with J or its transpose.
          two_sided: whether the opposite direction is allowed, too.
          kinks: see :class:`DeviationBound`.
        """
        norm = _numerics.norm(value)
        epsilon = jnp.asarray(ball.epsilon, norm.dtype)
        slope, attained_slope = (jnp.asarray(each, norm.dtype) for each in (slope, attained_slope))
        # An infinite slope is still a valid upper value; an infinite map has no angle. The sample is checked too: a map
        # that ignores a feature does not show that the feature is NaN.
        sound = jnp.isfinite(norm) & ~jnp.isnan(slope + attained_slope) & jnp.isfinite(sample).all()
        norm, slope, attained_slope, direction = (
            jnp.where(sound, each, jnp.nan) for each in (norm, slope, attained_slope, direction)
        )
        cosine, degrees, vacuous = cosine_from_euclidean(epsilon * slope, norm)
        return cls(
            euclidean=epsilon * slope,
            euclidean_attained=epsilon * attained_slope,
            cosine=cosine,
            degrees=degrees,
            vacuous=vacuous,
            direction=direction,
            attribution_norm=norm,
            slope=slope,
            epsilon=epsilon,
            confidence=jnp.asarray(confidence, norm.dtype),
            products=jnp.asarray(products, jnp.int32),
            kinks=jnp.asarray(kinks, jnp.int32),
            active=jnp.zeros((), jnp.int32),
            methods=(method,),
            two_sided=two_sided,
        )


def require_ball(ball: Ball, kind: type[Ball], method: str, instead: str) -> Ball:
    """Raise ``TypeError`` if ``ball`` is not of the kind that the bound supports."""
    if not isinstance(require(ball), kind):
        given = type(ball).__name__
        raise TypeError(f"`{method}` bounds perturbations of {kind.__name__}, got {given}. For {given}: {instead}.")
    return ball


def require_result(result: Any, method: str, name: str) -> DeviationBound:
    """Raise ``TypeError`` if a bound returned something else than a :class:`DeviationBound`."""
    if not isinstance(result, DeviationBound):
        raise TypeError(
            f"`{name}` of `{method}` must return a DeviationBound, as `singular_value` does, but it returned"
            f" {type(result).__name__}."
        )
    return result
