"""Compute with very small and very large numbers without under- or overflow."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.extend.core
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from jaxtyping import Float


def norm(x: Float[Array | np.ndarray, "*shape"]) -> Float[Array, ""]:
    """Compute the Euclidean norm over all axes, without squaring to zero or infinity; its gradient at 0 is 0.

    In float32 the plain norm of 1e-30 is 0 and that of 1e25 infinite. Gradients of saturated outputs are that small.
    """
    largest = jax.lax.stop_gradient(jnp.max(jnp.abs(x)))
    scale = jnp.where((largest > 0) & jnp.isfinite(largest), largest, 1)
    return scale * optax.safe_norm((x / scale).ravel(), 0.0)


def rounding(size: int, dtype: Any) -> float:
    """Return the relative slack for sums of ``size`` terms: four units in the last place, times the root of the size.

    Upper values are multiplied by one plus this, so that what is attained and what bounds it, rounded on different
    paths, stay in order where theory has them equal.
    """
    return 4 * math.sqrt(size) * float(jnp.finfo(dtype).eps)


def hoisted(function: Callable[[Array], Array], example: Any) -> tuple[Callable[[list[Any], Array], Array], list[Any]]:
    """Turn a function's closed-over values into an argument: ``(closed(captured, argument), captured)``.

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
    """Return the function with all closed-over values held fixed under differentiation.

    A search by many products is no function to differentiate. Stopping the derivative of what it returns would still
    differentiate its loops, and a loop of unknown length has no reverse mode at all.

    Args:
      function: of one array.
      example: an array, or the shape and dtype of one.
    """
    closed, captured = hoisted(function, example)
    fixed = jax.lax.stop_gradient(captured)
    return lambda argument: closed(fixed, argument)


def _one_by_one(function: Callable[..., Any]) -> Callable[..., Any]:
    """Evaluate one matrix after the other on CPUs, also under ``vmap``.

    The CPU kernels of a batch wait for the threads that they run on, and two of them in one program wait for each other
    forever (JAX 0.10.2, seen with 2 threads and eigenvalues of two bounds). GPUs have kernels for batches.
    """
    sequential = jax.custom_batching.sequential_vmap(function)

    def call(*matrices: Array) -> Any:
        return (sequential if jax.default_backend() == "cpu" else function)(*matrices)

    return call


def _decomposition(function: Callable[..., Any]) -> Callable[..., Any]:
    """Decompose matrices of at least 32 bits: there are no decompositions of fewer."""

    def call(*matrices: Array) -> Any:
        return function(*(matrix.astype(jnp.promote_types(matrix.dtype, jnp.float32)) for matrix in matrices))

    return _one_by_one(call)


# These lambdas take matrices alone: the options of JAX's functions are no arrays.
_eigh = _decomposition(lambda matrix: jnp.linalg.eigh(matrix))  # noqa: PLW0108
_svd = _decomposition(lambda matrix: jnp.linalg.svd(matrix))  # noqa: PLW0108
_cholesky = _decomposition(lambda matrix: jnp.linalg.cholesky(matrix))  # noqa: PLW0108
_solve = _decomposition(lambda matrix, right: jnp.linalg.solve(matrix, right))  # noqa: PLW0108
_qr = _decomposition(lambda matrix: jnp.linalg.qr(matrix))  # noqa: PLW0108


def eigh(matrix: Float[Array, "n n"]) -> tuple[Float[Array, " n"], Float[Array, "n n"]]:
    """Return eigenvalues, ascending, and eigenvectors as columns, of a constant: nothing is differentiated."""
    values, vectors = _eigh(jax.lax.stop_gradient(matrix))
    return values, vectors


def eigvalsh(matrix: Float[Array, "n n"]) -> Float[Array, " n"]:
    """Return the eigenvalues, ascending."""
    values, vectors = eigh(matrix)
    return with_derivative(values, jnp.sum(vectors * (matrix @ vectors), axis=0))


def eigenvalue_limit(matrix: Float[Array, "n n"], guess: Float[Array, ""]) -> Float[Array, ""]:
    """Return an upper limit of the eigenvalues of a positive semidefinite matrix, close to a guess from below.

    ``t I - A`` has a Cholesky factor only if t is above all eigenvalues: a proof at a tenth of the cost of the
    eigenvalues themselves. t is the guess and a share of it, 1e-5 at first, which doubles until there is one.

    Args:
      matrix: symmetric; a constant.
      guess: such as a Rayleigh quotient, which is never too large.
    """
    # Rounding may make the quotient of a zero matrix negative, and no share of a negative guess reaches zero.
    matrix, guess = jax.lax.stop_gradient((matrix, jnp.maximum(guess, 0)))
    identity = jnp.eye(len(matrix), dtype=matrix.dtype)
    # The sum of all eigenvalues is a limit for any guess; it is NaN where the matrix has a NaN.
    certain = jnp.trace(matrix)

    def tried(state: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        _, share, _ = state
        limit = (1 + share) * guess
        proven = jnp.all(jnp.isfinite(_cholesky(limit * identity - matrix)))
        return limit, 2 * share, proven

    def going(state: tuple[Array, Array, Array]) -> Array:
        limit, _, proven = state
        return ~proven & (limit < certain)

    start = (guess, jnp.asarray(1e-5, matrix.dtype), jnp.zeros((), bool))
    limit, _, proven = jax.lax.while_loop(going, tried, start)
    return jnp.where(proven, jnp.minimum(limit, certain), certain)


def largest_svd(matrix: Float[Array, "m n"]) -> tuple[Float[Array, ""], Float[Array, " n"]]:
    """Return the largest singular value, which is differentiated, and its right singular vector, which is not."""
    left, values, right = _svd(jax.lax.stop_gradient(matrix))
    u, v = left[:, 0], right[0]
    return with_derivative(values[0], u @ matrix @ v), v


def solve(matrix: Float[Array, "n n"], right: Float[Array, " n"]) -> Float[Array, " n"]:
    """Solve a linear system of constants."""
    return _solve(jax.lax.stop_gradient(matrix), jax.lax.stop_gradient(right))


def orthonormal(columns: Float[Array, "m n"]) -> Float[Array, "m k"]:
    """Return an orthonormal basis of the span of constant columns."""
    return _qr(jax.lax.stop_gradient(columns))[0]


def with_derivative(value: Array, same: Array) -> Array:
    """Give a value found by a search the derivative of an expression that is equal to it (envelope theorem)."""
    return value + (same - jax.lax.stop_gradient(same))
