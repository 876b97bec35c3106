"""Measure the linear model's error at the radius: adaptive constant (Wang and Kong 2023, Eq. 11), Taylor remainder."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jaxattr import _checks, _numerics
from jaxattr._cost import gradients_of, times, total
from jaxattr._spec import described
from jaxattr.attribution import as_attribution
from jaxattr.bounds._result import DeviationBound, cosine_from_euclidean, require_result
from jaxattr.method import Calling, Method
from jaxattr.programs import guard
from jaxattr.programs.guard import Kinks
from jaxattr.types import AttributionFn, Bound


class CorrectedBound(NamedTuple):
    """A bound multiplied by the adaptive constant, which compares it with the network's deviation along its direction.

    Attributes:
      bound: the :class:`DeviationBound` it starts from.
      constant: c, the larger of 1 and the deviation at ``x +- epsilon * direction`` over ``bound.euclidean`` (at +
        alone for a bound within the box, whose opposite direction leaves it).
      constant_plus: the same with ``+direction`` alone, as the paper prints it (the sign of a singular vector is
        arbitrary, so that this one is, too).
      euclidean: ``T'_e = c * T_e``.
      cosine: Corollary 2 of ``T'_e``.
      degrees: as an angle.
      vacuous: whether ``T'_e`` exceeds the attribution's norm.
      remainder: ``||g(x +- epsilon v) - g(x) -+ epsilon J v|| / ||epsilon J v||``, the larger one; 0 where both vanish.
        A ratio, as the constants are: the same for a map of size 1e-30.
    """

    bound: DeviationBound
    constant: Array
    constant_plus: Array
    euclidean: Array
    cosine: Array
    degrees: Array
    vacuous: Array
    remainder: Array


@described
def corrected(bound: Bound, attribute: AttributionFn, *, kinks: Kinks = "refuse") -> Method[CorrectedBound]:
    """Multiply a bound by the constant measured along its direction, ``T'_e = c * T_e`` (Wang and Kong 2023, Eq. 11).

        c = max{1, ||g(x + epsilon v) - g(x)|| / T_e,  ||g(x - epsilon v) - g(x)|| / T_e}

    with v the bound's direction. An empirical repair, not a bound: another direction may deviate more. Deviations from
    the paper: the larger of +v and -v is taken, and for l-infinity balls too (with the sign corner; the paper reports
    none there). Points ``x +- epsilon v`` are not clipped to the box, as the linear model does not know it either.

    Args:
      bound: ``(logits_fn, x, label, key) -> DeviationBound``.
      attribute: the attribution that is bounded.
      kinks: what to do with a network that is not twice differentiable; see :func:`jaxattr.attribution_jacobian`. The
        bound has an option of the same name.

    Returns:
      ``(logits_fn, x, label, key) -> CorrectedBound``.

    Raises:
      TypeError: if ``bound`` is no bound (the order is that of this signature) or ``attribute`` no attribution; on
        call, if ``bound`` returns something else than a :class:`DeviationBound`.
      ValueError: on call, if the network has kinks, or as the bound.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> import jaxattr as ja
      >>> logits_fn = lambda x: jnp.stack([x[0] ** 3, 0.0])  # g = 3 x^2, J = 6 x
      >>> saliency = ja.attributions.saliency()
      >>> bound = ja.bounds.corrected(ja.bounds.singular_value(saliency, ja.L2(0.1)), saliency)
      >>> result = jax.jit(bound, static_argnums=0)(logits_fn, jnp.array([0.5]), 0, jax.random.key(0))
      >>> round(float(result.constant), 3), round(float(result.remainder), 3)  # 3 (0.6^2 - 0.5^2) / (6 * 0.5 * 0.1)
      (1.1, 0.1)
    """
    if isinstance(attribute, Method) and not isinstance(bound, Method):
        raise TypeError(
            f"`corrected` takes the bound first and then the attribution, got them the other way round: write"
            f" `corrected({attribute.name}(...), attribute)`."
        )
    _checks.bound(bound)
    attribute = as_attribution(attribute)

    def correct(logits_fn, x, label, key):
        x = _checks.sample(x)
        guard.check(attribute, logits_fn, x, kinks, method="corrected")
        base = require_result(Calling(bound).call(bound, logits_fn, x, label, key), "corrected", "bound")

        def mapped(z):
            return _checks.attribution_map(attribute(logits_fn, z, label), x).astype(x.dtype)

        # The linear prediction takes one more product with J, at the direction that the bound reports.
        step = base.epsilon.astype(x.dtype) * base.direction
        # Run at the highest precision, as the bound does: reduced precision would pass for a Taylor remainder.
        with jax.default_matmul_precision("highest"):
            value, predicted = jax.jvp(mapped, (x,), (step,))
            signs = (1, -1) if base.two_sided else (1,)
            points = jnp.stack([x + sign * step for sign in signs])
            moved = jax.vmap(mapped)(points) - value
        # A map that does not depend on x has deviation 0; report NaN all the same where the bound is NaN.
        moved = jnp.where(jnp.isnan(base.euclidean), jnp.nan, moved)
        deviation = jax.vmap(_numerics.norm)(moved)
        expected = jnp.stack([sign * predicted for sign in signs])
        gap = jax.vmap(_numerics.norm)(moved - expected)

        # Two evaluations of the same map differ by rounding, which does not count as a deviation.
        rounding = 8 * jnp.finfo(x.dtype).eps * base.attribution_norm
        deviation, gap = (jnp.where(moves <= rounding, 0, moves) for moves in (deviation, gap))

        def ratio(numerator, denominator):
            zero = denominator <= 0
            return jnp.where(
                zero, jnp.where(numerator > 0, jnp.inf, numerator), numerator / jnp.where(zero, 1, denominator)
            )

        constants = jnp.maximum(1, ratio(deviation, base.euclidean))
        # Take the maximum without forming c * T_e, which is infinity times zero where the linear model does not move.
        euclidean = jnp.maximum(base.euclidean, jnp.max(deviation))
        cosine, degrees, vacuous = cosine_from_euclidean(euclidean, base.attribution_norm)
        return CorrectedBound(
            bound=base,
            constant=jnp.max(constants),
            constant_plus=constants[0],
            euclidean=euclidean,
            cosine=cosine,
            degrees=degrees,
            vacuous=vacuous,
            remainder=jnp.max(ratio(gap, _numerics.norm(predicted))),
        )

    def gradients(size):
        # One product with J and the maps at two points.
        return total([gradients_of(bound, size), times(4, attribute.gradients)])

    ball = getattr(bound, "ball", None)
    return Method("corrected", correct, ball, needs_key=Calling(bound).required, gradients=gradients)
