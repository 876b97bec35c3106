"""Theorem 1 of paper 000: the Euclidean ball, and the largest singular value."""

from typing import Literal, NamedTuple, get_args

import jax.numpy as jnp
from jax import Array

from jaxattr import _checks, _numerics, spectral
from jaxattr.balls import L2, Ball
from jaxattr.bounds.result import DeviationBound, require_ball
from jaxattr.jacobian import AttributionJacobian, attribution_jacobian
from jaxattr.method import Method
from jaxattr.types import Attribution, Bound

Algorithm = Literal["lanczos", "dense"]


class SigmaOptions(NamedTuple):
    """How the largest singular value is found; shared by the bounds that need it."""

    method: Algorithm
    num_steps: int
    confidence: float
    chunk: int | None
    linearize: bool

    @classmethod
    def checked(cls, method, num_steps, confidence, chunk, linearize) -> "SigmaOptions":
        """Options that have been looked at once, when the bound is built."""
        _checks.choice("method", method, get_args(Algorithm))
        _checks.positive_int("num_steps", num_steps)
        _checks.probability("confidence", confidence)
        if chunk is not None:
            _checks.positive_int("chunk", chunk)
        return cls(method, num_steps, confidence, chunk, linearize)

    def solve(self, jacobian: AttributionJacobian, key: Array) -> spectral.Extreme:
        """Largest singular value of J with its right singular vector."""
        shape, dtype = jacobian.value.shape, jacobian.value.dtype
        if self.method == "lanczos":
            return spectral.largest_singular_value(
                jacobian.matvec,
                jacobian.rmatvec,
                shape,
                key,
                symmetric=jacobian.symmetric,
                num_steps=self.num_steps,
                confidence=self.confidence,
                dtype=dtype,
            )
        value, vector = _numerics.largest_svd(jacobian.dense(self.chunk))
        one, zero = jnp.ones((), dtype), jnp.zeros((), dtype)
        return spectral.Extreme(value, value, vector.reshape(shape), zero, one, jacobian.dense_products())


def singular_value(
    attribute: Attribution,
    ball: Ball,
    *,
    method: Algorithm = "lanczos",
    num_steps: int = 40,
    confidence: float = 0.999,
    chunk: int | None = 32,
    linearize: bool = True,
) -> Bound:
    """Bound the deviation over a Euclidean ball: ``T_e = sigma_max(J) * epsilon`` (paper 000, Theorem 1).

    The bound is attained, in the linear model, at plus and minus ``epsilon`` times the top right singular vector. The
    same value holds with the label constraint of paper 000 (Section 4.3), since one of the two keeps the label.

    ``lanczos`` needs products with J only (``num_steps + 1`` for a symmetric J; for another, by Golub-Kahan, ``2 *
    num_steps + 1``). A Krylov method reaches sigma_max from below; ``euclidean`` is therefore the upper value of
    :func:`jaxattr.spectral.largest_singular_value`, which holds with probability ``confidence`` over the key, and
    ``euclidean_attained`` the lower one. (Paper 000 uses an estimate, which makes a bound that has not converged look
    like a violation of linearity.) ``dense`` forms J and has both equal.

    Args:
      attribute: ``(logits_fn, x, label) -> map``.
      ball: an :class:`~jaxattr.L2`.
      method: ``lanczos`` or ``dense``.
      num_steps: Lanczos steps.
      confidence: probability with which the upper value holds.
      chunk: columns of J evaluated at once (``dense``).
      linearize: see :func:`jaxattr.attribution_jacobian`.

    Returns:
      ``bound(logits_fn, x, label, key) -> DeviationBound``.

    Raises:
      TypeError: if the ball is not an ``L2``.
      ValueError: if an option is out of range; on call, if x lies outside of the ball's box, or the label or a shape
        does not fit.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> import jaxattr as ja
      >>> logits_fn = lambda x: jnp.stack([x @ jnp.diag(jnp.array([1.0, 2.0])) @ x, 0.0])
      >>> bound = ja.bounds.singular_value(ja.attributions.saliency(), ja.L2(0.1), method="dense")
      >>> round(float(bound(logits_fn, jnp.array([0.5, 0.5]), 0, jax.random.key(0)).euclidean), 6)
      0.4
    """
    require_ball(ball, L2, "singular_value", "`norm_relaxation`, `entrywise` or `smallest` of both")
    options = SigmaOptions.checked(method, num_steps, confidence, chunk, linearize)

    def bound(logits_fn, x, label, key):
        x = _checks.sample(x)
        jacobian = attribution_jacobian(attribute, logits_fn, x, label, linearize=options.linearize)
        sigma = options.solve(jacobian, key)
        return DeviationBound.from_slope(
            "singular_value",
            ball,
            value=jacobian.value,
            direction=sigma.direction,
            slope=sigma.upper,
            attained_slope=sigma.attained,
            confidence=sigma.confidence,
            products=sigma.products,
        )

    return Method("singular_value", bound, ball)
