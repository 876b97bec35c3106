"""Represent the attribution Jacobian ``J[i, j] = d g_i / d x_j`` as a linear operator.

Everything second-order in the library is made of products with J and its transpose; the d x d matrix is formed on
request only. Wang and Kong 2023 write ``H = J^T`` and ``P = H H^T``, which is ``P = J^T J`` here; ``J J^T`` has the
same eigenvalues but other eigenvectors and entries, and is wrong for attributions whose J is not symmetric, such as IG.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Int

from jaxattr import _checks, _numerics
from jaxattr._chunking import map_over
from jaxattr.attribution import as_attribution
from jaxattr.programs import guard
from jaxattr.programs.guard import Kinks
from jaxattr.types import AttributionFn, LogitsFn


class AttributionJacobian(NamedTuple):
    """J at one sample; ``matvec`` and ``rmatvec`` take and return arrays shaped like the input.

    Attributes:
      value: the attribution g(x), in the dtype of x, as all products are: float32 at least, whatever the network's.
      matvec: ``v -> J v``.
      rmatvec: ``u -> J^T u``.
      symmetric: whether J is known to be symmetric, so that ``rmatvec`` is ``matvec``.
      parts: ``(hessian, multiplier, gradient)`` of ``J = diag(multiplier) H + diag(gradient)``, or ``None``.
      kinks: how many operations between input and explained output are not twice differentiable; zero unless they were
        allowed.
    """

    value: Array
    matvec: Callable[[Array], Array]
    rmatvec: Callable[[Array], Array]
    symmetric: bool
    parts: tuple[Callable[[Array], Array], Array, Array] | None = None
    kinks: int = 0

    def gram(self, v: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        """Compute ``P v = J^T (J v)``."""
        return self.rmatvec(self.matvec(v))

    def dense(self, chunk: int | None = 32) -> Float[Array, "d d"]:
        """Compute J as a matrix over flattened features, from at most d products.

        Where the multiplier of a gradient attribution is zero (``x_i = baseline_i``: for IG and input x gradient 70 to
        90 % of the pixels of MNIST) a row has nothing off its diagonal and costs no product. The number of products
        then depends on the sample (:meth:`dense_products`); a batch under ``vmap`` waits for its slowest.

        Args:
          chunk: products evaluated at once; memory is that many forward and backward passes, beside the matrix.
        """
        shape, size, dtype = self.value.shape, self.value.size, self.value.dtype
        if self.parts is None:

            def column(j: Array) -> Array:
                unit = (jnp.arange(size) == j).astype(dtype)
                return self.matvec(unit.reshape(shape)).ravel()

            # Transpose, because map_over stacks columns as rows.
            return map_over(column, jnp.arange(size), chunk).T
        hessian, multiplier, gradient = self.parts
        multiplier = multiplier.ravel()
        rows = _rows(hessian, shape, multiplier != 0, chunk, dtype)
        return multiplier[:, None] * rows + jnp.diag(gradient.ravel())

    def dense_products(self) -> Int[Array, ""]:
        """Return the number of products that :meth:`dense` makes."""
        if self.parts is None:
            return jnp.asarray(self.value.size, jnp.int32)
        return jnp.sum(self.parts[1] != 0).astype(jnp.int32)


def _rows(product: Callable[[Array], Array], shape: tuple[int, ...], active: Array, chunk: int | None, dtype: Any):
    """Compute rows ``product(e_i)`` of a symmetric matrix where ``active``, anything finite or zero elsewhere.

    It loops over as many blocks as hold active rows; skipping by ``cond`` would compute both sides under ``vmap``.
    Such a loop has no reverse mode, so that its derivative is that of all rows, in a loop of fixed length.
    """
    size = active.size
    chunk = size if chunk is None else min(_checks.positive_int("chunk", chunk), size)
    # A custom derivative only sees dependences that are arguments.
    closed, captured = _numerics.hoisted(product, jax.ShapeDtypeStruct(shape, dtype))

    def row(captured: list[Any], i: Array) -> Array:
        unit = (jnp.arange(size) == i).astype(dtype).reshape(shape)
        return closed(captured, unit).ravel()

    def every_row(captured: list[Any], _: Array) -> Array:
        return map_over(functools.partial(row, captured), jnp.arange(size), chunk)

    @jax.custom_jvp
    def active_rows(captured: list[Any], active: Array) -> Array:
        # List active rows first; an index that no row has fills the rest of the list.
        (order,) = jnp.nonzero(active, size=size + -size % chunk, fill_value=size)
        blocks = -(-jnp.sum(active) // chunk)

        def step(state: tuple[Array, Array]) -> tuple[Array, Array]:
            block, rows = state
            index = jax.lax.dynamic_slice(order, (block * chunk,), (chunk,))
            found = jax.vmap(functools.partial(row, captured))(index)
            return block + 1, rows.at[index].set(found, mode="drop")

        start = (jnp.zeros((), blocks.dtype), jnp.zeros((size, size), dtype))
        return jax.lax.while_loop(lambda state: state[0] < blocks, step, start)[1]

    @active_rows.defjvp
    def _(primals, tangents):
        # Compute every row of the value, too: where the multiplier is zero, its own derivative multiplies the row.
        return jax.jvp(every_row, primals, tangents)

    return active_rows(captured, active)


def attribution_jacobian(
    attribute: AttributionFn,
    logits_fn: LogitsFn,
    x: Float[Array, "*shape"],
    label: Any,
    *,
    linearize: bool = True,
    kinks: Kinks = "refuse",
    method: str = "attribution_jacobian",
) -> AttributionJacobian:
    """Return the Jacobian of an attribution at one sample, as products.

    For attributions with a gradient field both products are forward over reverse (:mod:`jaxattr.attribution`); for any
    other function they are its ``jvp`` and ``vjp``. Products run at the highest matmul precision: reduced precision
    (TF32) has relative errors of 1e-3, which changes which attacks seem to violate a bound. For the same reason a
    network that computes in fewer bits than its input has is refused: slopes of bfloat16 are off by 0.4 %.

    Args:
      attribute: ``(logits_fn, x, label) -> map``.
      logits_fn: classifier of one input.
      x: the sample; one of 16 bits becomes float32.
      label: class whose output is explained.
      linearize: keep what all products share (the forward and backward pass at x, at every path point for IG). It is
        about twice as fast for many products and holds memory in proportion to the path points; ``False`` recomputes.
      kinks: what to do with a network that is not twice differentiable in x, such as one with ReLU or max-pooling:
        ``refuse``, or ``allow``, which computes the derivative almost everywhere, of which no bound follows.
      method: name of the calling method, for messages.

    Returns:
      An :class:`AttributionJacobian`: ``.value``, ``.matvec(v)``, ``.rmatvec(u)``, ``.dense()``.

    Raises:
      ValueError: if the label is out of range, shapes of model, input and attribution do not fit, or the network has
        kinks.
      TypeError: if the input is not floating-point or the label not an integer, or if the network computes in fewer
        bits than the input has.

    Example:
      >>> import jax.numpy as jnp
      >>> import jaxattr as ja
      >>> logits_fn = lambda x: jnp.stack([x[0] * x[1], jnp.sum(x)])
      >>> J = ja.attribution_jacobian(ja.attributions.input_x_gradient(), logits_fn, jnp.array([2.0, 3.0]), 0)
      >>> J.dense().tolist()
      [[3.0, 2.0], [3.0, 2.0]]
    """
    attribute = as_attribution(attribute)
    x = _checks.sample(x)
    label = _checks.label(logits_fn, x, label)
    found = guard.check(attribute, logits_fn, x, kinks, method=method)
    guard.require_precision(attribute, logits_fn, x, method=method)
    return unchecked_jacobian(attribute, logits_fn, x, label, linearize=linearize)._replace(kinks=found)


def unchecked_jacobian(
    attribute: AttributionFn, logits_fn: LogitsFn, x: Array, label: Any, *, linearize: bool = True
) -> AttributionJacobian:
    """Return :func:`attribution_jacobian` of arguments that have been checked already.

    An attack or a loss claims nothing about the network that it climbs, which may have kinks or compute in few bits.
    """
    if getattr(attribute, "field", None) is not None:
        return _structured(attribute, logits_fn, x, label, linearize)
    return _generic(attribute, logits_fn, x, label)


def _structured(attribute, logits_fn, x, label, linearize) -> AttributionJacobian:
    def field(z):
        # A field of the user's own may return the network's dtype.
        return _checks.attribution_map(attribute.field(logits_fn, z, label), x).astype(x.dtype)

    with jax.default_matmul_precision("highest"):
        if linearize:
            gradient, linear = jax.linearize(field, x)
        else:
            gradient = field(x)

            def linear(v):
                with jax.default_matmul_precision("highest"):
                    return jax.jvp(field, (x,), (v,))[1]

    def hessian(v):
        return linear(jnp.asarray(v, x.dtype))

    multiplier = attribute.multiplier(x)
    if multiplier is None:
        return AttributionJacobian(gradient, hessian, hessian, symmetric=True)
    return AttributionJacobian(
        multiplier * gradient,
        lambda v: multiplier * hessian(v) + gradient * v,
        lambda u: hessian(multiplier * u) + gradient * u,
        symmetric=False,
        parts=(hessian, multiplier, gradient),
    )


def _generic(attribute, logits_fn, x, label) -> AttributionJacobian:
    def function(z):
        return _checks.attribution_map(attribute(logits_fn, z, label), x).astype(x.dtype)

    with jax.default_matmul_precision("highest"):
        value, transposed = jax.vjp(function, x)

    def matvec(v):
        with jax.default_matmul_precision("highest"):
            return jax.jvp(function, (x,), (jnp.asarray(v, x.dtype),))[1]

    return AttributionJacobian(value, matvec, lambda u: transposed(jnp.asarray(u, x.dtype))[0], symmetric=False)
