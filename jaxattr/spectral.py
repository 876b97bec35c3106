r"""Largest singular value of an operator known by products, with a stated confidence.

A Krylov method approaches the largest eigenvalue from BELOW, so that a Ritz value is no upper bound. The upper value
here holds with a chosen probability over the random start, and follows from the method's own polynomial
(Van Dorsselaer, Hochstenbach and Van der Vorst 2000; Hochstenbach 2013, "Probabilistic upper bounds for the matrix
two-norm"):

After k Lanczos steps on a symmetric A from a unit vector s, the next basis vector is ``q_{k+1} = p_k(A) s`` with

    p_k(t) = prod_i (t - theta_i) / prod_{j=1}^k beta_j        (theta: Ritz values, beta: the residual norms).

It has unit norm, so with the eigenvector u of the largest eigenvalue, ``|<u, s>| p_k(lambda_max) <= 1``. For s uniform
on the sphere ``Pr[|<u, s>| < delta] = I_{delta^2}(1/2, (d-1)/2)``; outside of that event ``p_k(lambda_max) <=
1/delta``. Beyond the largest Ritz value p_k increases, so that lambda_max is at most the root of ``p_k(t) = 1/delta``.
Nothing is assumed of the spectrum, and it adapts to it: where the Krylov space is exhausted (beta = 0: rank-deficient,
identity, zero operators) the root is the Ritz value itself, up to what rounding may have hidden.

Where the Krylov space is exhausted, what is left of the next vector is rounding noise. Lanczos without a guard divides
it by (almost) zero: NaN or, worse, a direction that is not orthogonal to the basis and spurious values far above the
truth. Here a vector of exact zeros ends the run (further steps are zero and change nothing), and noise is made
orthogonal again after it has been normalized: the run then goes on in a direction that the start happened to lack,
which is what a flat spectrum with one outlier needs.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.special
from jax import Array
from jaxtyping import Float

from jaxattr import _checks, _numerics

Matvec = Callable[[Array], Array]


def _negligible(dtype: Any) -> float:
    """Size of a residual, relative to the operator, below which it cannot be told from rounding."""
    return 2 * float(jnp.finfo(dtype).eps)


class Tridiagonal(NamedTuple):
    """Lanczos after k steps: ``A Q^T = Q^T T + beta_k q_{k+1} e_k^T``.

    Attributes:
      diagonal: of T, (k,).
      residuals: norms beta_1 ... beta_k, (k,); the first k - 1 are the off-diagonal of T.
      basis: orthonormal rows, (k, d); rows past an exhausted Krylov space are zero.
    """

    diagonal: Array
    residuals: Array
    basis: Array


class SingularValue(NamedTuple):
    """Largest singular value, from both sides.

    Attributes:
      attained: ``||J direction||``, so at most the true value.
      upper: at least the true value, with probability ``confidence`` over the random start.
      direction: unit vector shaped like the operator's argument.
      residual: ``||A q - theta q|| / theta`` of the Ritz pair behind ``direction``: 0 when converged.
      confidence: probability that ``upper`` holds.
    """

    attained: Array
    upper: Array
    direction: Array
    residual: Array
    confidence: Array


def lanczos(matvec: Matvec, start: Float[Array, " d"], num_steps: int) -> Tridiagonal:
    """Lanczos with full reorthogonalization (twice) and a guard against exhausted Krylov spaces.

    Args:
      matvec: product with a symmetric matrix.
      start: first basis vector; need not be normalized.
      num_steps: products; at most d are useful.

    Returns:
      The :class:`Tridiagonal`.
    """
    num_steps = min(_checks.positive_int("num_steps", num_steps), start.size)
    dtype = start.dtype
    # A larger threshold would take a small but real component of the start for exhaustion, and void the confidence.
    negligible = _negligible(dtype)

    def orthogonal(vector, basis):
        vector = vector - basis.T @ (basis @ vector)
        return vector - basis.T @ (basis @ vector)

    def step(j, carry):
        state, current, scale = carry
        basis = state.basis.at[j].set(current)
        image = matvec(current)
        diagonal = jnp.vdot(current, image)
        residual = orthogonal(image, basis)
        norm = jnp.linalg.norm(residual)
        scale = jnp.maximum(scale, jnp.linalg.norm(image))
        exhausted = norm <= negligible * scale
        following = orthogonal(residual / jnp.where(exhausted, 1, norm), basis)
        following = following / jnp.linalg.norm(following)
        norm, following = jnp.where(exhausted, 0, norm), jnp.where(exhausted, 0, following)
        state = Tridiagonal(state.diagonal.at[j].set(diagonal), state.residuals.at[j].set(norm), basis)
        return state, following, scale

    empty = Tridiagonal(
        jnp.zeros(num_steps, dtype), jnp.zeros(num_steps, dtype), jnp.zeros((num_steps, start.size), dtype)
    )
    first = start / jnp.linalg.norm(start)
    with jax.default_matmul_precision("highest"):
        return jax.lax.fori_loop(0, num_steps, step, (empty, first, jnp.zeros((), dtype)))[0]


def overlap_quantile(size: int, probability: float) -> float:
    """The delta with ``Pr[|<u, s>| < delta] = probability``, s uniform on the unit sphere of R^size.

    ``<u, s>^2`` follows a Beta(1/2, (size - 1)/2) distribution.
    """
    if size == 1:
        return 1.0
    return float(np.sqrt(scipy.special.betaincinv(0.5, (size - 1) / 2, probability)))


def upper_edge(
    ritz: Float[Array, " k"], residuals: Float[Array, " k"], overlap: float, unseen: Any = 0.0
) -> Float[Array, ""]:
    """The root t above all Ritz values of ``prod_i (t - theta_i) = prod_j beta_j / overlap``, from above.

    Args:
      ritz: eigenvalues of the tridiagonal matrix.
      residuals: all k residual norms.
      overlap: lower limit of the start's overlap with the eigenvector in question.
      unseen: residual norm that rounding may have lost where the run was taken to be exhausted. A residual beta means
        ``overlap * (lambda_max - theta) <= beta`` for the largest Ritz value theta.
    """
    largest = jnp.max(ritz)
    exhausted = jnp.any(residuals <= 0)
    level = jnp.sum(jnp.log(jnp.where(residuals > 0, residuals, 1))) - np.log(overlap)
    # (t - largest)^k is at most the product, so that this is right of the root.
    reach = jnp.exp(level / ritz.size)

    def halve(_, limits):
        low, high = limits
        middle = (low + high) / 2
        beyond = jnp.sum(jnp.log(jnp.maximum(middle + (largest - ritz), jnp.finfo(ritz.dtype).tiny))) > level
        return jnp.where(beyond, low, middle), jnp.where(beyond, middle, high)

    # Bisection on the distance from the largest Ritz value: precise also where it is tiny beside the value.
    _, distance = jax.lax.fori_loop(0, 60, halve, (jnp.zeros_like(reach), reach))
    return largest + jnp.where(exhausted, unseen / overlap, distance)


def largest_singular_value(
    matvec: Matvec,
    rmatvec: Matvec,
    shape: tuple[int, ...],
    key: Array,
    *,
    symmetric: bool = False,
    num_steps: int = 40,
    confidence: float = 0.999,
    dtype: Any = None,
) -> SingularValue:
    """Largest singular value of an operator by Lanczos, with an upper value of a stated confidence.

    A symmetric operator J is iterated itself (one product a step) and both ends of its spectrum are bounded, each
    with half of the allowed failure probability; otherwise ``J^T J`` is (two products a step).

    Args:
      matvec: ``v -> J v`` for arrays of shape ``shape``.
      rmatvec: ``u -> J^T u``; not called if ``symmetric``.
      shape: of the operator's argument and, if symmetric, of its value.
      key: of the random start.
      symmetric: whether J is symmetric.
      num_steps: Lanczos steps, capped at the number of features.
      confidence: probability over the random start with which ``upper`` holds.
      dtype: floating-point type; JAX's default one if absent.

    Returns:
      A :class:`SingularValue`. A NaN or infinite product makes ``attained``, ``upper`` and ``residual`` NaN.

    Raises:
      ValueError: if ``confidence`` is not between 0 and 1, or ``num_steps`` is below 1.

    References:
      Hochstenbach 2013; paper 000, Theorem 1 (which takes an unbounded estimate).
    """
    _checks.probability("confidence", confidence)
    _checks.positive_int("num_steps", num_steps)
    size = int(np.prod(shape))
    start = jax.random.normal(key, (size,), dtype or jnp.result_type(float))
    start = start / jnp.linalg.norm(start)

    # Squares underflow for small operators (saturated outputs; 1e-22 in float32): iterate J / scale instead.
    largest = jnp.max(jnp.abs(matvec(start.reshape(shape))))
    scale = jnp.where(largest > 0, largest, 1)

    def scaled(v):
        return (matvec(v.reshape(shape)) / scale).ravel()

    def operator(v):
        return scaled(v) if symmetric else (rmatvec(scaled(v).reshape(shape)) / scale).ravel()

    state = lanczos(operator, start, num_steps)
    tridiagonal = jnp.diag(state.diagonal) + jnp.diag(state.residuals[:-1], 1) + jnp.diag(state.residuals[:-1], -1)
    ritz, vectors = jnp.linalg.eigh(tridiagonal)
    winner = jnp.argmax(jnp.abs(ritz))
    value = jnp.abs(ritz[winner])
    vector = vectors[:, winner] @ state.basis
    vector = vector / jnp.where(value > 0, jnp.linalg.norm(vector), 1)
    # Zero rows (exhausted steps) of a zero operator leave no direction: any is right, and the start is one.
    vector = jnp.where(jnp.linalg.norm(vector) > 0.5, vector, start)
    residual = state.residuals[-1] * jnp.abs(vectors[-1, winner]) / jnp.where(value > 0, value, 1)

    failure = (1 - confidence) / (2 if symmetric else 1)
    overlap = overlap_quantile(size, failure)
    # With as many steps as features nothing can have been missed.
    unseen = 0.0 if state.diagonal.size == size else _negligible(start.dtype) * value
    edge = upper_edge(ritz, state.residuals, overlap, unseen)
    edge = jnp.maximum(edge, upper_edge(-ritz, state.residuals, overlap, unseen)) if symmetric else jnp.sqrt(edge)
    # The derivative of a singular value is that of ||J v|| at a fixed v: exact, and finite where the iteration's own
    # derivative is not (an exhausted run divides by its last residual).
    vector, scale, edge = jax.lax.stop_gradient((vector, scale, edge))
    attained = _numerics.norm(scaled(vector))
    # Rounding of the products themselves: a few units in the last place, grown by the length of the sums.
    rounding = 1 + 4 * np.sqrt(size) * float(jnp.finfo(start.dtype).eps)
    excess = jax.lax.stop_gradient(jnp.maximum(edge / jnp.where(attained > 0, attained, 1), 1))
    upper, attained = scale * attained * excess * rounding, scale * attained
    finite = jnp.all(jnp.isfinite(state.diagonal)) & jnp.isfinite(attained)
    upper, attained, residual = (jnp.where(finite, value, jnp.nan) for value in (upper, attained, residual))
    return SingularValue(attained, upper, vector.reshape(shape), residual, jnp.full_like(upper, confidence))
