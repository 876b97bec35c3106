"""The semidefinite relaxation of ``max ||B s||`` over signs: ascent on its primal, corners, and dual certificates.

The primal is ``max <P, V^T V>`` over r x n matrices V with unit columns, ``P = B^T B``; for any weights u > 0 the dual
gives ``max ||B s||^2 <= sum(u) * lambda_max(D^-1/2 P D^-1/2)``, ``D = diag(u)``. Here are the pieces of which
:func:`jaxattr.bounds.semidefinite` is made; none of them knows where B comes from.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jaxattr import _numerics, spectral
from jaxattr.chunking import map_over

# Dead pixels (columns of B that are zero) get a weight all the same: they do not divide by zero, and cost 0.05 %.
_LIFT = 1e-3
# Of the step before, added to each round: 0.5 does in 8 rounds what takes 12 without; above 0.9 it hurts.
_MOMENTUM = 0.5


class Operator(NamedTuple):
    """B and its transpose for vectors of signs, with what they cost and how a weighted norm of B is bounded.

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
    """What has been found so far, per unit of epsilon, and V and the V before it."""

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
    """The value, and 1 for zero: a divisor."""
    return jnp.where(value == 0, 1, value)


def _column_norms(rows: Array) -> Array:
    # Relative to the largest entry: squares of 1e-22 are zero in float32.
    largest = nonzero(jnp.max(jnp.abs(rows)))
    return largest * jnp.linalg.norm(rows / largest, axis=0)


def unit_columns(rows: Array) -> Array:
    """Every column divided by its norm."""
    norms = _column_norms(rows)
    # A dead pixel has no direction: any unit column is right.
    return jnp.where(norms > 0, rows / nonzero(norms), 1 / jnp.sqrt(jnp.asarray(len(rows), rows.dtype)))


def start(rows: Array, products: Array) -> Best:
    """Nothing found yet, after some products."""
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
    """An operator that costs a product a time, certified by a Krylov run."""

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
    """An operator at hand as a matrix: a Krylov run guesses, and a Cholesky factor certifies, without a probability."""
    # The d x d product below squares: without a scale, 1e-22 would become zero in float32.
    scale = nonzero(jnp.max(jnp.abs(matrix)))

    def certify(weights: Array, key: Array) -> tuple[Array, Array, Array]:
        weighted = matrix / (scale * jnp.sqrt(weights))
        gram = weighted.T @ weighted
        # All steps: the guess decides how sharp the limit is, and costs no product with J.
        found = spectral.largest_eigenvalue(lambda v: gram @ v, weights.shape, key, tolerance=0.0, dtype=weights.dtype)
        # Rounding of the d x d product and of its factor.
        slack = 1 + _numerics.rounding(weights.size, weights.dtype)
        limit = _numerics.eigenvalue_limit(gram, found.attained)
        return scale * slack * jnp.sqrt(limit), found.direction, jnp.zeros((), jnp.int32)

    return Operator(lambda s: matrix @ s, lambda u: matrix.T @ u, 0, certify)


def ascend(
    operator: Operator, best: Best, rounds: int, corner_steps: int, key: Array, chunk: int | None
) -> tuple[Best, Array]:
    """Rounds of ``V <- normalize_columns(V P)``, then ``s <- sign(P s)`` from random projections of V.

    The first part has momentum and gives the weights, the second (Goemans and Williamson's rounding) the corners, of
    which the best is kept. One loop for both: products with a network are what takes long to compile.
    """

    def gram(row: Array) -> tuple[Array, Array, Array]:
        """``||B s||``, and ``B^T B s`` as a factor and a vector, since J may be too small to be squared."""
        image = operator.matvec(row)
        largest = nonzero(jnp.max(jnp.abs(image)))
        return _numerics.norm(image), largest, operator.rmatvec(image / largest)

    projection = jax.random.normal(key, (len(best.rows),) * 2, best.rows.dtype)

    def one(step, state):
        rows, previous, signs, weights, top, top_signs = state
        climbing = step >= rounds
        moved = jnp.where(climbing, signs, rows + _MOMENTUM * (rows - previous))
        values, scales, images = map_over(gram, moved, chunk)
        # Common to all rows, so that the columns keep their proportions.
        images = images * (scales / nonzero(jnp.max(scales)))[:, None]
        found = _column_norms(images)
        following = unit_columns(images)
        corners = jnp.where(climbing, images, projection @ following)
        winner = jnp.argmax(values)
        # NaN compares false: a product without a number must not be passed over.
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
    """Certify some weights, and keep them where their bound is the smallest so far."""
    mean = jnp.mean(weights)
    # Only ratios of weights matter: with a mean of one, nothing under- or overflows.
    weights = jnp.where(mean == 0, 1, weights / nonzero(mean) + _LIFT)
    sigma, vector, products = operator.certify(weights, key)
    # The certificate's slack is for its own products, this one for the weights and for the products with corners.
    upper = jnp.sqrt(jnp.sum(weights)) * sigma * (1 + _numerics.rounding(weights.size, weights.dtype))
    better = ~(upper >= best.upper)
    return best._replace(
        upper=jnp.where(better, upper, best.upper),
        weights=jnp.where(better, weights, best.weights),
        vector=jnp.where(better, vector, best.vector),
        products=best.products + products,
    )
