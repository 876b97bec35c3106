"""Krylov bases of operators known by products: Lanczos and Golub-Kahan, guarded against exhausted spaces.

A symmetric operator is iterated as it is (one product a step). A general one is bidiagonalized (Golub and Kahan 1965:
two products a step), which is Lanczos on ``J^T J`` without ever squaring: operators of 1e-30 do not underflow.

Where the Krylov space is exhausted, what is left of the next vector is rounding noise. Without a guard it is divided by
(almost) zero: NaN or, worse, a direction that is not orthogonal to the basis and spurious values far above the truth.
Here a vector of exact zeros ends the run (further steps are zero and change nothing), and noise is made orthogonal
again after it has been normalized: the run then goes on in a direction that the start happened to lack, which is what a
flat spectrum with one outlier needs.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from jaxattr import _checks, _numerics

Matvec = Callable[[Array], Array]


def negligible(dtype: Any) -> float:
    """Size of a residual, relative to the operator, below which it cannot be told from rounding."""
    return float(jnp.finfo(dtype).eps)


class Tridiagonal(NamedTuple):
    """Lanczos after k steps: ``A Q^T = Q^T T + beta_k q_{k+1} e_k^T``.

    Attributes:
      diagonal: of T, (k,).
      residuals: norms beta_1 ... beta_k, (k,); the first k - 1 are the off-diagonal of T.
      basis: orthonormal rows, (k, n); rows past an exhausted Krylov space are zero.
    """

    diagonal: Array
    residuals: Array
    basis: Array


class Bidiagonal(NamedTuple):
    """Golub-Kahan after k steps: ``A V^T = U^T B`` and ``A^T U^T = V^T B^T + beta_k v_{k+1} e_k^T``.

    Attributes:
      diagonal: alpha_1 ... alpha_k of the upper bidiagonal B, (k,).
      residuals: norms beta_1 ... beta_k, (k,); the first k - 1 are the upper diagonal of B.
      right: orthonormal rows v_i, (k, n).
      left: orthonormal rows u_i, (k, m).
    """

    diagonal: Array
    residuals: Array
    right: Array
    left: Array


def _extend(image: Array, basis: Array, scale: Array) -> tuple[Array, Array, Array]:
    """What an orthonormal basis lacks of ``image``: its norm, its direction, and the running scale of the images.

    Orthogonalized twice, and once more after normalizing; both are zero where nothing but rounding is left.
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


def lanczos(matvec: Matvec, start: Float[Array, " n"], num_steps: int) -> Tridiagonal:
    """Lanczos with full reorthogonalization (twice) and a guard against exhausted Krylov spaces.

    Args:
      matvec: product with a symmetric matrix.
      start: first basis vector; need not be normalized.
      num_steps: products; at most n are useful.

    Returns:
      The :class:`Tridiagonal`.
    """
    num_steps = min(_checks.positive_int("num_steps", num_steps), start.size)

    def step(j, carry):
        state, current, scale = carry
        basis = state.basis.at[j].set(current)
        image = matvec(current)
        norm, following, scale = _extend(image, basis, scale)
        state = Tridiagonal(state.diagonal.at[j].set(jnp.vdot(current, image)), state.residuals.at[j].set(norm), basis)
        return state, following, scale

    zeros = jnp.zeros(num_steps, start.dtype)
    empty = Tridiagonal(zeros, zeros, jnp.zeros((num_steps, start.size), start.dtype))
    carry = (empty, start / jnp.linalg.norm(start), zeros[0])
    with jax.default_matmul_precision("highest"):
        return jax.lax.fori_loop(0, num_steps, step, carry)[0]


def golub_kahan(matvec: Matvec, rmatvec: Matvec, start: Float[Array, " n"], num_steps: int) -> Bidiagonal:
    """Golub-Kahan bidiagonalization with full reorthogonalization of both bases, guarded as :func:`lanczos`.

    Args:
      matvec: product with an m x n matrix.
      rmatvec: product with its transpose.
      start: first right basis vector; need not be normalized.
      num_steps: pairs of products; at most n are useful.

    Returns:
      The :class:`Bidiagonal`.
    """
    num_steps = min(_checks.positive_int("num_steps", num_steps), start.size)
    rows = jax.eval_shape(matvec, start).size

    def step(j, carry):
        state, current, scale, transposed_scale = carry
        right = state.right.at[j].set(current)
        # Orthogonal to the left basis means without beta_{j-1} u_{j-1}, too.
        alpha, left, scale = _extend(matvec(current), state.left, scale)
        basis = state.left.at[j].set(left)
        beta, following, transposed_scale = _extend(rmatvec(left), right, transposed_scale)
        state = Bidiagonal(state.diagonal.at[j].set(alpha), state.residuals.at[j].set(beta), right, basis)
        return state, following, scale, transposed_scale

    zeros = jnp.zeros(num_steps, start.dtype)
    empty = Bidiagonal(
        zeros, zeros, jnp.zeros((num_steps, start.size), start.dtype), jnp.zeros((num_steps, rows), start.dtype)
    )
    carry = (empty, start / jnp.linalg.norm(start), zeros[0], zeros[0])
    with jax.default_matmul_precision("highest"):
        return jax.lax.fori_loop(0, num_steps, step, carry)[0]
