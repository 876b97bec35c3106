"""Solve the semidefinite relaxation of ``max ||B s||`` over signs: primal ascent, corners, and dual certificates.

The primal is ``max <P, V^T V>`` over r x n matrices V with unit columns, ``P = B^T B``; for any weights u > 0 the dual
gives ``max ||B s||^2 <= sum(u) * lambda_max(D^-1/2 P D^-1/2)``, ``D = diag(u)``. These are the parts
of :func:`jaxattr.bounds.semidefinite`; none of them depends on how B is obtained.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jaxattr import _numerics, spectral
from jaxattr._chunking import map_over

# Add this share to all weights: zero columns of B (dead pixels) would divide by zero, and it costs 0.05 %.
_LIFT = 1e-3
# Add this share of the previous step to each round: 0.5 takes 8 rounds where 0 takes 12; above 0.9 it slows the ascent.
_MOMENTUM = 0.5


class Operator(NamedTuple):
    """B and its transpose as functions of vectors, their cost, and an upper bound of a weighted norm of B.

    Attributes:
      matvec: ``s -> B s``.
      rmatvec: ``u -> B^T u``.
      cost: products with J that one of them takes.
      certify: ``(weights, key) -> (upper, v, products)``, an upper value of ``sigma_max(B diag(weights)^-1/2)`` and the
        vector that attains it, nearly.
    """

    matvec: Callable[[Array], Array]
    rmatvec: Callable[[Array], Array]
    cost: int
    certify: Callable[[Array, Array], tuple[Array, Array, Array]]


class Candidate(NamedTuple):
    """A dual point that is known before the search.

    Attributes:
      weights: u; any positive factor is allowed.
      limit: an upper value of ``max ||B s||`` that is known with it; infinite where there is none.
    """

    weights: Array
    limit: Any


class Search(NamedTuple):
    """The lengths of a search for weights and corners.

    Attributes:
      rank: rows of V.
      rounds: of the ascent, in each cycle.
      cycles: rounds, corners and a certificate at most.
      corner_steps: sign iterations for each of ``rank`` random projections of V, in each cycle.
      tolerance: the search ends after the cycle that brings ``upper / attained - 1`` to this or below.
      chunk: rows of V evaluated at once.
    """

    rank: int
    rounds: int
    cycles: int
    corner_steps: int
    tolerance: float
    chunk: int | None

    @property
    def steps(self) -> int:
        """Return the number of products with ``B^T B`` that a cycle takes for each row of V."""
        return self.rounds + self.corner_steps + 1

    @property
    def applications(self) -> int:
        """Return the number of products with B or its transpose that all cycles take, without their certificates."""
        return self.cycles * 2 * self.rank * self.steps


class Best(NamedTuple):
    """The state of the search: the best values so far, per unit of epsilon.

    Attributes:
      rows: V; changes in every round of the ascent.
      previous: V one round earlier; changes in every round.
      upper: the smallest upper value; changes with each certificate that is smaller.
      weights: u behind ``upper``, of mean about one; changes with ``upper``.
      vector: attains the weighted norm behind ``upper``, nearly; changes with ``upper``.
      attained: the largest ``||B s||`` of a corner, -1 at first; changes in sign iterations that find a better one.
      signs: the corner behind ``attained``; changes with it.
      products: products with J so far.
      cycle: cycles made.
    """

    rows: Array
    previous: Array
    upper: Array
    weights: Array
    vector: Array
    attained: Array
    signs: Array
    products: Array
    cycle: Array


def nonzero(value: Array) -> Array:
    """Replace zeros by 1, for use as a divisor."""
    return jnp.where(value == 0, 1, value)


def _column_norms(rows: Array) -> Array:
    # Divide by the largest entry first: squares of 1e-22 are zero in float32.
    largest = nonzero(jnp.max(jnp.abs(rows)))
    return largest * jnp.linalg.norm(rows / largest, axis=0)


def unit_columns(rows: Array) -> Array:
    """Divide every column by its norm."""
    norms = _column_norms(rows)
    # A zero column (dead pixel) has no direction; any unit column is valid.
    return jnp.where(norms > 0, rows / nonzero(norms), 1 / jnp.sqrt(jnp.asarray(len(rows), rows.dtype)))


def start(rows: Array) -> Best:
    """Return the state before the search."""
    ones, zero = jnp.ones_like(rows[0]), jnp.zeros((), rows.dtype)
    count = jnp.zeros((), jnp.int32)
    return Best(rows, rows, zero + jnp.inf, ones, jnp.zeros_like(ones), zero - 1, ones, count, count)


def of_products(
    matvec: Callable[[Array], Array],
    rmatvec: Callable[[Array], Array],
    num_steps: int,
    confidence: float,
    tolerance: float = 0.0,
) -> Operator:
    """Build an operator from products with B, which cost one each; a Krylov run certifies it."""

    def certify(weights: Array, key: Array) -> tuple[Array, Array, Array]:
        root = jnp.sqrt(weights)
        found = spectral.largest_singular_value(
            lambda v: matvec(v / root),
            lambda u: rmatvec(u) / root,
            weights.shape,
            key,
            num_steps=num_steps,
            confidence=confidence,
            tolerance=tolerance,
            dtype=weights.dtype,
            verify=False,
        )
        return found.upper, found.direction, found.products

    return Operator(matvec, rmatvec, 1, certify)


def of_matrix(matrix: Array) -> Operator:
    """Build an operator from B as a matrix; a Krylov run proposes a limit, and a Cholesky factorization proves it."""
    # The d x d product squares the entries: without this scale, 1e-22 would become zero in float32.
    scale = nonzero(jnp.max(jnp.abs(matrix)))

    def certify(weights: Array, key: Array) -> tuple[Array, Array, Array]:
        weighted = matrix / (scale * jnp.sqrt(weights))
        gram = weighted.T @ weighted
        # Make all steps: the proposal decides how sharp the limit is, and costs no product with J.
        found = spectral.largest_eigenvalue(lambda v: gram @ v, weights.shape, key, tolerance=0.0, dtype=weights.dtype)
        # Allow for the rounding of the d x d product and of its factorization.
        slack = 1 + _numerics.rounding(weights.size, weights.dtype)
        limit = _numerics.eigenvalue_limit(gram, found.attained)
        return scale * slack * jnp.sqrt(limit), found.direction, jnp.zeros((), jnp.int32)

    return Operator(lambda s: matrix @ s, lambda u: matrix.T @ u, 0, certify)


def solve(
    operator: Operator, candidates: Sequence[Candidate], search: Search, key: Array, size: int, dtype: Any
) -> Best:
    """Search for weights and corners: certify the candidates, then run cycles of ascent, corners and a certificate.

    Args:
      operator: B.
      candidates: dual points that compete with those of the search.
      search: its lengths.
      key: random key of the rows, the corners and the certificates.
      size: number of signs.
      dtype: of the rows.

    Returns:
      The last state, without derivatives.
    """
    key_rows, key_corners, key_certificates = jax.random.split(key, 3)
    keys = jax.random.split(key_certificates, search.cycles + len(candidates))
    best = start(unit_columns(jax.random.normal(key_rows, (search.rank, size), dtype)))
    for (weights, limit), key_one in zip(candidates, keys[search.cycles :], strict=True):
        best = consider(operator, best, weights, key_one)
        best = best._replace(upper=jnp.minimum(best.upper, limit))

    def cycle(best: Best) -> Best:
        best, weights = ascend(operator, best, search, jax.random.fold_in(key_corners, best.cycle))
        best = consider(operator, best, weights, keys[best.cycle])
        return best._replace(cycle=best.cycle + 1)

    def going(best: Best) -> Array:
        return (best.cycle < search.cycles) & ~(best.upper <= (1 + search.tolerance) * best.attained)

    return jax.lax.stop_gradient(cycle(best) if search.cycles == 1 else jax.lax.while_loop(going, cycle, best))


def ascend(operator: Operator, best: Best, search: Search, key: Array) -> tuple[Best, Array]:
    """Run rounds of ``V <- normalize_columns(V P)``, then of ``s <- sign(P s)`` from random projections of V.

    The first part has momentum and gives the weights. The second (Goemans and Williamson's rounding) gives the corners,
    of which the best is kept. One loop runs both, since products with a network take long to compile.
    """

    def gram(row: Array) -> tuple[Array, Array, Array]:
        """Return ``||B s||``, and ``B^T B s`` as a factor and a vector, since squares of J may underflow."""
        image = operator.matvec(row)
        largest = nonzero(jnp.max(jnp.abs(image)))
        return _numerics.norm(image), largest, operator.rmatvec(image / largest)

    projection = jax.random.normal(key, (len(best.rows),) * 2, best.rows.dtype)

    def iterate(step, state):
        rows, previous, signs, weights, top, top_signs = state
        cornering = step >= search.rounds
        moved = jnp.where(cornering, signs, rows + _MOMENTUM * (rows - previous))
        values, scales, images = map_over(gram, moved, search.chunk)
        # All rows take the same scale, so that the columns keep their proportions.
        images = images * (scales / nonzero(jnp.max(scales)))[:, None]
        found = _column_norms(images)
        following = unit_columns(images)
        corners = jnp.where(cornering, images, projection @ following)
        winner = jnp.argmax(values)
        # NaN compares false: a product that is NaN must not be passed over.
        better = cornering & ~(values[winner] <= top)
        return (
            jnp.where(cornering, rows, following),
            jnp.where(cornering, previous, rows),
            jnp.where(corners == 0, signs, jnp.sign(corners)),
            jnp.where(cornering, weights, found),
            jnp.where(better, values[winner], top),
            jnp.where(better, signs[winner], top_signs),
        )

    ones = jnp.ones_like(best.rows)
    state = (best.rows, best.previous, ones, ones[0], best.attained, best.signs)
    rows, previous, _, weights, attained, signs = jax.lax.fori_loop(0, search.steps, iterate, state)
    products = best.products + 2 * operator.cost * search.steps * len(rows)
    kept = best._replace(rows=rows, previous=previous, attained=attained, signs=signs, products=products)
    return kept, weights


def consider(operator: Operator, best: Best, weights: Array, key: Array) -> Best:
    """Certify some weights, and keep them if their bound is the smallest so far."""
    mean = jnp.mean(weights)
    # Normalize weights to a mean of one, which avoids under- and overflow: only their ratios matter.
    weights = jnp.where(mean == 0, 1, weights / nonzero(mean) + _LIFT)
    sigma, vector, products = operator.certify(weights, key)
    # Allow for the rounding of the weights and of the products with corners; the certificate allows for its own
    # products.
    upper = jnp.sqrt(jnp.sum(weights)) * sigma * (1 + _numerics.rounding(weights.size, weights.dtype))
    better = ~(upper >= best.upper)
    return best._replace(
        upper=jnp.where(better, upper, best.upper),
        weights=jnp.where(better, weights, best.weights),
        vector=jnp.where(better, vector, best.vector),
        products=best.products + products,
    )
