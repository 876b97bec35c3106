r"""Extreme singular values and eigenvalues of operators known by products, with a stated confidence.

A Krylov method approaches the largest eigenvalue from BELOW, so that a Ritz value is no upper bound. The upper value
here holds with a chosen probability over the random start, and follows from the method's own polynomials (Van
Dorsselaer, Hochstenbach and Van der Vorst 2000; Hochstenbach 2013, "Probabilistic upper bounds for the matrix
two-norm"), of which all are used here and not the last one alone:

After k Lanczos steps on a symmetric A from a unit vector s, the basis vectors are ``q_{j+1} = p_j(A) s``, j = 0 ... k,
with polynomials p_j of degree j. They are orthonormal, so that for the unit eigenvector u of the largest eigenvalue

    <u, s>^2 * sum_{j=0}^k p_j(lambda_max)^2 = sum_j <u, q_{j+1}>^2 <= 1.

For s uniform on the sphere ``Pr[|<u, s>| < delta] = I_{delta^2}(1/2, (d-1)/2)``; outside of that event
``sum_j p_j(lambda_max)^2 <= 1/delta^2``. Beyond the largest Ritz value every p_j^2 increases, so that lambda_max is at
most the root of ``sum_j p_j(t)^2 = 1/delta^2``. With the Ritz values theta_i, the last components w_i of their
eigenvectors and the residual norms beta_j (see :class:`jaxattr.krylov.Tridiagonal`),

    sum_{j<k} p_j(t)^2 = prod_i (t - theta_i)^2 / prod_{j<k} beta_j^2 * sum_i w_i^2 / (t - theta_i)^2,
    p_k(t)^2 = prod_i (t - theta_i)^2 / prod_{j<=k} beta_j^2,

since ``(t - T) (p_0(t), ..., p_{k-1}(t)) = beta_k p_k(t) e_k``. Nothing is assumed of the spectrum, and the value
adapts to it: where the Krylov space is exhausted (beta = 0: rank-deficient, identity, zero operators) the root is the
Ritz value itself, up to what rounding may have hidden.

Krylov runs and their guards are in :mod:`jaxattr.krylov`.
"""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.special
from jax import Array
from jaxtyping import Float

from jaxattr import _checks, _numerics
from jaxattr.krylov import Matvec, golub_kahan, lanczos, negligible


class Extreme(NamedTuple):
    """The largest singular value, or the largest (rightmost) eigenvalue of a symmetric operator, from both sides.

    Attributes:
      attained: at most the true value: ``||J direction||``, or the Rayleigh quotient of ``direction``.
      upper: at least the true value, with probability ``confidence`` over the random start.
      direction: unit vector shaped like the operator's argument.
      residual: ``||A q - theta q||`` of the Ritz pair behind ``direction`` (A is J, ``J^T J`` or the symmetric
        operator), relative to the largest Ritz value in size; 0 when converged.
      confidence: probability that ``upper`` holds.
      products: with the operator or its transpose.
    """

    attained: Array
    upper: Array
    direction: Array
    residual: Array
    confidence: Array
    products: Array


def overlap_quantile(size: int, probability: float) -> float:
    """The delta with ``Pr[|<u, s>| < delta] = probability``, s uniform on the unit sphere of R^size.

    ``<u, s>^2`` follows a Beta(1/2, (size - 1)/2) distribution.
    """
    if size == 1:
        return 1.0
    return float(np.sqrt(scipy.special.betaincinv(0.5, (size - 1) / 2, probability)))


def upper_edge(
    ritz: Float[Array, " k"],
    last: Float[Array, " k"],
    residuals: Float[Array, " k"],
    overlap: float,
    unseen: Any = 0.0,
) -> Float[Array, ""]:
    """The root t, not below the Ritz values, of ``sum_{j=0}^k p_j(t)^2 = 1 / overlap^2`` (see the module).

    Args:
      ritz: eigenvalues of the tridiagonal matrix.
      last: last components of its eigenvectors, in the same order.
      residuals: all k residual norms.
      overlap: lower limit of the start's overlap with the eigenvector in question.
      unseen: residual norm that rounding may have lost where the run was taken to be exhausted. A residual beta means
        ``overlap * (lambda_max - theta) <= beta`` for the largest Ritz value theta.
    """
    largest = jnp.max(ritz)
    exhausted = jnp.any(residuals <= 0)
    logs = jnp.log(jnp.where(residuals > 0, residuals, 1))
    level = jnp.sum(logs) - math.log(overlap)
    # (t - largest)^k is at most the last polynomial's product, so that this is right of the root.
    reach = jnp.exp(level / ritz.size)
    tiny = jnp.finfo(ritz.dtype).tiny
    # Components are exact to rounding only. Smaller ones make the root larger, never unsafe.
    weights = 2 * jnp.log(jnp.maximum(jnp.abs(last) - 8 * jnp.finfo(ritz.dtype).eps, tiny))

    def halve(_, limits):
        low, high = limits
        middle = (low + high) / 2
        distances = jnp.log(jnp.maximum(middle + (largest - ritz), tiny))
        # log of sum_j p_j^2 * prod_{j<=k} beta_j^2.
        earlier = jax.nn.logsumexp(jnp.append(weights - 2 * distances, -2 * logs[-1])) + 2 * logs[-1]
        beyond = jnp.sum(distances) + earlier / 2 > level
        return jnp.where(beyond, low, middle), jnp.where(beyond, middle, high)

    # Bisection on the distance from the largest Ritz value: precise also where it is tiny beside the value.
    _, distance = jax.lax.fori_loop(0, 60, halve, (jnp.zeros_like(reach), reach))
    return largest + jnp.where(exhausted, unseen / overlap, distance)


class _Spectrum(NamedTuple):
    """Ritz values of a Krylov run, divided by ``scale``, with what :func:`upper_edge` asks for."""

    ritz: Array
    vectors: Array
    residuals: Array
    scale: Array
    unseen: Any

    def upper(self, overlap: float, sign: int = 1) -> Array:
        """Upper edge, per scale, of the spectrum or of its negative."""
        return upper_edge(sign * self.ritz, self.vectors[-1], self.residuals, overlap, self.unseen)


def _spectrum(diagonal: Array, off: Array, residuals: Array, size: int) -> _Spectrum:
    """Eigenpairs of a tridiagonal matrix, scaled so that nothing overflows or is lost in a square."""
    largest = jnp.max(jnp.abs(jnp.concatenate([diagonal, residuals])))
    scale = jnp.where(largest > 0, largest, 1)
    diagonal, off, residuals = diagonal / scale, off / scale, residuals / scale
    ritz, vectors = _numerics.eigh(jnp.diag(diagonal) + jnp.diag(off, 1) + jnp.diag(off, -1))
    # With as many steps as features nothing can have been missed.
    unseen = 0.0 if diagonal.size == size else negligible(diagonal.dtype) * jnp.max(jnp.abs(ritz))
    return _Spectrum(ritz, vectors, residuals, scale, unseen)


def _random_start(key: Array, size: int, dtype: Any) -> Array:
    start = jax.random.normal(key, (size,), dtype or jnp.result_type(float))
    return start / jnp.linalg.norm(start)


def _direction(coefficients: Array, basis: Array, start: Array) -> Array:
    """Unit Ritz vector. Zero rows (exhausted steps) may leave none: any is right then, and the start is one."""
    vector = coefficients @ basis
    norm = jnp.linalg.norm(vector)
    return jnp.where(norm > 0.5, vector / jnp.where(norm > 0.5, norm, 1), start)


def _rounding(size: int, dtype: Any) -> float:
    """Relative rounding of the products themselves: a few units in the last place, grown by the length of the sums."""
    return 4 * float(np.sqrt(size)) * float(jnp.finfo(dtype).eps)


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
    verify: bool = True,
) -> Extreme:
    """Largest singular value of an operator by products, with an upper value of a stated confidence.

    A symmetric operator J is iterated itself (Lanczos, one product a step) and both ends of its spectrum are bounded:
    the start has to overlap with one vector only, that of the eigenvalue of largest size, wherever it lies. A general
    operator is bidiagonalized (Golub-Kahan, two products a step). One more product verifies ``attained``.

    Args:
      matvec: ``v -> J v`` for arrays of shape ``shape``; the value may have another shape.
      rmatvec: ``u -> J^T u``; not called if ``symmetric``.
      shape: of the operator's argument and, if symmetric, of its value.
      key: of the random start.
      symmetric: whether J is symmetric.
      num_steps: Krylov steps, capped at the number of features.
      confidence: probability over the random start with which ``upper`` holds.
      dtype: floating-point type; JAX's default one if absent.
      verify: measure ``||J direction||`` by one more product, which also carries the derivative; otherwise ``attained``
        is what the recurrence says, and nothing has a derivative.

    Returns:
      An :class:`Extreme`. A NaN or infinite product makes ``attained``, ``upper`` and ``residual`` NaN.

    Raises:
      ValueError: if ``confidence`` is not between 0 and 1, or ``num_steps`` is below 1.

    References:
      Golub and Kahan 1965; Hochstenbach 2013; paper 000, Theorem 1 (which takes an unbounded estimate).

    Example:
      >>> import jax, jax.numpy as jnp
      >>> J = jnp.diag(jnp.arange(1.0, 101.0))
      >>> found = largest_singular_value(lambda v: J @ v, lambda u: J.T @ u, (100,), jax.random.key(0))
      >>> bool(found.attained <= 100.0 <= found.upper <= 101.0), int(found.products)
      (True, 81)
    """
    _checks.probability("confidence", confidence)
    num_steps = _checks.positive_int("num_steps", num_steps)
    size = int(np.prod(shape))
    start = _random_start(key, size, dtype)
    value_shape = jax.eval_shape(matvec, jax.ShapeDtypeStruct(shape, start.dtype)).shape

    def product(v):
        return matvec(v.reshape(shape)).ravel()

    overlap = overlap_quantile(size, 1 - confidence)
    if symmetric:
        state = lanczos(product, start, num_steps)
        basis, steps = state.basis, state.diagonal.size
        found = _spectrum(state.diagonal, state.residuals[:-1], state.residuals, size)
        winner = jnp.argmax(jnp.abs(found.ritz))
        edge = jnp.maximum(found.upper(overlap), found.upper(overlap, -1))
        scale, reached = found.scale, jnp.abs(found.ritz[winner])
        known = reached
    else:
        state = golub_kahan(product, lambda u: rmatvec(u.reshape(value_shape)).ravel(), start, num_steps)
        basis, steps = state.right, state.diagonal.size
        largest = jnp.max(jnp.maximum(state.diagonal, state.residuals))
        scale = jnp.where(largest > 0, largest, 1)
        alpha, beta = state.diagonal / scale, state.residuals / scale
        # B^T B, whose Lanczos residuals are alpha beta.
        squares = alpha**2 + jnp.append(jnp.zeros(1, beta.dtype), beta[:-1]) ** 2
        found = _spectrum(squares, (alpha * beta)[:-1], alpha * beta, size)
        winner = jnp.argmax(found.ritz)
        edge, reached = jnp.sqrt(found.scale * found.upper(overlap)), jnp.abs(found.ritz[winner])
        known = jnp.sqrt(found.scale * reached)
    residual = found.residuals[-1] * jnp.abs(found.vectors[-1, winner]) / jnp.where(reached > 0, reached, 1)
    vector = _direction(found.vectors[:, winner], basis, start)
    # The derivative of a singular value is that of ||J v|| at a fixed v: exact, and finite where the iteration's own
    # derivative is not (an exhausted run divides by its last residual).
    vector, edge, known = jax.lax.stop_gradient((vector, scale * edge, known))
    if verify:
        with jax.default_matmul_precision("highest"):
            attained = _numerics.norm(product(vector))
    else:
        attained = scale * known
    excess = jax.lax.stop_gradient(jnp.maximum(edge / jnp.where(attained > 0, attained, 1), 1))
    upper = attained * excess * (1 + _rounding(size, start.dtype))
    finite = jnp.all(jnp.isfinite(state.diagonal)) & jnp.isfinite(attained)
    upper, attained, residual = (jnp.where(finite, value, jnp.nan) for value in (upper, attained, residual))
    products = jnp.asarray(steps * (1 if symmetric else 2) + verify, jnp.int32)
    return Extreme(attained, upper, vector.reshape(shape), residual, jnp.full_like(upper, confidence), products)


def largest_eigenvalue(
    matvec: Matvec,
    shape: tuple[int, ...],
    key: Array,
    *,
    num_steps: int = 40,
    confidence: float = 0.999,
    dtype: Any = None,
) -> Extreme:
    """Largest eigenvalue of a symmetric operator, which may be indefinite, by Lanczos.

    Args:
      matvec: ``v -> A v`` for arrays of shape ``shape``.
      shape: of the operator's argument.
      key: of the random start.
      num_steps: products, capped at the number of features; one more gives ``attained``.
      confidence: probability over the random start with which ``upper`` holds.
      dtype: floating-point type; JAX's default one if absent.

    Returns:
      An :class:`Extreme`. A NaN or infinite product makes ``attained``, ``upper`` and ``residual`` NaN.

    Raises:
      ValueError: if ``confidence`` is not between 0 and 1, or ``num_steps`` is below 1.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> A = jnp.diag(jnp.linspace(-5.0, -1.0, 50))
      >>> found = largest_eigenvalue(lambda v: A @ v, (50,), jax.random.key(0))
      >>> bool(found.attained <= -1.0 <= found.upper <= -0.99)
      True
    """
    _checks.probability("confidence", confidence)
    num_steps = _checks.positive_int("num_steps", num_steps)
    size = int(np.prod(shape))
    start = _random_start(key, size, dtype)

    def product(v):
        return matvec(v.reshape(shape)).ravel()

    state = lanczos(product, start, num_steps)
    # The zero rows of an exhausted run would add Ritz values of 0, above a negative spectrum. The first Rayleigh
    # quotient lies inside of every spectrum.
    ended = jnp.sum(state.basis**2, axis=1) < 0.5
    diagonal = jnp.where(ended, state.diagonal[0], state.diagonal)
    found = _spectrum(diagonal, state.residuals[:-1], state.residuals, size)
    winner = jnp.argmax(found.ritz)
    largest = jnp.max(jnp.abs(found.ritz))
    residual = found.residuals[-1] * jnp.abs(found.vectors[-1, winner]) / jnp.where(largest > 0, largest, 1)
    vector = jax.lax.stop_gradient(_direction(found.vectors[:, winner], state.basis, start))
    with jax.default_matmul_precision("highest"):
        attained = jnp.vdot(vector, product(vector))
    edge = jax.lax.stop_gradient(found.scale * found.upper(overlap_quantile(size, 1 - confidence)))
    slack = _rounding(size, start.dtype) * jax.lax.stop_gradient(found.scale * largest)
    upper = attained + jax.lax.stop_gradient(jnp.maximum(edge - attained, 0)) + slack
    finite = jnp.all(jnp.isfinite(state.diagonal)) & jnp.isfinite(attained)
    upper, attained, residual = (jnp.where(finite, value, jnp.nan) for value in (upper, attained, residual))
    products = jnp.asarray(state.diagonal.size + 1, jnp.int32)
    return Extreme(attained, upper, vector.reshape(shape), residual, jnp.full_like(upper, confidence), products)
