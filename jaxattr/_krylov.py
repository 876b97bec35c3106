"""Build Krylov bases of operators known by products: Lanczos and Golub-Kahan, guarded against exhausted spaces.

A symmetric operator is iterated as it is (one product a step). A general one is bidiagonalized (Golub and Kahan 1965:
two products a step), which is Lanczos on ``J^T J`` without ever squaring: operators of 1e-30 do not underflow.

Where the Krylov space is exhausted, what is left of the next vector is rounding noise. Without a guard it is divided by
(almost) zero: NaN or, worse, a direction that is not orthogonal to the basis and spurious values far above the truth.
Here a vector of exact zeros ends the run (further steps are zero and change nothing), and noise is made orthogonal
again after it has been normalized: the run then goes on in a direction that the start happened to lack, which is what a
flat spectrum with one outlier needs.

Runs may end before their last step: a test examines the state every few steps. Steps that were not made stay zero.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from jaxattr import _checks, _numerics

Matvec = Callable[[Array], Array]

# Test whether a run may end after this many steps, the first of these that divides its length. A test costs a small
# eigenvalue problem, and a block of another length at the end would compile the product a second time.
_BETWEEN = (4, 5, 3, 6, 7, 2, 1)


def negligible(dtype: Any) -> float:
    """Return the relative size of a residual below which it cannot be told from rounding."""
    return float(jnp.finfo(dtype).eps)


class Tridiagonal(NamedTuple):
    """The state of Lanczos after k steps: ``A Q^T = Q^T T + beta_k q_{k+1} e_k^T``.

    Attributes:
      diagonal: of T, (k,).
      residuals: norms beta_1 ... beta_k, (k,); the first k - 1 are the off-diagonal of T.
      basis: orthonormal rows, (k, n); rows past an exhausted Krylov space, or past the run's end, are zero.
      steps: how many were made, int32; the rest of all arrays is zero.
    """

    diagonal: Array
    residuals: Array
    basis: Array
    steps: Array


class Bidiagonal(NamedTuple):
    """The state of Golub-Kahan after k steps: ``A V^T = U^T B`` and ``A^T U^T = V^T B^T + beta_k v_{k+1} e_k^T``.

    Attributes:
      diagonal: alpha_1 ... alpha_k of the upper bidiagonal B, (k,).
      residuals: norms beta_1 ... beta_k, (k,); the first k - 1 are the upper diagonal of B.
      right: orthonormal rows v_i, (k, n).
      left: orthonormal rows u_i, (k, m).
      steps: how many were made, int32; the rest of all arrays is zero.
    """

    diagonal: Array
    residuals: Array
    right: Array
    left: Array
    steps: Array


def _extend(image: Array, basis: Array, scale: Array) -> tuple[Array, Array, Array]:
    """Orthogonalize ``image`` against ``basis``; return residual norm, direction, and the running scale of the images.

    It orthogonalizes twice, and again after normalizing; both results are zero where nothing but rounding is left.
    """

    def orthogonal(vector):
        vector = vector - basis.T @ (basis @ vector)
        return vector - basis.T @ (basis @ vector)

    residual = orthogonal(image)
    norm, scale = _numerics.norm(residual), jnp.maximum(scale, _numerics.norm(image))
    # A larger threshold would take a small but real component of the start for exhaustion, and void the confidence.
    exhausted = norm <= negligible(image.dtype) * scale
    following = orthogonal(residual / jnp.where(exhausted, 1, norm))
    following = following / jnp.where(exhausted, 1, _numerics.norm(following))
    return jnp.where(exhausted, 0, norm), jnp.where(exhausted, 0, following), scale


def _run(step: Callable[[Any, Any], Any], carry: Any, num_steps: int, done: Callable[[Any], Array] | None) -> Any:
    """Run all steps, or blocks of steps until ``done(state)`` is true; ``carry[0]`` is the state.

    Under ``vmap`` a batch runs until its last sample is done; the others keep the state in which they were done.
    """
    with jax.default_matmul_precision("highest"):
        if done is None:
            return jax.lax.fori_loop(0, num_steps, step, carry)[0]
        between = next(count for count in _BETWEEN if num_steps % count == 0)

        def block(carry):
            first = carry[0].steps
            return jax.lax.fori_loop(0, between, lambda i, carry: step(first + i, carry), carry)

        def going(carry):
            return (carry[0].steps < num_steps) & ~((carry[0].steps > 0) & done(carry[0]))

        return jax.lax.while_loop(going, block, carry)[0]


def lanczos(
    matvec: Matvec,
    start: Float[Array, " n"],
    num_steps: int,
    done: Callable[[Tridiagonal], Array] | None = None,
) -> Tridiagonal:
    """Run Lanczos with full reorthogonalization (twice) and a guard against exhausted Krylov spaces.

    Args:
      matvec: product with a symmetric matrix.
      start: first basis vector; need not be normalized.
      num_steps: products; at most n are useful.
      done: a test made every few steps; the run ends where it is true. Such a run has no reverse mode.

    Returns:
      The :class:`Tridiagonal`.
    """
    num_steps = min(_checks.positive_int("num_steps", num_steps), start.size)

    def step(j, carry):
        state, current, scale = carry
        basis = state.basis.at[j].set(current)
        image = matvec(current)
        norm, following, scale = _extend(image, basis, scale)
        diagonal = state.diagonal.at[j].set(jnp.vdot(current, image))
        state = Tridiagonal(diagonal, state.residuals.at[j].set(norm), basis, state.steps + 1)
        return state, following, scale

    zeros, none = jnp.zeros(num_steps, start.dtype), jnp.zeros((), jnp.int32)
    empty = Tridiagonal(zeros, zeros, jnp.zeros((num_steps, start.size), start.dtype), none)
    return _run(step, (empty, start / jnp.linalg.norm(start), zeros[0]), num_steps, done)


def golub_kahan(
    matvec: Matvec,
    rmatvec: Matvec,
    start: Float[Array, " n"],
    num_steps: int,
    done: Callable[[Bidiagonal], Array] | None = None,
) -> Bidiagonal:
    """Run Golub-Kahan bidiagonalization with full reorthogonalization of both bases, guarded as :func:`lanczos`.

    Args:
      matvec: product with an m x n matrix.
      rmatvec: product with its transpose.
      start: first right basis vector; need not be normalized.
      num_steps: pairs of products; at most n are useful.
      done: as in :func:`lanczos`.

    Returns:
      The :class:`Bidiagonal`.
    """
    num_steps = min(_checks.positive_int("num_steps", num_steps), start.size)
    rows = jax.eval_shape(matvec, start).size

    def step(j, carry):
        state, current, scale, transposed_scale = carry
        right = state.right.at[j].set(current)
        # A vector orthogonal to the left basis has lost beta_{j-1} u_{j-1}, too.
        alpha, left, scale = _extend(matvec(current), state.left, scale)
        basis = state.left.at[j].set(left)
        beta, following, transposed_scale = _extend(rmatvec(left), right, transposed_scale)
        diagonal, residuals = state.diagonal.at[j].set(alpha), state.residuals.at[j].set(beta)
        return Bidiagonal(diagonal, residuals, right, basis, state.steps + 1), following, scale, transposed_scale

    zeros, none = jnp.zeros(num_steps, start.dtype), jnp.zeros((), jnp.int32)
    sides = (jnp.zeros((num_steps, start.size), start.dtype), jnp.zeros((num_steps, rows), start.dtype))
    carry = (Bidiagonal(zeros, zeros, *sides, none), start / jnp.linalg.norm(start), zeros[0], zeros[0])
    return _run(step, carry, num_steps, done)
