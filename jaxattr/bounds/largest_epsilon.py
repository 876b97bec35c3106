"""Invert a bound: find the largest radius at which it still excludes a given deviation or angle."""

from typing import Any

import jax.numpy as jnp
from jax import Array

from jaxattr import _checks
from jaxattr.bounds._result import DeviationBound


def largest_epsilon(
    bound: DeviationBound, *, euclidean: Any = None, cosine: Any = None, degrees: Any = None, constant: Any = 1.0
) -> Array:
    """Find the largest epsilon whose bound stays within a wanted deviation (Wang and Kong 2023, Section 3, Appendix E).

    All bounds over a whole ball are ``slope * epsilon``, so that ``epsilon = T / slope`` with ``T = euclidean``, or for
    an angle ``T = ||g|| sin(degrees)``, or for a cosine distance ``T = ||g|| sqrt(1 - (1 - cosine)^2)`` (Corollary 2
    inverted, which ends at 90 degrees). It needs no new bound: one :class:`DeviationBound` at any radius serves all.

    Args:
      bound: from any of the bounds, batched or not.
      euclidean: wanted Euclidean deviation, at least 0; or
      cosine: wanted cosine distance, in [0, 1]; or
      degrees: wanted angle, in [0, 90].
      constant: the factor c of Eq. 11, if the corrected bound is meant. It depends on epsilon itself.

    Returns:
      The radius, shaped like the bound's values; infinite where the linear model does not move; NaN for an angle of a
      zero attribution, and where the network has kinks (``bound.kinks``): the slope of a saliency between kinks is 0,
      and "any radius" would be false.

    Raises:
      ValueError: if not exactly one target is given, it is out of range, or the bound is one within the box or the
        label region, which is not proportional to the radius.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> import jaxattr as ja
      >>> logits_fn = lambda x: jnp.stack([x @ x, 0.0])  # sigma_max = 2
      >>> bound = ja.bounds.singular_value(ja.attributions.saliency(), ja.L2(0.1), method="dense")
      >>> result = bound(logits_fn, jnp.full(4, 0.5), 0, jax.random.key(0))
      >>> round(float(ja.bounds.largest_epsilon(result, euclidean=0.5)), 4)
      0.25
    """
    if not bound.two_sided:
        raise ValueError(
            f"`bound` ({', '.join(bound.methods)}) is not proportional to the radius: it is `within_box`, or of the"
            " perturbations that keep the label. Accepted are bounds over a whole ball; evaluate others at several"
            " radii, for instance by `jax.vmap` over epsilon."
        )
    targets = {"euclidean": euclidean, "cosine": cosine, "degrees": degrees}
    given = {name: jnp.asarray(value) for name, value in targets.items() if value is not None}
    if len(given) != 1:
        raise ValueError(f"give exactly one of `euclidean`, `cosine` and `degrees`, got {sorted(given) or 'none'}.")
    ((name, value),) = given.items()
    top = {"euclidean": jnp.inf, "cosine": 1.0, "degrees": 90.0}[name]
    if _checks.is_concrete(value) and bool(jnp.any(~((value >= 0) & (value <= top)))):
        raise ValueError(f"`{name}` must be between 0 and {top:g}, got {value}. Beyond that Corollary 2 says nothing.")
    if name == "euclidean":
        deviation = value
    elif name == "cosine":
        deviation = bound.attribution_norm * jnp.sqrt(value * (2 - value))
    else:
        deviation = bound.attribution_norm * jnp.sin(jnp.deg2rad(value))
    slope = constant * bound.slope
    if name != "euclidean":
        # A zero attribution has no direction, so that no angle is defined.
        deviation = jnp.where(bound.attribution_norm > 0, deviation, jnp.nan)
    unknown = jnp.isnan(slope + deviation) | (bound.kinks > 0)
    radius = deviation / jnp.where(slope > 0, slope, 1)
    return jnp.where(unknown, jnp.nan, jnp.where(slope > 0, radius, jnp.inf))
