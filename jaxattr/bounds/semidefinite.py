"""The semidefinite relaxation of the l-infinity bound, by products with J."""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
from jax import Array

from jaxattr import _checks, _numerics, spectral
from jaxattr.balls import Ball, LInf, OverBall
from jaxattr.bounds.entrywise import absolute_row_sums
from jaxattr.bounds.result import DeviationBound, require_ball
from jaxattr.bounds.sign_form import SignForm
from jaxattr.chunking import map_over
from jaxattr.jacobian import attribution_jacobian
from jaxattr.types import Attribution, Bound

Method = Literal["products", "dense"]
Include = Literal["norm_relaxation", "entrywise"]

# Dead pixels (columns of B that are zero) get a weight all the same: they do not divide by zero, and cost 0.05 %.
_LIFT = 1e-3
# Of the step before, added to each round: 0.5 does in 8 rounds what takes 12 without; above 0.9 it hurts.
_MOMENTUM = 0.5


class _Operator(NamedTuple):
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


class _Best(NamedTuple):
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


def semidefinite(
    attribute: Attribution,
    ball: Ball,
    *,
    within_box: bool = False,
    method: Method = "products",
    rank: int | None = None,
    rounds: int | None = None,
    cycles: int = 1,
    tolerance: float = 0.0,
    num_steps: int = 40,
    confidence: float = 0.999,
    corner_steps: int = 2,
    include: tuple[Include, ...] = (),
    chunk: int | None = 32,
    linearize: bool = True,
) -> Bound:
    r"""Bound the deviation over an l-infinity ball by a dual point of the semidefinite relaxation.

    For every u > 0, with ``P = J^T J`` and ``D = diag(u)``,

        max_{|delta_i| <= epsilon} delta^T P delta  <=  epsilon^2 * sum(u) * lambda_max(D^-1/2 P D^-1/2).

    u = 1 is Corollary 1 of paper 000, ``u_i = sum_j |P_ij|`` is at most its Theorem 2, and the minimum over u is the
    semidefinite bound ``min {sum(u) : diag(u) - P >= 0}``, whose root is at most ``sqrt(pi/2) = 1.2533`` times the true
    maximum (Nesterov 1998). A good u comes from ascent on the primal: rows ``V <- normalize_columns(V P)`` (r x d, unit
    columns, with momentum), ``u_i = ||(V P)_i||``. One Lanczos run certifies it, with a stated confidence; random
    projections of V, made better by ``s <- sign(P s)``, give the attained value.

    With the defaults that is 170 products: ``2 * rank * (rounds + corner_steps + 1)`` for u and the corners, ``2 *
    num_steps`` for the certificate and 2 for the result; ``products`` of the result counts them.
    ``dense`` forms J instead (``d`` products at most, see :meth:`jaxattr.AttributionJacobian.dense`); rounds, corners
    and an exact certificate then cost none, and Theorem 2 and Corollary 1 are always among the candidates.

    The box needs no other mathematics: ``[J diag(h), J c]`` takes the place of J (:mod:`jaxattr.bounds.sign_form`).

    Args:
      attribute: ``(logits_fn, x, label) -> map``.
      ball: an :class:`~jaxattr.LInf`.
      within_box: use that ``x + delta`` stays in the ball's box.
      method: ``products`` or ``dense``.
      rank: rows of V; by default 4, or 8 for ``dense``.
      rounds: of the ascent, in each cycle; by default 8, or 60 for ``dense``.
      cycles: at most so many times rounds, corners and a certificate; the best of each is kept.
      tolerance: stop after the cycle that brings ``euclidean / euclidean_attained - 1`` to this or below.
      num_steps: Krylov steps of a certificate (``products``).
      confidence: probability with which the bound holds (``products``); several certificates share what may fail.
      corner_steps: sign iterations for each of ``rank`` random projections of V, in each cycle.
      include: bounds that the result is never above: ``norm_relaxation`` costs another certificate, ``entrywise`` one
        and a dense J.
      chunk: rows of V, or rows or columns of J, evaluated at once.
      linearize: see :func:`jaxattr.attribution_jacobian`.

    Returns:
      ``bound(logits_fn, x, label, key) -> DeviationBound``.

    Raises:
      TypeError: if the ball is not an ``LInf``.
      ValueError: if an option is out of range; on call as :func:`~jaxattr.bounds.singular_value`.

    References:
      Goemans and Williamson 1995; Nesterov 1998; Burer and Monteiro 2003 (the rows); Journee et al. 2010 (the ascent).

    Example:
      >>> import jax, jax.numpy as jnp
      >>> import jaxattr as ja
      >>> A = 3 * jnp.eye(3) - 1  # P = 3 A: the best corner 24, the relaxation 27, Theorem 2 36
      >>> logits_fn = lambda x: jnp.stack([x @ A @ x / 2, 0.0])
      >>> bound = ja.bounds.semidefinite(ja.attributions.saliency(), ja.LInf(0.1), method="dense")
      >>> result = bound(logits_fn, jnp.full(3, 0.5), 0, jax.random.key(0))
      >>> round(float(result.slope**2), 2), round(float(result.euclidean_attained / 0.1) ** 2, 2)
      (27.0, 24.0)
    """
    require_ball(ball, LInf, "semidefinite", "`singular_value`")
    _checks.choice("method", method, get_args(Method))
    dense = method == "dense"
    rank = _checks.positive_int("rank", (8 if dense else 4) if rank is None else rank)
    rounds = _checks.positive_int("rounds", (60 if dense else 8) if rounds is None else rounds)
    for name, value in {"cycles": cycles, "num_steps": num_steps, "corner_steps": corner_steps}.items():
        _checks.positive_int(name, value)
    _checks.probability("confidence", confidence)
    if chunk is not None:
        _checks.positive_int("chunk", chunk)
    if not 0 <= tolerance < float("inf"):
        raise ValueError(f"`tolerance` must be a finite number of at least 0, got {tolerance!r}.")
    if isinstance(include, str):
        raise TypeError(f"`include` must be a tuple of names, got {include!r}. For one: `include=({include!r},)`.")
    for name in include:
        _checks.choice("include", name, get_args(Include))
    names = get_args(Include) if dense else tuple(dict.fromkeys(include))
    certificates = cycles + len(names)

    def bound(logits_fn, x, label, key):
        x = _checks.sample(x)
        jacobian = attribution_jacobian(attribute, logits_fn, x, label, linearize=linearize)
        form = SignForm.of(jacobian, ball, x, within_box)
        key_rows, key_corners, key_certificates = jax.random.split(key, 3)
        keys = jax.random.split(key_certificates, certificates)
        # The search for u and s is no function to differentiate: what it found is, see the end.
        matvec = _numerics.constant(form.matvec, jax.ShapeDtypeStruct((form.size,), x.dtype))
        rmatvec = _numerics.constant(form.rmatvec, jacobian.value)
        matrix = form.dense(chunk) if dense or "entrywise" in names else None
        if dense:
            operator = _of_matrix(jax.lax.stop_gradient(matrix))
        else:
            operator = _of_products(matvec, rmatvec, num_steps, 1 - (1 - confidence) / certificates)
        rows = _unit_columns(jax.random.normal(key_rows, (rank, form.size), x.dtype))
        products = jnp.zeros((), jnp.int32) if matrix is None else jacobian.dense_products()

        with jax.default_matmul_precision("highest"):
            best = _start(rows, products)
            for name, key_one in zip(names, keys[cycles:], strict=True):
                weights = jnp.ones(form.size, x.dtype)
                if name == "entrywise":
                    fixed = jax.lax.stop_gradient(matrix)
                    weights = absolute_row_sums(fixed / _nonzero(jnp.max(jnp.abs(fixed))), chunk)
                best = _consider(operator, best, weights, key_one)

            def cycle(best: _Best) -> _Best:
                key_one = jax.random.fold_in(key_corners, best.cycle)
                best, weights = _ascend(operator, best, rounds, corner_steps, key_one, chunk)
                best = _consider(operator, best, weights, keys[best.cycle])
                return best._replace(cycle=best.cycle + 1)

            def going(best: _Best) -> Array:
                return (best.cycle < cycles) & ~(best.upper <= (1 + tolerance) * best.attained)

            best = cycle(best) if cycles == 1 else jax.lax.while_loop(going, cycle, best)
            best = jax.lax.stop_gradient(best)
            # Derivatives are those of the weighted norm and of the corner at what was found (envelope theorem).
            found = jnp.stack([best.vector / jnp.sqrt(best.weights), best.signs])
            values = found @ matrix.T if dense else jax.vmap(lambda v: form.matvec(v).ravel())(found)
            reached = _numerics.norm(values[0]) * jnp.sqrt(jnp.sum(best.weights))
            attained = _numerics.norm(values[1])
        excess = jax.lax.stop_gradient(best.upper / _nonzero(reached))
        return DeviationBound.from_slope(
            "semidefinite",
            ball,
            value=jacobian.value,
            direction=form.direction(best.signs),
            slope=reached * excess,
            attained_slope=attained,
            confidence=1.0 if dense else confidence,
            products=best.products + (0 if dense else 2),
            two_sided=not within_box,
        )

    return OverBall(bound, ball)


def _nonzero(value: Array) -> Array:
    return jnp.where(value == 0, 1, value)


def _column_norms(rows: Array) -> Array:
    # Relative to the largest entry: squares of 1e-22 are zero in float32.
    largest = _nonzero(jnp.max(jnp.abs(rows)))
    return largest * jnp.linalg.norm(rows / largest, axis=0)


def _unit_columns(rows: Array) -> Array:
    norms = _column_norms(rows)
    # A dead pixel has no direction: any unit column is right.
    return jnp.where(norms > 0, rows / _nonzero(norms), 1 / jnp.sqrt(jnp.asarray(len(rows), rows.dtype)))


def _start(rows: Array, products: Array) -> _Best:
    ones, zero = jnp.ones_like(rows[0]), jnp.zeros((), rows.dtype)
    count = jnp.zeros((), jnp.int32)
    return _Best(rows, rows, zero + jnp.inf, ones, jnp.zeros_like(ones), zero - 1, ones, products + count, count)


def _of_products(matvec, rmatvec, num_steps: int, confidence: float) -> _Operator:
    def certify(weights: Array, key: Array) -> tuple[Array, Array, Array]:
        root = jnp.sqrt(weights)
        found = spectral.largest_singular_value(
            lambda v: matvec(v / root),
            lambda u: rmatvec(u) / root,
            weights.shape,
            key,
            num_steps=num_steps,
            confidence=confidence,
            dtype=weights.dtype,
            verify=False,
        )
        return found.upper, found.direction, found.products

    return _Operator(matvec, rmatvec, 1, certify)


def _of_matrix(matrix: Array) -> _Operator:
    # The d x d product below squares: without a scale, 1e-22 would become zero in float32.
    scale = _nonzero(jnp.max(jnp.abs(matrix)))

    def certify(weights: Array, _: Array) -> tuple[Array, Array, Array]:
        weighted = matrix / (scale * jnp.sqrt(weights))
        values, vectors = jnp.linalg.eigh(weighted.T @ weighted)
        # Rounding of the d x d product and of the eigenvalue.
        slack = 1 + 4 * jnp.sqrt(jnp.asarray(weights.size, weights.dtype)) * jnp.finfo(weights.dtype).eps
        return scale * slack * jnp.sqrt(jnp.maximum(values[-1], 0)), vectors[:, -1], jnp.zeros((), jnp.int32)

    return _Operator(lambda s: matrix @ s, lambda u: matrix.T @ u, 0, certify)


def _ascend(
    operator: _Operator, best: _Best, rounds: int, corner_steps: int, key: Array, chunk: int | None
) -> tuple[_Best, Array]:
    """Rounds of ``V <- normalize_columns(V P)``, then ``s <- sign(P s)`` from random projections of V.

    The first part has momentum and gives the weights, the second (Goemans and Williamson's rounding) the corners, of
    which the best is kept. One loop for both: products with a network are what takes long to compile.
    """

    def gram(row: Array) -> tuple[Array, Array, Array]:
        """``||B s||``, and ``B^T B s`` as a factor and a vector, since J may be too small to be squared."""
        image = operator.matvec(row)
        largest = _nonzero(jnp.max(jnp.abs(image)))
        return _numerics.norm(image), largest, operator.rmatvec(image / largest)

    projection = jax.random.normal(key, (len(best.rows),) * 2, best.rows.dtype)

    def one(step, state):
        rows, previous, signs, weights, top, top_signs = state
        climbing = step >= rounds
        moved = jnp.where(climbing, signs, rows + _MOMENTUM * (rows - previous))
        values, scales, images = map_over(gram, moved, chunk)
        # Common to all rows, so that the columns keep their proportions.
        images = images * (scales / _nonzero(jnp.max(scales)))[:, None]
        found = _column_norms(images)
        following = _unit_columns(images)
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
    start = (best.rows, best.previous, ones, ones[0], best.attained, best.signs)
    total = rounds + corner_steps + 1
    rows, previous, _, weights, attained, signs = jax.lax.fori_loop(0, total, one, start)
    products = best.products + 2 * operator.cost * total * len(rows)
    kept = best._replace(rows=rows, previous=previous, attained=attained, signs=signs, products=products)
    return kept, weights


def _consider(operator: _Operator, best: _Best, weights: Array, key: Array) -> _Best:
    """Certify some weights, and keep them where their bound is the smallest so far."""
    mean = jnp.mean(weights)
    # Only ratios of weights matter: with a mean of one, nothing under- or overflows.
    weights = jnp.where(mean == 0, 1, weights / _nonzero(mean) + _LIFT)
    sigma, vector, products = operator.certify(weights, key)
    upper = jnp.sqrt(jnp.sum(weights)) * sigma
    better = ~(upper >= best.upper)
    return best._replace(
        upper=jnp.where(better, upper, best.upper),
        weights=jnp.where(better, weights, best.weights),
        vector=jnp.where(better, vector, best.vector),
        products=best.products + products,
    )
