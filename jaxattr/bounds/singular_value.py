"""Bound the deviation over a Euclidean ball by the largest singular value of J (Wang and Kong 2023, Theorem 1)."""

from jaxattr import _checks
from jaxattr._cost import times
from jaxattr._spec import described
from jaxattr.attribution import as_attribution
from jaxattr.balls import L2, Ball
from jaxattr.bounds._result import DeviationBound, require_ball
from jaxattr.bounds._sigma import Algorithm, SigmaOptions
from jaxattr.jacobian import attribution_jacobian
from jaxattr.method import Method
from jaxattr.programs.guard import Kinks
from jaxattr.types import AttributionFn


@described
def singular_value(
    attribute: AttributionFn,
    ball: Ball,
    *,
    method: Algorithm = "lanczos",
    num_steps: int = 40,
    confidence: float = 0.999,
    tolerance: float = 0.01,
    chunk: int | None = 32,
    linearize: bool = True,
    kinks: Kinks = "refuse",
) -> Method[DeviationBound]:
    """Bound the deviation over a Euclidean ball.

        T_e = sigma_max(J) * epsilon

    The bound is attained, in the linear model, at plus and minus ``epsilon`` times the top right singular vector. The
    same value holds where the label has to stay, since one of the two keeps it.

    ``lanczos`` needs products with J only (at most ``num_steps + 1`` for a symmetric J; for another, by Golub-Kahan,
    ``2 * num_steps + 1``). A Krylov method reaches sigma_max from below; ``euclidean`` is therefore the upper value of
    :func:`jaxattr.spectral.largest_singular_value`, which holds with probability ``confidence`` over the key, and
    ``euclidean_attained`` the lower one: an estimate from below that has not converged would look like a violation of
    linearity. ``dense`` forms J; there both are equal up to a stated rounding, and nothing is random.

    Args:
      attribute: ``(logits_fn, x, label) -> map``.
      ball: an :class:`~jaxattr.L2`.
      method: ``lanczos`` or ``dense``.
      num_steps: Lanczos steps at most.
      confidence: probability with which the upper value holds.
      tolerance: the run ends when ``euclidean / euclidean_attained - 1`` is no more; 0 makes all steps. It costs no
        confidence.
      chunk: columns of J evaluated at once (``dense``).
      linearize: see :func:`jaxattr.attribution_jacobian`.
      kinks: what to do with a network that is not twice differentiable; see :func:`jaxattr.attribution_jacobian`.

    Returns:
      ``bound(logits_fn, x, label, key) -> DeviationBound``; ``dense`` needs no key. ``euclidean`` carries ``4
      sqrt(d)`` units in the last place for rounding.

    Raises:
      TypeError: if the ball is not an ``L2`` or the attribution no function.
      ValueError: if an option is out of range; on call, if x lies outside of the ball's box, the label or a shape does
        not fit, or the network has kinks.

    References:
      Wang and Kong 2023, Theorem 1 and, for the label, Section 4.3.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> import jaxattr as ja
      >>> logits_fn = lambda x: jnp.stack([x @ jnp.diag(jnp.array([1.0, 2.0])) @ x, 0.0])
      >>> bound = ja.bounds.singular_value(ja.attributions.saliency(), ja.L2(0.1), method="dense")
      >>> round(float(bound(logits_fn, jnp.array([0.5, 0.5]), 0).euclidean), 6)
      0.4
    """
    attribute = as_attribution(attribute)
    require_ball(ball, L2, "singular_value", "`norm_relaxation`, `entrywise` or `smallest` of both")
    options = SigmaOptions.checked(method, num_steps, confidence, tolerance, chunk, linearize)

    def bound(logits_fn, x, label, key):
        x = _checks.sample(x)
        jacobian = attribution_jacobian(
            attribute, logits_fn, x, label, linearize=options.linearize, kinks=kinks, method="singular_value"
        )
        sigma = options.solve(jacobian, key)
        return DeviationBound.from_slope(
            "singular_value",
            ball,
            sample=x,
            value=jacobian.value,
            direction=sigma.direction,
            slope=sigma.upper,
            attained_slope=sigma.attained,
            confidence=sigma.confidence,
            products=sigma.products,
            kinks=jacobian.kinks,
        )

    def gradients(size):
        return times(2 * options.products(size, attribute.symmetric), attribute.gradients)

    return Method("singular_value", bound, ball, needs_key=options.needs_key, gradients=gradients)
