"""Write the l-infinity problem as one over signs: ``max ||B s||`` over s in {-1, 1}^n, with or without the box.

In the linear model a perturbation of the ball moves an attribution by ``J delta``, and a convex function of delta is
largest at a corner. Without the box ``delta = epsilon s``, so that B = J. With it coordinate i moves in an interval
with center c_i and half-width h_i (a black pixel: c = h = epsilon / 2), and ``delta = c + h * s``. One more sign makes
that homogeneous: ``||J c s_0 + J (h * s)|| = ||B (s, s_0)||`` with ``B = [J diag(h), J c]``, whose last sign is free by
symmetry. A bound of one problem bounds the other.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from jaxattr.balls import Ball
from jaxattr.jacobian import AttributionJacobian


class SignForm(NamedTuple):
    """``max ||B s||`` over signs, per unit of epsilon; products with B cost one with J.

    Attributes:
      jacobian: J at the sample.
      center: c over epsilon, shaped like the input; ``None`` without the box.
      half_width: h over epsilon, likewise.
    """

    jacobian: AttributionJacobian
    center: Array | None
    half_width: Array | None

    @classmethod
    def of(cls, jacobian: AttributionJacobian, ball: Ball, x: Array, within_box: bool) -> "SignForm":
        """Build the sign form of a sample.

        Args:
          jacobian: of the attribution at ``x``.
          ball: an :class:`~jaxattr.LInf`.
          x: the sample.
          within_box: use that ``x + delta`` stays in the ball's box.
        """
        if not within_box:
            return cls(jacobian, None, None)
        # At radius zero take the limit of small radii, so that the slope is that of the bound at its start.
        radius = jnp.asarray(ball.epsilon, x.dtype)
        radius = jnp.where(radius > 0, radius, jnp.sqrt(jnp.finfo(x.dtype).tiny))
        lower, upper = (limit / radius for limit in type(ball)(radius, box=ball.box).interval(x))
        return cls(jacobian, (upper + lower) / 2, (upper - lower) / 2)

    @property
    def size(self) -> int:
        """Return the number of signs."""
        return self.jacobian.value.size + (self.center is not None)

    def step(self, signs: Float[Array, " n"]) -> Float[Array, "*shape"]:
        """Return ``h * s + c s_0``, shaped like the input."""
        shape = self.jacobian.value.shape
        if self.center is None or self.half_width is None:
            return signs.reshape(shape)
        return self.half_width * signs[:-1].reshape(shape) + self.center * signs[-1]

    def direction(self, signs: Float[Array, " n"]) -> Float[Array, "*shape"]:
        """Return the perturbation that belongs to signs, per unit of epsilon."""
        return self.step(signs) if self.center is None else self.step(signs * signs[-1])

    def matvec(self, signs: Float[Array, " n"]) -> Float[Array, "*shape"]:
        """Return ``B s``."""
        return self.jacobian.matvec(self.step(signs))

    def rmatvec(self, u: Float[Array, "*shape"]) -> Float[Array, " n"]:
        """Return ``B^T u``."""
        pulled = self.jacobian.rmatvec(u)
        if self.center is None or self.half_width is None:
            return pulled.ravel()
        return jnp.append((self.half_width * pulled).ravel(), jnp.vdot(self.center, pulled))

    def gram(self, signs: Float[Array, " n"]) -> Float[Array, " n"]:
        """Return ``B^T B s`` up to a positive factor, since squares of entries of B may under- or overflow."""
        image = self.matvec(signs)
        largest = jnp.max(jnp.abs(image))
        return self.rmatvec(image / jnp.where(largest > 0, largest, 1))

    def dense(self, chunk: int | None) -> Float[Array, "d n"]:
        """Return B as a matrix; see :meth:`jaxattr.AttributionJacobian.dense`."""
        matrix = self.jacobian.dense(chunk)
        if self.center is None or self.half_width is None:
            return matrix
        return jnp.column_stack([matrix * self.half_width.ravel(), matrix @ self.center.ravel()])


def ascend_signs(product: Callable[[Array], Array], start: Array, num_steps: int) -> Array:
    """Run ``num_steps`` iterations of ``s <- sign(P s)`` from the signs of ``start``.

    For a positive semidefinite P no step decreases ``s^T P s``. The maximum over all 2^n corners is NP-hard; what the
    iteration reaches says how loose a bound can at most be. A zero entry of ``P s`` keeps its sign, so that the result
    is a corner.

    Args:
      product: ``s -> P s``, for arrays shaped like ``start``.
      start: any array; zeros count as positive.
      num_steps: products.
    """

    def step(_, signs):
        image = product(signs)
        return jnp.where(image == 0, signs, jnp.sign(image))

    return jax.lax.fori_loop(0, num_steps, step, jnp.where(start < 0, -1, 1).astype(start.dtype))
