"""Bound the l-infinity deviation by the sum of the absolute entries of P (Wang and Kong 2023, Theorem 2)."""

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from jaxattr import _checks, _numerics
from jaxattr._chunking import map_over
from jaxattr._cost import times
from jaxattr._spec import described
from jaxattr.attribution import as_attribution
from jaxattr.balls import Ball, LInf
from jaxattr.bounds._result import DeviationBound, require_ball
from jaxattr.bounds._sign_form import SignForm, ascend_signs
from jaxattr.jacobian import attribution_jacobian
from jaxattr.method import Method
from jaxattr.programs.guard import Kinks
from jaxattr.types import AttributionFn


@described
def entrywise(
    attribute: AttributionFn,
    ball: Ball,
    *,
    within_box: bool = False,
    chunk: int | None = 32,
    corner_steps: int = 30,
    corner_starts: int = 8,
    linearize: bool = True,
    kinks: Kinks = "refuse",
) -> Method[DeviationBound]:
    """Bound the deviation over an l-infinity ball by the entries of P.

        T_e = epsilon * sqrt(sum_ij |P_ij|)

    ``P = J^T J`` (``H H^T`` with ``H = J^T`` in Wang and Kong 2023) from a dense J: at most d products, see
    :meth:`jaxattr.AttributionJacobian.dense`. P itself is never held, only ``chunk`` of its columns.
    Two claims of theirs do not hold in general: equality (it needs signs with ``s_i s_j P_ij = |P_ij|`` for all
    pairs; the corners are not all maximizers), and being tighter than :func:`~jaxattr.bounds.norm_relaxation` (for ``P
    = 3 I - ones`` in three dimensions 12 against 9, the maximum being 8). Take :func:`~jaxattr.bounds.smallest` of
    both, or :func:`~jaxattr.bounds.semidefinite`, whose optimum is below both.

    Within the box, P is that of ``[J diag(h), J c]`` (:mod:`jaxattr.bounds._sign_form`): never a larger bound, since
    ``h_i + |c_i| <= epsilon``.

    Args:
      attribute: ``(logits_fn, x, label) -> map``.
      ball: an :class:`~jaxattr.LInf`.
      within_box: use that ``x + delta`` stays in the ball's box.
      chunk: rows or columns of J, and columns of P, evaluated at once.
      corner_steps: steps of the sign iteration behind ``euclidean_attained``.
      corner_starts: how many corners it starts from: the signs of ``P 1``, and random ones.
      linearize: see :func:`jaxattr.attribution_jacobian`.
      kinks: what to do with a network that is not twice differentiable; see :func:`jaxattr.attribution_jacobian`.

    Returns:
      ``bound(logits_fn, x, label, key) -> DeviationBound``; the key matters for ``euclidean_attained`` only.
      ``euclidean`` carries ``4 sqrt(d)`` units in the last place for rounding.

    Raises:
      TypeError: if the ball is not an ``LInf`` or the attribution no function.
      ValueError: if an option is below 1; on call as :func:`~jaxattr.bounds.singular_value`.

    References:
      Wang and Kong 2023, Theorem 2.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> import jaxattr as ja
      >>> logits_fn = lambda x: jnp.stack([x @ x / 2, 0.0])
      >>> bound = ja.bounds.entrywise(ja.attributions.saliency(), ja.LInf(0.1))
      >>> round(float(bound(logits_fn, jnp.full(4, 0.5), 0, jax.random.key(0)).euclidean), 6)
      0.2
    """
    attribute = as_attribution(attribute)
    require_ball(ball, LInf, "entrywise", "`singular_value`")
    if chunk is not None:
        _checks.positive_int("chunk", chunk)
    _checks.positive_int("corner_steps", corner_steps)
    _checks.positive_int("corner_starts", corner_starts)

    def bound(logits_fn, x, label, key):
        x = _checks.sample(x)
        jacobian = attribution_jacobian(
            attribute, logits_fn, x, label, linearize=linearize, kinks=kinks, method="entrywise"
        )
        form = SignForm.of(jacobian, ball, x, within_box)
        dense = form.dense(chunk)
        # P squares J: without this scale, entries of 1e-22 would give a bound of zero in float32.
        largest = jnp.max(jnp.abs(dense))
        scale = jnp.where(largest > 0, largest, 1)
        dense = dense / scale
        with jax.default_matmul_precision("highest"):
            total = jnp.sum(absolute_row_sums(dense, chunk))
            starts = jax.random.normal(key, (corner_starts, form.size), dense.dtype)
            starts = starts.at[0].set(jnp.sum(dense, axis=1) @ dense)
            signs = ascend_signs(lambda rows: (rows @ dense.T) @ dense, starts, corner_steps)
            values = jnp.linalg.norm(signs @ dense.T, axis=1)
        best = jnp.argmax(values)
        return DeviationBound.from_slope(
            "entrywise",
            ball,
            sample=x,
            value=jacobian.value,
            direction=form.direction(signs[best]),
            slope=scale * jnp.sqrt(total) * (1 + _numerics.rounding(form.size, dense.dtype)),
            attained_slope=scale * values[best],
            confidence=1.0,
            products=jacobian.dense_products(),
            two_sided=not within_box,
            kinks=jacobian.kinks,
        )

    return Method("entrywise", bound, ball, gradients=lambda size: times(2 * size, attribute.gradients))


def absolute_row_sums(matrix: Float[Array, "m n"], chunk: int | None) -> Float[Array, " n"]:
    """Return ``sum_j |P_ij|`` for ``P = B^T B``, holding ``chunk`` columns of P at a time."""
    return map_over(lambda column: jnp.sum(jnp.abs(column @ matrix)), matrix.T, chunk)
