"""Bound the l-infinity deviation by that over the enclosing Euclidean ball (Wang and Kong 2023, Corollary 1)."""

import jax.numpy as jnp

from jaxattr import _checks, _numerics
from jaxattr._cost import times
from jaxattr._spec import described
from jaxattr.attribution import as_attribution
from jaxattr.balls import Ball, LInf
from jaxattr.bounds._result import DeviationBound, require_ball
from jaxattr.bounds._sigma import Algorithm, SigmaOptions
from jaxattr.bounds._sign_form import SignForm, ascend_signs
from jaxattr.jacobian import attribution_jacobian
from jaxattr.method import Method
from jaxattr.programs.guard import Kinks
from jaxattr.types import AttributionFn


@described
def norm_relaxation(
    attribute: AttributionFn,
    ball: Ball,
    *,
    within_box: bool = False,
    method: Algorithm = "lanczos",
    num_steps: int = 40,
    confidence: float = 0.999,
    tolerance: float = 0.01,
    corner_steps: int = 10,
    chunk: int | None = 32,
    linearize: bool = True,
    kinks: Kinks = "refuse",
) -> Method[DeviationBound]:
    """Bound the deviation over an l-infinity ball by the largest singular value.

        T_e = sqrt(d) * sigma_max(J) * epsilon

    From ``||delta||_2 <= sqrt(d) ||delta||_inf``. It needs products with J only and is loose: by a factor of 28 at
    most for 784 features. The sum of :func:`~jaxattr.bounds.entrywise` is usually smaller, but not always;
    :func:`~jaxattr.bounds.smallest` takes the smaller one. The optimum of :func:`~jaxattr.bounds.semidefinite` is below
    both.

    Within the box, with center c and half-width h of every coordinate's interval (:meth:`jaxattr.LInf.interval`), two
    triangle inequalities are at hand and the smaller one counts: ``min(|| |c| + h || sigma_max, ||J c|| + ||h||
    sigma_max)``. The first is the corollary with the longest step that the box admits.

    Args:
      attribute: ``(logits_fn, x, label) -> map``.
      ball: an :class:`~jaxattr.LInf`.
      within_box: use that ``x + delta`` stays in the ball's box.
      method: how sigma_max is found, ``lanczos`` or ``dense``; see :func:`~jaxattr.bounds.singular_value`.
      num_steps: Lanczos steps at most.
      confidence: probability with which the upper value holds (``lanczos``).
      tolerance: see :func:`~jaxattr.bounds.singular_value`.
      corner_steps: steps of the sign iteration behind ``euclidean_attained``.
      chunk: columns of J evaluated at once (``dense``).
      linearize: see :func:`jaxattr.attribution_jacobian`.
      kinks: what to do with a network that is not twice differentiable; see :func:`jaxattr.attribution_jacobian`.

    Returns:
      ``bound(logits_fn, x, label, key) -> DeviationBound``; ``dense`` needs no key. ``euclidean`` carries ``8
      sqrt(d)`` units in the last place for rounding.

    Raises:
      TypeError: if the ball is not an ``LInf`` or the attribution no function.
      ValueError: as :func:`~jaxattr.bounds.singular_value`.

    References:
      Wang and Kong 2023, Corollary 1.

    Example:
      >>> import jax.numpy as jnp
      >>> import jaxattr as ja
      >>> logits_fn = lambda x: jnp.stack([x @ x / 2, 0.0])
      >>> bound = ja.bounds.norm_relaxation(ja.attributions.saliency(), ja.LInf(0.1), method="dense")
      >>> round(float(bound(logits_fn, jnp.full(4, 0.5), 0).euclidean), 6)
      0.2
    """
    attribute = as_attribution(attribute)
    require_ball(ball, LInf, "norm_relaxation", "`singular_value`")
    options = SigmaOptions.checked(method, num_steps, confidence, tolerance, chunk, linearize)
    _checks.positive_int("corner_steps", corner_steps)

    def bound(logits_fn, x, label, key):
        x = _checks.sample(x)
        jacobian = attribution_jacobian(
            attribute, logits_fn, x, label, linearize=options.linearize, kinks=kinks, method="norm_relaxation"
        )
        sigma = options.solve(jacobian, key)
        form = SignForm.of(jacobian, ball, x, within_box)
        start, dtype = sigma.direction.ravel(), sigma.direction.dtype
        if form.center is None or form.half_width is None:
            slope, extra = jnp.sqrt(jnp.asarray(x.size, dtype)) * sigma.upper, 0
        else:
            start = jnp.append(start, 1.0).astype(dtype)
            longest = _numerics.norm(jnp.abs(form.center) + form.half_width)
            center = _numerics.norm(jacobian.matvec(form.center))
            slope = jnp.minimum(longest * sigma.upper, center + _numerics.norm(form.half_width) * sigma.upper)
            extra = 1
        signs = ascend_signs(form.gram, start, corner_steps)
        return DeviationBound.from_slope(
            "norm_relaxation",
            ball,
            sample=x,
            value=jacobian.value,
            direction=form.direction(signs),
            # Allow for the rounding of sums at corners: sigma allows for that at its own direction only.
            slope=slope * (1 + _numerics.rounding(form.size, dtype)),
            attained_slope=_numerics.norm(form.matvec(signs)),
            confidence=sigma.confidence,
            products=sigma.products + 2 * corner_steps + 1 + extra,
            two_sided=not within_box,
            kinks=jacobian.kinks,
        )

    def gradients(size):
        # One product more is of the center of the box.
        products = options.products(size, attribute.symmetric) + 2 * corner_steps + 1 + within_box
        return times(2 * products, attribute.gradients)

    return Method("norm_relaxation", bound, ball, needs_key=options.needs_key, gradients=gradients)
