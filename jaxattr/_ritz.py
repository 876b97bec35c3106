"""Compute Ritz values of Krylov runs, and upper edges of the spectra behind them.

:mod:`jaxattr.spectral` explains why the edge holds, and with which probability. Arrays have room for the longest run;
a shorter one uses the first entries of arrays over steps, and the last entries of arrays over Ritz values.
"""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from jaxattr import _numerics
from jaxattr._krylov import Bidiagonal, Tridiagonal, negligible


def upper_edge(
    ritz: Float[Array, " k"],
    last: Float[Array, " k"],
    residuals: Float[Array, " k"],
    overlap: float,
    unseen: Any = 0.0,
    steps: Any = None,
) -> Float[Array, ""]:
    """Find the root t, not below the Ritz values, of ``sum_{j=0}^k p_j(t)^2 = 1 / overlap^2`` (see the module).

    Args:
      ritz: eigenvalues of the tridiagonal matrix.
      last: last components of its eigenvectors, in the same order.
      residuals: all k residual norms.
      overlap: lower limit of the start's overlap with the eigenvector in question.
      unseen: residual norm that rounding may have lost where the run was taken to be exhausted. A residual beta means
        ``overlap * (lambda_max - theta) <= beta`` for the largest Ritz value theta.
      steps: steps made, if fewer than k: the last so many of ``ritz`` and ``last`` and the first so many of
        ``residuals`` count.
    """
    steps = ritz.size if steps is None else steps
    largest = jnp.max(jnp.where(_last(ritz.size, steps), ritz, -jnp.inf))
    made = _first(ritz.size, steps)
    exhausted = jnp.any(made & (residuals <= 0))
    logs = jnp.log(jnp.where(made & (residuals > 0), residuals, 1))
    # The last polynomial's product is at least (t - largest)^k, so that this point is right of the root.
    reach = jnp.exp((jnp.sum(logs) - math.log(overlap)) / steps)

    def halve(_, limits):
        low, high = limits
        middle = (low + high) / 2
        beyond = _log_growth(middle, ritz, last, residuals, steps) > -math.log(overlap)
        return jnp.where(beyond, low, middle), jnp.where(beyond, middle, high)

    # Bisect the distance from the largest Ritz value, which is precise also where it is tiny beside the value.
    _, distance = jax.lax.fori_loop(0, 60, halve, (jnp.zeros_like(reach), reach))
    return largest + jnp.where(exhausted, unseen / overlap, distance)


def _first(count: int, some: Any) -> Array:
    return jnp.arange(count) < some


def _last(count: int, some: Any) -> Array:
    return jnp.arange(count) >= count - some


def _log_growth(distance: Array, ritz: Array, last: Array, residuals: Array, steps: Any) -> Array:
    """Compute ``log sqrt(sum_j p_j(t)^2)`` for t at ``distance`` above the largest Ritz value (:func:`upper_edge`)."""
    tiny, used = jnp.finfo(ritz.dtype).tiny, _last(ritz.size, steps)
    made = _first(ritz.size, steps)
    logs = jnp.log(jnp.where(made & (residuals > 0), residuals, 1))
    final = 2 * logs[steps - 1]
    largest = jnp.max(jnp.where(used, ritz, -jnp.inf))
    distances = jnp.where(used, jnp.log(jnp.maximum(distance + (largest - ritz), tiny)), 0)
    # Components are exact to rounding only. Smaller ones make the root larger, never unsafe.
    weights = 2 * jnp.log(jnp.maximum(jnp.abs(last) - 8 * jnp.finfo(ritz.dtype).eps, tiny))
    # This is log of sum_j p_j^2 * prod_{j<=k} beta_j^2 / prod_i (t - theta_i)^2.
    earlier = jax.nn.logsumexp(jnp.append(jnp.where(used, weights - 2 * distances, -jnp.inf), -final)) + final
    return jnp.sum(distances) + earlier / 2 - jnp.sum(logs)


class Spectrum(NamedTuple):
    """Ritz values of a Krylov run, divided by ``scale``, with the arguments of :func:`upper_edge`."""

    ritz: Array
    vectors: Array
    residuals: Array
    scale: Array
    unseen: Any
    steps: Array

    @property
    def used(self) -> Array:
        """Return which Ritz values are the run's own."""
        return _last(self.ritz.size, self.steps)

    @property
    def last(self) -> Array:
        """Return the components of the eigenvectors in the last basis vector."""
        return self.vectors[self.steps - 1]

    def largest(self, values: Array) -> tuple[Array, Array]:
        """Return index and value of the largest entry of ``values`` among the run's own Ritz pairs."""
        values = jnp.where(self.used, values, -jnp.inf)
        winner = jnp.argmax(values)
        return winner, values[winner]

    @property
    def exhausted(self) -> Array:
        """Return whether the Krylov space is exhausted."""
        return self.residuals[self.steps - 1] <= 0

    def residual(self, winner: Array) -> Array:
        """Return the residual norm of a Ritz pair, per scale."""
        return self.residuals[self.steps - 1] * jnp.abs(self.last[winner])

    def upper(self, overlap: float, sign: int = 1) -> Array:
        """Return the upper edge, per scale, of the spectrum or of its negative."""
        return upper_edge(sign * self.ritz, self.last, self.residuals, overlap, self.unseen, self.steps)

    def below(self, limit: Array, overlap: float, sign: int = 1) -> Array:
        """Return whether the upper edge of the spectrum or of its negative is at most ``limit``."""
        largest = jnp.max(jnp.where(self.used, sign * self.ritz, -jnp.inf))
        growth = _log_growth(limit - largest, sign * self.ritz, self.last, self.residuals, self.steps)
        return (limit > largest) & (growth >= -math.log(overlap))


def _spectrum(diagonal: Array, off: Array, residuals: Array, size: int, made: Array) -> Spectrum:
    """Decompose a tridiagonal matrix, scaled so that nothing overflows or is lost in a square.

    Steps that were not made, or made in vain after the space had been exhausted, have Ritz values of their own below
    all others, and sorted before them.
    """
    count = diagonal.size
    alive = jnp.append(jnp.ones(1, bool), jnp.cumprod(residuals[:-1] > 0) > 0)
    valid = _first(count, made) & alive
    steps = jnp.sum(valid).astype(jnp.int32)
    largest = jnp.max(jnp.abs(jnp.concatenate([diagonal, residuals])))
    scale = jnp.where(largest > 0, largest, 1)
    off = jnp.where(valid[1:], off, 0) / scale
    diagonal, residuals = diagonal / scale, jnp.where(valid, residuals, 0) / scale
    # Gershgorin's circles of the matrix end to the right of these numbers.
    circles = diagonal - jnp.abs(jnp.append(off, 0)) - jnp.abs(jnp.append(0, off))
    diagonal = jnp.where(valid, diagonal, jnp.min(jnp.where(valid, circles, jnp.inf)) - 1)
    ritz, vectors = _numerics.eigh(jnp.diag(diagonal) + jnp.diag(off, 1) + jnp.diag(off, -1))
    # A run with as many basis vectors as features cannot have missed anything.
    missed = negligible(diagonal.dtype) * jnp.max(jnp.where(_last(count, steps), jnp.abs(ritz), 0))
    return Spectrum(ritz, vectors, residuals, scale, jnp.where(steps == size, 0, missed), steps)


def of_bidiagonal(state: Bidiagonal, size: int) -> tuple[Spectrum, Array]:
    """Return the spectrum of ``B^T B`` for ``B`` divided by a scale, and that scale; residuals are ``alpha beta``."""
    largest = jnp.max(jnp.maximum(state.diagonal, state.residuals))
    scale = jnp.where(largest > 0, largest, 1)
    alpha, beta = state.diagonal / scale, state.residuals / scale
    squares = alpha**2 + jnp.append(jnp.zeros(1, beta.dtype), beta[:-1]) ** 2
    return _spectrum(squares, (alpha * beta)[:-1], alpha * beta, size, state.steps), scale


def of_tridiagonal(state: Tridiagonal, size: int) -> Spectrum:
    """Return the spectrum of a Lanczos run; ``size`` is the number of the operator's features."""
    return _spectrum(state.diagonal, state.residuals[:-1], state.residuals, size, state.steps)
