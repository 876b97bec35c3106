"""Arithmetic that survives very small and very large numbers."""

from collections.abc import Callable
from typing import Any

import jax
import jax.extend.core
import jax.numpy as jnp
import optax
from jax import Array
from jaxtyping import Float


def norm(x: Float[Array, "*shape"]) -> Float[Array, ""]:
    """Euclidean norm over all axes, without squaring to zero or infinity; its gradient at 0 is 0.

    In float32 the plain norm of 1e-30 is 0 and that of 1e25 infinite. Gradients of saturated outputs are that small.
    """
    largest = jax.lax.stop_gradient(jnp.max(jnp.abs(x)))
    scale = jnp.where((largest > 0) & jnp.isfinite(largest), largest, 1)
    return scale * optax.safe_norm((x / scale).ravel(), 0.0)


def hoisted(function: Callable[[Array], Array], example: Any) -> tuple[Callable[[list[Any], Array], Array], list[Any]]:
    """Turn what a function closes over into an argument: ``(closed(captured, argument), captured)``.

    Custom derivatives and ``stop_gradient`` act on arguments. (``jax.closure_convert`` leaves integers, such as a
    traced label, inside.)

    Args:
      function: of one array.
      example: an array, or the shape and dtype of one.
    """
    closed = jax.make_jaxpr(function)(example)

    def call(captured: list[Any], argument: Array) -> Array:
        (value,) = jax.extend.core.jaxpr_as_fun(jax.extend.core.ClosedJaxpr(closed.jaxpr, captured))(argument)
        return value

    return call, list(closed.consts)


def constant(function: Callable[[Array], Array], example: Any) -> Callable[[Array], Array]:
    """The function with everything it closes over held fixed under differentiation.

    A search by many products is no function to differentiate. Stopping the derivative of what it returns would still
    differentiate its loops, and a loop of unknown length has no reverse mode at all.

    Args:
      function: of one array.
      example: an array, or the shape and dtype of one.
    """
    closed, captured = hoisted(function, example)
    fixed = jax.lax.stop_gradient(captured)
    return lambda argument: closed(fixed, argument)


def eigh(matrix: Float[Array, "n n"]) -> tuple[Float[Array, " n"], Float[Array, "n n"]]:
    """Eigenvalues, ascending, and eigenvectors as columns, of a constant: nothing is differentiated."""
    values, vectors = jnp.linalg.eigh(jax.lax.stop_gradient(matrix))
    return values, vectors
