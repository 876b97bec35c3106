"""Solve the semidefinite relaxation of ``max ||B s||`` over signs: primal ascent, corners, and dual certificates.

The primal is ``max <P, V^T V>`` over r x n matrices V with unit columns, ``P = B^T B``; for any weights u > 0 the dual
gives ``max ||B s||^2 <= sum(u) * lambda_max(D^-1/2 P D^-1/2)``, ``D = diag(u)``. These are the parts
of :func:`jaxattr.bounds.semidefinite`; none of them depends on how B is obtained.
"""

from collections.abc import Callable
from typing import NamedTuple

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


class Best(NamedTuple):
    """State of the search: best values so far, per unit of epsilon, with V and the previous V."""

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


def start(rows: Array, products: Array) -> Best:
    """Return the initial state of the search; ``products`` counts the products already spent."""
    ones, zero = jnp.ones_like(rows[0]), jnp.zeros((), rows.dtype)
    count = jnp.zeros((), jnp.int32)
    return Best(rows, rows, zero + jnp.inf, ones, jnp.zeros_like(ones), zero - 1, ones, products + count, count)


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


def ascend(
    operator: Operator, best: Best, rounds: int, corner_steps: int, key: Array, chunk: int | None
) -> tuple[Best, Array]:
    """Run rounds of ``V <- normalize_columns(V P)``, then of ``s <- sign(P s)`` from random projections of V.

    The first part has momentum and gives the weights, the second (Goemans and Williamson's rounding) the corners, of
    which the best is kept. One loop for both: products with a network are what takes long to compile.
    """

    def gram(row: Array) -> tuple[Array, Array, Array]:
        """Return ``||B s||``, and ``B^T B s`` as a factor and a vector, since squares of J may underflow."""
        image = operator.matvec(row)
        largest = nonzero(jnp.max(jnp.abs(image)))
        return _numerics.norm(image), largest, operator.rmatvec(image / largest)

    projection = jax.random.normal(key, (len(best.rows),) * 2, best.rows.dtype)

    def one(step, state):
        rows, previous, signs, weights, top, top_signs = state
        climbing = step >= rounds
        moved = jnp.where(climbing, signs, rows + _MOMENTUM * (rows - previous))
        values, scales, images = map_over(gram, moved, chunk)
        # All rows take the same scale, so that the columns keep their proportions.
        images = images * (scales / nonzero(jnp.max(scales)))[:, None]
        found = _column_norms(images)
        following = unit_columns(images)
        corners = jnp.where(climbing, images, projection @ following)
        winner = jnp.argmax(values)
        # NaN compares false: a product that is NaN must not be passed over.
        better = climbing & ~(values[winner] <= top)
        return (
            jnp.where(climbing, rows, following),
            jnp.where(climbing, previous, rows),
            jnp.where(corners == 0, signs, jnp.sign(corners)),
            jnp.where(climbing, weights, found),
            jnp.where(better, values[winner], top),
            jnp.where(better, signs[winner], top_signs),
        )

    ones = jnp.ones_like(best.rows)
    state = (best.rows, best.previous, ones, ones[0], best.attained, best.signs)
    total = rounds + corner_steps + 1
    rows, previous, _, weights, attained, signs = jax.lax.fori_loop(0, total, one, state)
    products = best.products + 2 * operator.cost * total * len(rows)
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
