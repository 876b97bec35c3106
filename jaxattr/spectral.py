r"""Compute extreme singular values and eigenvalues of operators known by products, with a stated confidence.

A Krylov method approaches the largest eigenvalue from BELOW, so that a Ritz value is no upper bound. The upper value
here holds with a chosen probability over the random start, and follows from the method's own polynomials (Van
Dorsselaer, Hochstenbach and Van der Vorst 2000; Hochstenbach 2013, "Probabilistic upper bounds for the matrix
two-norm"). This module uses all of these polynomials and not the last one alone:

After k Lanczos steps on a symmetric A from a unit vector s, the basis vectors are ``q_{j+1} = p_j(A) s``, j = 0 ... k,
with polynomials p_j of degree j. They are orthonormal, so that for the unit eigenvector u of the largest eigenvalue

    <u, s>^2 * sum_{j=0}^k p_j(lambda_max)^2 = sum_j <u, q_{j+1}>^2 <= 1.

For s uniform on the sphere ``Pr[|<u, s>| < delta] = I_{delta^2}(1/2, (d-1)/2)``; outside of that event
``sum_j p_j(lambda_max)^2 <= 1/delta^2``. Beyond the largest Ritz value every p_j^2 increases, so that lambda_max is at
most the root of ``sum_j p_j(t)^2 = 1/delta^2``. With the Ritz values theta_i, the last components w_i of their
eigenvectors and the residual norms beta_j (see :class:`jaxattr._krylov.Tridiagonal`),

    sum_{j<k} p_j(t)^2 = prod_i (t - theta_i)^2 / prod_{j<k} beta_j^2 * sum_i w_i^2 / (t - theta_i)^2,
    p_k(t)^2 = prod_i (t - theta_i)^2 / prod_{j<=k} beta_j^2,

since ``(t - T) (p_0(t), ..., p_{k-1}(t)) = beta_k p_k(t) e_k``. Nothing is assumed of the spectrum, and the value
adapts to it: where the Krylov space is exhausted (beta = 0: rank-deficient, identity, zero operators) the root is the
Ritz value itself, up to what rounding may have hidden.

A run may end when it likes, also by what it has found: the event is about the start alone and names no k, so that the
upper values of all steps hold at once (docs/bounds.md has the proof, section `singular_value`). The same holds for both
ends of a symmetric operator, and for Golub-Kahan, which is Lanczos on ``J^T J`` from the same s. The test for the end
only decides about k, so that its own rounding cannot make a value wrong.

Krylov runs and their guards are in :mod:`jaxattr._krylov`, the root and its bisection in :mod:`jaxattr._ritz`.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.special
from jax import Array

from jaxattr import _checks, _numerics, _ritz
from jaxattr._krylov import Bidiagonal, Matvec, Tridiagonal, golub_kahan, lanczos
from jaxattr._ritz import Spectrum


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
    """Return the delta with ``Pr[|<u, s>| < delta] = probability``, s uniform on the unit sphere of R^size.

    ``<u, s>^2`` follows a Beta(1/2, (size - 1)/2) distribution.
    """
    if size == 1:
        return 1.0
    return float(np.sqrt(scipy.special.betaincinv(0.5, (size - 1) / 2, probability)))


def _until(tolerance: float, test: Callable[[Any], Array]) -> Callable[[Any], Array] | None:
    """Build the test for a run's end; a run also ends at NaN or infinity, since further steps would not change that."""
    if tolerance == 0:
        return None
    return lambda state: ~jnp.all(jnp.isfinite(state.diagonal)) | test(state)


def _random_start(key: Array, size: int, dtype: Any) -> Array:
    # Decompositions have no types of 16 bits.
    dtype = jnp.promote_types(dtype or jnp.result_type(float), jnp.float32)
    start = jax.random.normal(key, (size,), dtype)
    return start / jnp.linalg.norm(start)


def _product(matvec: Matvec, shape: tuple[int, ...], dtype: Any) -> Matvec:
    """Turn a product into one of flat vectors of one type."""
    return lambda v: matvec(v.reshape(shape)).ravel().astype(dtype)


def _check(num_steps: int, confidence: float, tolerance: float) -> int:
    _checks.probability("confidence", confidence)
    _checks.non_negative("tolerance", tolerance)
    return _checks.positive_int("num_steps", num_steps)


class _Pair(NamedTuple):
    """The extreme Ritz pair of a finished run, without derivatives.

    Attributes:
      vector: the Ritz vector, flat and of unit length.
      upper: the upper value, with its allowance for rounding.
      residual: relative to the largest Ritz value in size.
      finite: whether no product was NaN or infinite.
      products: with the operator or its transpose.
    """

    vector: Array
    upper: Array
    residual: Array
    finite: Array
    products: Array


def _pair(
    state: Tridiagonal | Bidiagonal, basis: Array, found: Spectrum, winner: Array, largest: Array, upper: Array
) -> _Pair:
    """Assemble the Ritz pair ``winner`` of a run; ``largest`` is the largest Ritz value in size, per scale."""
    vector = found.vectors[:, winner] @ basis
    vector, upper = jax.lax.stop_gradient((vector / jnp.linalg.norm(vector), upper))
    residual = found.residual(winner) / jnp.where(largest > 0, largest, 1)
    products = state.steps if isinstance(state, Tridiagonal) else 2 * state.steps
    return _Pair(vector, upper, residual, jnp.all(jnp.isfinite(state.diagonal)), products)


def _extreme(
    pair: _Pair, attained: Array, same: Array | None, shape: tuple[int, ...], confidence: float, measured: bool = True
) -> Extreme:
    """Return the result of a run: NaN where a product was not finite, and with the derivative of ``same``.

    Args:
      pair: from the run.
      attained: the value that its vector attains.
      same: an expression with the value and the derivative of ``pair.upper``; ``None`` for no derivative.
      shape: of the operator's argument.
      confidence: probability with which the upper value holds.
      measured: whether ``attained`` took one more product.
    """
    upper = pair.upper if same is None else _numerics.with_derivative(pair.upper, same)
    finite = pair.finite & jnp.isfinite(attained)
    upper, attained, residual = (jnp.where(finite, value, jnp.nan) for value in (upper, attained, pair.residual))
    products = pair.products + int(measured)
    return Extreme(attained, upper, pair.vector.reshape(shape), residual, jnp.full_like(upper, confidence), products)


def _symmetric_run(
    matvec: Matvec, start: Array, num_steps: int, overlap: float, tolerance: float
) -> tuple[_Pair, Array]:
    """Run Lanczos for the eigenvalue of largest size; return its pair, and its size as the recurrence gives it."""
    size = start.size

    def near(state):
        found = _ritz.of_tridiagonal(state, size)
        winner, reached = found.largest(jnp.abs(found.ritz))
        limit, length = (1 + tolerance) * reached, jnp.hypot(reached, found.residual(winner))
        near, contradicted = (
            found.below(value, overlap) & found.below(value, overlap, -1) for value in (limit, length)
        )
        # An upper edge below the length of the Ritz vector's image is wrong, and more steps correct it.
        return found.exhausted | (near & ~contradicted)

    state = lanczos(matvec, start, num_steps, _until(tolerance, near))
    found = _ritz.of_tridiagonal(state, size)
    winner, reached = found.largest(jnp.abs(found.ritz))
    edge = jnp.maximum(found.upper(overlap), found.upper(overlap, -1))
    upper = found.scale * edge * (1 + _numerics.rounding(size, start.dtype))
    return _pair(state, state.basis, found, winner, reached, upper), found.scale * reached


def _general_run(
    matvec: Matvec, rmatvec: Matvec, start: Array, num_steps: int, overlap: float, tolerance: float
) -> tuple[_Pair, Array]:
    """Run Golub-Kahan for the largest singular value; return its pair, and the value that the recurrence gives."""
    size = start.size

    def near(state):
        found, _ = _ritz.of_bidiagonal(state, size)
        return found.exhausted | found.below((1 + tolerance) ** 2 * found.largest(found.ritz)[1], overlap)

    state = golub_kahan(matvec, rmatvec, start, num_steps, _until(tolerance, near))
    found, scale = _ritz.of_bidiagonal(state, size)
    winner, reached = found.largest(found.ritz)
    reached = jnp.abs(reached)
    edge, known = jnp.sqrt(found.scale * found.upper(overlap)), jnp.sqrt(found.scale * reached)
    upper = scale * edge * (1 + _numerics.rounding(size, start.dtype))
    return _pair(state, state.right, found, winner, reached, upper), scale * known


def largest_singular_value(
    matvec: Matvec,
    rmatvec: Matvec,
    shape: tuple[int, ...],
    key: Array,
    *,
    symmetric: bool = False,
    num_steps: int = 40,
    confidence: float = 0.999,
    tolerance: float = 0.01,
    dtype: Any = None,
    verify: bool = True,
) -> Extreme:
    """Find the largest singular value of an operator by products, with an upper value of a stated confidence.

    A symmetric operator J is iterated itself (Lanczos, one product a step) and both ends of its spectrum are bounded:
    the start has to overlap with one vector only, that of the eigenvalue of largest size, wherever it lies. A general
    operator is bidiagonalized (Golub-Kahan, two products a step). One more product verifies ``attained``.

    The run ends when the upper value is near enough to the attained one. That choice costs no confidence (see the
    module), and under ``vmap`` a batch runs until its slowest member has ended.

    Args:
      matvec: ``v -> J v`` for arrays of shape ``shape``; the value may have another shape.
      rmatvec: ``u -> J^T u``; not called if ``symmetric``.
      shape: of the operator's argument and, if symmetric, of its value.
      key: of the random start.
      symmetric: whether J is symmetric.
      num_steps: Krylov steps at most, capped at the number of features.
      confidence: probability over the random start with which ``upper`` holds.
      tolerance: the run ends when ``upper / attained - 1`` is no more, which is tested every few steps; 0 makes all
        steps.
      dtype: floating-point type; JAX's default one if absent, and float32 for types of 16 bits.
      verify: measure ``||J direction||`` by one more product, which also carries the derivative; otherwise ``attained``
        comes from the recurrence, and nothing has a derivative.

    Returns:
      An :class:`Extreme`. ``upper`` carries ``4 sqrt(size)`` units in the last place for the rounding of products. A
      NaN or infinite product makes ``attained``, ``upper`` and ``residual`` NaN.

    Raises:
      ValueError: if ``confidence`` is not between 0 and 1, ``tolerance`` is negative, or ``num_steps`` is below 1.

    References:
      Golub and Kahan 1965; Van Dorsselaer, Hochstenbach and Van der Vorst 2000; Hochstenbach 2013.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> J = jnp.diag(jnp.arange(1.0, 101.0))
      >>> found = largest_singular_value(lambda v: J @ v, lambda u: J.T @ u, (100,), jax.random.key(0))
      >>> bool(found.attained <= 100.0 <= found.upper <= 101.1), int(found.products)
      (True, 49)
    """
    num_steps = _check(num_steps, confidence, tolerance)
    start = _random_start(key, int(np.prod(shape)), dtype)
    overlap = overlap_quantile(start.size, 1 - confidence)
    with jax.default_matmul_precision("highest"):
        product = _product(matvec, shape, start.dtype)
        # Hold the search constant under differentiation: a loop of unknown length has no reverse mode.
        forward = _numerics.constant(product, start)
    if symmetric:
        pair, known = _symmetric_run(forward, start, num_steps, overlap, tolerance)
    else:
        value = jax.eval_shape(matvec, jax.ShapeDtypeStruct(shape, start.dtype))
        with jax.default_matmul_precision("highest"):
            transposed = jax.ShapeDtypeStruct((value.size,), start.dtype)
            backward = _numerics.constant(_product(rmatvec, value.shape, start.dtype), transposed)
        pair, known = _general_run(forward, backward, start, num_steps, overlap, tolerance)
    if not verify:
        return _extreme(pair, jax.lax.stop_gradient(known), None, shape, confidence, measured=False)
    # Differentiate ||J v|| at a fixed v, which gives a singular value's exact derivative; the iteration's own
    # derivative is not finite where an exhausted run divides by its last residual.
    with jax.default_matmul_precision("highest"):
        attained = _numerics.norm(product(pair.vector))
    ratio = jax.lax.stop_gradient(pair.upper / jnp.where(attained > 0, attained, 1))
    return _extreme(pair, attained, ratio * attained, shape, confidence)


def largest_eigenvalue(
    matvec: Matvec,
    shape: tuple[int, ...],
    key: Array,
    *,
    num_steps: int = 40,
    confidence: float = 0.999,
    tolerance: float = 0.01,
    dtype: Any = None,
) -> Extreme:
    """Find the largest eigenvalue of a symmetric operator, which may be indefinite, by Lanczos.

    Args:
      matvec: ``v -> A v`` for arrays of shape ``shape``.
      shape: of the operator's argument.
      key: of the random start.
      num_steps: products at most, capped at the number of features; one more gives ``attained``.
      confidence: probability over the random start with which ``upper`` holds.
      tolerance: the run ends when ``upper - attained`` is no more than this share of ``|attained|``, which is tested
        every few steps; 0 makes all steps. It costs no confidence (see the module).
      dtype: floating-point type; JAX's default one if absent, and float32 for types of 16 bits.

    Returns:
      An :class:`Extreme`. ``upper`` carries ``4 sqrt(size)`` units in the last place, of the largest eigenvalue in
      size, for rounding. A NaN or infinite product makes ``attained``, ``upper`` and ``residual`` NaN.

    Raises:
      ValueError: if ``confidence`` is not between 0 and 1, ``tolerance`` is negative, or ``num_steps`` is below 1.

    References:
      Lanczos 1950; Van Dorsselaer, Hochstenbach and Van der Vorst 2000.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> A = jnp.diag(jnp.linspace(-5.0, -1.0, 50))
      >>> found = largest_eigenvalue(lambda v: A @ v, (50,), jax.random.key(0))
      >>> bool(found.attained <= -1.0 <= found.upper <= -0.99)
      True
    """
    num_steps = _check(num_steps, confidence, tolerance)
    start = _random_start(key, int(np.prod(shape)), dtype)
    size, overlap = start.size, overlap_quantile(start.size, 1 - confidence)
    with jax.default_matmul_precision("highest"):
        product = _product(matvec, shape, start.dtype)
        fixed = _numerics.constant(product, start)

    def near(state):
        found = _ritz.of_tridiagonal(state, size)
        _, top = found.largest(found.ritz)
        return found.exhausted | found.below(top + tolerance * jnp.abs(top), overlap)

    state = lanczos(fixed, start, num_steps, _until(tolerance, near))
    found = _ritz.of_tridiagonal(state, size)
    winner, _ = found.largest(found.ritz)
    _, largest = found.largest(jnp.abs(found.ritz))
    upper = found.scale * (found.upper(overlap) + _numerics.rounding(size, start.dtype) * largest)
    pair = _pair(state, state.basis, found, winner, largest, upper)
    with jax.default_matmul_precision("highest"):
        attained = jnp.vdot(pair.vector, product(pair.vector))
    return _extreme(pair, attained, attained, shape, confidence)
