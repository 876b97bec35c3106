"""The attribution Jacobian ``J[i, j] = d g_i / d x_j`` as a linear operator.

Everything second-order in the library is made of products with J and its transpose; the d x d matrix is formed on
request only. Paper 000 writes ``H = J^T`` and ``P = H H^T``, which is ``P = J^T J`` here; ``J J^T`` has the same
eigenvalues but other eigenvectors and entries, and is wrong for attributions whose J is not symmetric, such as IG.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from jaxattr import _checks
from jaxattr.chunking import map_over
from jaxattr.gradient_attribution import GradientAttribution
from jaxattr.types import Attribution, LogitsFn


class AttributionJacobian(NamedTuple):
    """J at one sample. ``matvec`` and ``rmatvec`` take and return arrays shaped like the input.

    Attributes:
      value: the attribution g(x).
      matvec: ``v -> J v``.
      rmatvec: ``u -> J^T u``.
      symmetric: whether J is known to be symmetric, so that ``rmatvec`` is ``matvec``.
    """

    value: Array
    matvec: Callable[[Array], Array]
    rmatvec: Callable[[Array], Array]
    symmetric: bool

    def gram(self, v: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        """``P v = J^T (J v)``."""
        return self.rmatvec(self.matvec(v))

    def dense(self, chunk: int | None = 32) -> Float[Array, "d d"]:
        """J as a matrix over flattened features, from d products.

        Args:
          chunk: products evaluated at once; memory is that many forward and backward passes.
        """
        shape, size = self.value.shape, self.value.size

        def column(j: Array) -> Array:
            unit = (jnp.arange(size) == j).astype(self.value.dtype)
            return self.matvec(unit.reshape(shape)).ravel()

        # map_over stacks columns as rows.
        return map_over(column, jnp.arange(size), chunk).T


def attribution_jacobian(
    attribute: Attribution, logits_fn: LogitsFn, x: Float[Array, "*shape"], label: Any, *, linearize: bool = True
) -> AttributionJacobian:
    """The Jacobian of an attribution at one sample, by products.

    For gradient attributions both products are forward over reverse (:mod:`jaxattr.gradient_attribution`); for any
    other function they are its ``jvp`` and ``vjp``. Products run at the highest matmul precision: reduced precision
    (TF32) has relative errors of 1e-3, which changes which attacks seem to violate a bound.

    Args:
      attribute: ``(logits_fn, x, label) -> map``.
      logits_fn: classifier of one input.
      x: the sample.
      label: class whose output is explained.
      linearize: keep what all products share (the forward and backward pass at x, at every path point for IG). It is
        about twice as fast for many products and holds memory in proportion to the path points; ``False`` recomputes.

    Returns:
      An :class:`AttributionJacobian`: ``.value``, ``.matvec(v)``, ``.rmatvec(u)``, ``.dense()``.

    Raises:
      ValueError: if the label is out of range, or shapes of model, input and attribution do not fit.
      TypeError: if the input is not floating-point or the label not an integer.

    Example:
      >>> import jax.numpy as jnp
      >>> import jaxattr as ja
      >>> logits_fn = lambda x: jnp.stack([x[0] * x[1], jnp.sum(x)])
      >>> J = ja.attribution_jacobian(ja.attributions.input_x_gradient(), logits_fn, jnp.array([2.0, 3.0]), 0)
      >>> J.dense().tolist()
      [[3.0, 2.0], [3.0, 2.0]]
    """
    x = _checks.sample(x)
    label = _checks.label(logits_fn, x, label)
    if isinstance(attribute, GradientAttribution):
        return _structured(attribute, logits_fn, x, label, linearize)
    return _generic(attribute, logits_fn, x, label)


def _structured(attribute, logits_fn, x, label, linearize) -> AttributionJacobian:
    def field(z):
        return attribute.field(logits_fn, z, label)

    with jax.default_matmul_precision("highest"):
        if linearize:
            gradient, hessian = jax.linearize(field, x)
        else:
            gradient = field(x)

            def hessian(v):
                with jax.default_matmul_precision("highest"):
                    return jax.jvp(field, (x,), (v,))[1]

    _checks.attribution_map(gradient, x)
    multiplier = attribute.multiplier(x)
    if multiplier is None:
        return AttributionJacobian(gradient, hessian, hessian, symmetric=True)
    return AttributionJacobian(
        multiplier * gradient,
        lambda v: multiplier * hessian(v) + gradient * v,
        lambda u: hessian(multiplier * u) + gradient * u,
        symmetric=False,
    )


def _generic(attribute, logits_fn, x, label) -> AttributionJacobian:
    def function(z):
        return attribute(logits_fn, z, label)

    with jax.default_matmul_precision("highest"):
        value, transposed = jax.vjp(function, x)
    _checks.attribution_map(value, x)

    def matvec(v):
        with jax.default_matmul_precision("highest"):
            return jax.jvp(function, (x,), (v,))[1]

    return AttributionJacobian(value, matvec, lambda u: transposed(u)[0], symmetric=False)
