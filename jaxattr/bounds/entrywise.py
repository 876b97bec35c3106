"""Theorem 2 of paper 000: the sum of the absolute entries of P."""

import jax
import jax.numpy as jnp

from jaxattr import _checks
from jaxattr.balls import Ball, LInf, OverBall
from jaxattr.bounds.corners import ascend_signs
from jaxattr.bounds.result import DeviationBound, require_ball
from jaxattr.jacobian import attribution_jacobian
from jaxattr.types import Attribution, Bound


def entrywise(
    attribute: Attribution,
    ball: Ball,
    *,
    chunk: int | None = 32,
    corner_steps: int = 30,
    corner_starts: int = 8,
    linearize: bool = True,
) -> Bound:
    """Bound the deviation over an l-infinity ball: ``T_e = epsilon * sqrt(sum_ij |P_ij|)`` (paper 000, Theorem 2).

    ``P = J^T J`` (the paper's ``H H^T`` with ``H = J^T``), formed densely: d products with J and one d x d product.
    Two claims of the paper do not hold in general: equality (it needs signs with ``s_i s_j P_ij = |P_ij|`` for all
    pairs; the corners are not all maximizers), and being tighter than Corollary 1 (for ``P = 3 I - ones`` in three
    dimensions 12 against 9, the maximum being 8). Take :func:`~jaxattr.bounds.smallest` of both.

    Args:
      attribute: ``(logits_fn, x, label) -> map``.
      ball: an :class:`~jaxattr.LInf`.
      chunk: columns of J evaluated at once.
      corner_steps: steps of the sign iteration behind ``euclidean_attained``.
      corner_starts: how many corners it starts from: the signs of P's row sums, and random ones.
      linearize: see :func:`jaxattr.attribution_jacobian`.

    Returns:
      ``bound(logits_fn, x, label, key) -> DeviationBound``; the key matters for ``euclidean_attained`` only.

    Raises:
      TypeError: if the ball is not an ``LInf``.
      ValueError: if an option is below 1; on call as :func:`~jaxattr.bounds.singular_value`.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> import jaxattr as ja
      >>> logits_fn = lambda x: jnp.stack([x @ x / 2, 0.0])
      >>> bound = ja.bounds.entrywise(ja.attributions.saliency(), ja.LInf(0.1))
      >>> round(float(bound(logits_fn, jnp.full(4, 0.5), 0, jax.random.key(0)).euclidean), 6)
      0.2
    """
    require_ball(ball, LInf, "entrywise", "`singular_value`")
    if chunk is not None:
        _checks.positive_int("chunk", chunk)
    _checks.positive_int("corner_steps", corner_steps)
    _checks.positive_int("corner_starts", corner_starts)

    def bound(logits_fn, x, label, key):
        x = _checks.sample(x)
        jacobian = attribution_jacobian(attribute, logits_fn, x, label, linearize=linearize)
        dense = jacobian.dense(chunk)
        # P squares J: without a scale, entries of 1e-22 would become a bound of zero in float32.
        largest = jnp.max(jnp.abs(dense))
        scale = jnp.where(largest > 0, largest, 1)
        dense = dense / scale
        with jax.default_matmul_precision("highest"):
            gram = dense.T @ dense
            starts = jax.random.normal(key, (corner_starts, x.size), x.dtype).at[0].set(jnp.sum(gram, axis=0))
            signs = ascend_signs(lambda rows: rows @ gram, starts, corner_steps)
            values = jnp.linalg.norm(signs @ dense.T, axis=1)
        best = jnp.argmax(values)
        return DeviationBound.from_slope(
            "entrywise",
            ball,
            value=jacobian.value,
            direction=signs[best].reshape(x.shape),
            slope=scale * jnp.sqrt(jnp.sum(jnp.abs(gram))),
            attained_slope=scale * values[best],
            confidence=1.0,
        )

    return OverBall(bound, ball)
