"""Corollary 1 of paper 000: the l-infinity ball inside of a Euclidean one."""

import math

from jaxattr import _checks, _numerics
from jaxattr.balls import Ball, LInf, OverBall
from jaxattr.bounds.corners import ascend_signs
from jaxattr.bounds.result import DeviationBound, require_ball
from jaxattr.bounds.singular_value import Method, SigmaOptions
from jaxattr.jacobian import attribution_jacobian
from jaxattr.types import Attribution, Bound


def norm_relaxation(
    attribute: Attribution,
    ball: Ball,
    *,
    method: Method = "lanczos",
    num_steps: int = 40,
    confidence: float = 0.999,
    corner_steps: int = 10,
    chunk: int | None = 32,
    linearize: bool = True,
) -> Bound:
    """Bound the deviation over an l-infinity ball: ``T_e = sqrt(d) * sigma_max(J) * epsilon`` (paper 000, Corollary 1).

    From ``||delta||_2 <= sqrt(d) ||delta||_inf``. It needs products with J only and is loose: by a factor of 28 at
    most for 784 features. Theorem 2 (:func:`~jaxattr.bounds.entrywise`) is usually smaller, but not always;
    :func:`~jaxattr.bounds.smallest` takes the smaller one.

    Args:
      attribute: ``(logits_fn, x, label) -> map``.
      ball: an :class:`~jaxattr.LInf`.
      method: how sigma_max is found, ``lanczos`` or ``dense``; see :func:`~jaxattr.bounds.singular_value`.
      num_steps: Lanczos steps.
      confidence: probability with which the upper value holds (``lanczos``).
      corner_steps: steps of the sign iteration behind ``euclidean_attained``.
      chunk: columns of J evaluated at once (``dense``).
      linearize: see :func:`jaxattr.attribution_jacobian`.

    Returns:
      ``bound(logits_fn, x, label, key) -> DeviationBound``.

    Raises:
      TypeError: if the ball is not an ``LInf``.
      ValueError: as :func:`~jaxattr.bounds.singular_value`.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> import jaxattr as ja
      >>> logits_fn = lambda x: jnp.stack([x @ x / 2, 0.0])
      >>> bound = ja.bounds.norm_relaxation(ja.attributions.saliency(), ja.LInf(0.1), method="dense")
      >>> round(float(bound(logits_fn, jnp.full(4, 0.5), 0, jax.random.key(0)).euclidean), 6)
      0.2
    """
    require_ball(ball, LInf, "norm_relaxation", "`singular_value`")
    options = SigmaOptions.checked(method, num_steps, confidence, chunk, linearize)
    _checks.positive_int("corner_steps", corner_steps)

    def bound(logits_fn, x, label, key):
        x = _checks.sample(x)
        jacobian = attribution_jacobian(attribute, logits_fn, x, label, linearize=options.linearize)
        sigma = options.solve(jacobian, key)
        signs = ascend_signs(jacobian.gram, sigma.direction, corner_steps)
        attained = _numerics.norm(jacobian.matvec(signs))
        return DeviationBound.from_slope(
            "norm_relaxation",
            ball,
            value=jacobian.value,
            direction=signs,
            slope=math.sqrt(x.size) * sigma.upper,
            attained_slope=attained,
            confidence=sigma.confidence,
        )

    return OverBall(bound, ball)
