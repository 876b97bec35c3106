"""Arithmetic that survives very small and very large numbers."""

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
    """Euclidean norm over all axes, without squaring to zero or infinity; its gradient at 0 is 0.

    In float32 the plain norm of 1e-30 is 0 and that of 1e25 infinite. Gradients of saturated outputs are that small.
    """
    largest = jax.lax.stop_gradient(jnp.max(jnp.abs(x)))
    scale = jnp.where((largest > 0) & jnp.isfinite(largest), largest, 1)
    return scale * optax.safe_norm((x / scale).ravel(), 0.0)


def rounding(size: int, dtype: Any) -> float:
    """Relative slack for sums of ``size`` terms: four units in the last place, grown as rounding errors grow.

    Upper values are multiplied by one plus this, so that what is attained and what bounds it, rounded on different
    paths, stay in order where theory has them equal.
    """
    return 4 * math.sqrt(size) * float(jnp.finfo(dtype).eps)


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


def _one_by_one(function: Callable[..., Any]) -> Callable[..., Any]:
    """On CPUs one matrix after the other, also under ``vmap``.

    The CPU kernels of a batch wait for the threads that they run on, and two of them in one program wait for each other
    forever (JAX 0.10.2, seen with 2 threads and eigenvalues of two bounds). GPUs have kernels for batches.
    """
    sequential = jax.custom_batching.sequential_vmap(function)

    def call(*matrices: Array) -> Any:
        return (sequential if jax.default_backend() == "cpu" else function)(*matrices)

    return call


def _decomposition(function: Callable[..., Any]) -> Callable[..., Any]:
    """Of matrices of at least 32 bits: there are no decompositions of fewer."""

    def call(*matrices: Array) -> Any:
        return function(*(matrix.astype(jnp.promote_types(matrix.dtype, jnp.float32)) for matrix in matrices))

    return _one_by_one(call)


# Functions of matrices alone: the options of these are no arrays.
_eigh = _decomposition(lambda matrix: jnp.linalg.eigh(matrix))  # noqa: PLW0108
_svd = _decomposition(lambda matrix: jnp.linalg.svd(matrix))  # noqa: PLW0108
_cholesky = _decomposition(lambda matrix: jnp.linalg.cholesky(matrix))  # noqa: PLW0108
_solve = _decomposition(lambda matrix, right: jnp.linalg.solve(matrix, right))  # noqa: PLW0108
_qr = _decomposition(lambda matrix: jnp.linalg.qr(matrix))  # noqa: PLW0108


def eigh(matrix: Float[Array, "n n"]) -> tuple[Float[Array, " n"], Float[Array, "n n"]]:
    """Eigenvalues, ascending, and eigenvectors as columns, of a constant: nothing is differentiated."""
    values, vectors = _eigh(jax.lax.stop_gradient(matrix))
    return values, vectors


def eigvalsh(matrix: Float[Array, "n n"]) -> Float[Array, " n"]:
    """Eigenvalues, ascending."""
    values, vectors = eigh(matrix)
    return with_derivative(values, jnp.sum(vectors * (matrix @ vectors), axis=0))


def eigenvalue_limit(matrix: Float[Array, "n n"], guess: Float[Array, ""]) -> Float[Array, ""]:
    """A number that no eigenvalue of a positive semidefinite matrix exceeds, close to a guess from below.

    ``t I - A`` has a Cholesky factor only if t is above all eigenvalues: a proof at a tenth of the cost of the
    eigenvalues themselves. t is the guess and a share of it, 1e-5 at first, which doubles until there is one.

    Args:
      matrix: symmetric; a constant.
      guess: such as a Rayleigh quotient, which is never too large.
    """
    # Rounding may make the quotient of a matrix without eigenvalues negative, and no share of that comes up to zero.
    matrix, guess = jax.lax.stop_gradient((matrix, jnp.maximum(guess, 0)))
    identity = jnp.eye(len(matrix), dtype=matrix.dtype)
    # The sum of all eigenvalues, for whatever the guess was; NaN where the matrix has one.
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
    """The largest singular value and its right singular vector, of which the value alone is differentiated."""
    left, values, right = _svd(jax.lax.stop_gradient(matrix))
    u, v = left[:, 0], right[0]
    return with_derivative(values[0], u @ matrix @ v), v


def solve(matrix: Float[Array, "n n"], right: Float[Array, " n"]) -> Float[Array, " n"]:
    """The solution of a linear system of constants."""
    return _solve(jax.lax.stop_gradient(matrix), jax.lax.stop_gradient(right))


def orthonormal(columns: Float[Array, "m n"]) -> Float[Array, "m k"]:
    """An orthonormal basis of the span of constant columns."""
    return _qr(jax.lax.stop_gradient(columns))[0]


def with_derivative(value: Array, same: Array) -> Array:
    """A value found by a search, with the derivative of an expression that is equal to it (envelope theorem)."""
    return value + (same - jax.lax.stop_gradient(same))
