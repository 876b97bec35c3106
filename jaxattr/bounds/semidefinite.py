"""Bound the l-infinity deviation by the semidefinite relaxation, by products with J."""

from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
from jax import Array

from jaxattr import _checks, _numerics
from jaxattr._spec import described
from jaxattr.balls import Ball, LInf
from jaxattr.bounds import _relaxation
from jaxattr.bounds._result import DeviationBound, require_ball
from jaxattr.bounds._sign_form import SignForm
from jaxattr.bounds.entrywise import absolute_row_sums
from jaxattr.jacobian import attribution_jacobian
from jaxattr.method import Method
from jaxattr.programs.guard import Kinks
from jaxattr.types import AttributionFn

Algorithm = Literal["products", "dense"]
Include = Literal["norm_relaxation", "entrywise"]


@described
def semidefinite(
    attribute: AttributionFn,
    ball: Ball,
    *,
    within_box: bool = False,
    method: Algorithm | None = None,
    rank: int | None = None,
    rounds: int | None = None,
    cycles: int = 1,
    tolerance: float = 0.0,
    num_steps: int = 40,
    confidence: float = 0.999,
    certificate_tolerance: float = 0.01,
    corner_steps: int = 2,
    include: tuple[Include, ...] = (),
    chunk: int | None = 32,
    linearize: bool = True,
    kinks: Kinks = "refuse",
) -> Method[DeviationBound]:
    r"""Bound the deviation over an l-infinity ball by a dual point of the semidefinite relaxation.

    For every u > 0, with ``P = J^T J`` and ``D = diag(u)``,

        max_{|delta_i| <= epsilon} delta^T P delta  <=  epsilon^2 * sum(u) * lambda_max(D^-1/2 P D^-1/2).

    u = 1 is :func:`~jaxattr.bounds.norm_relaxation`, ``u_i = sum_j |P_ij|`` is at most
    :func:`~jaxattr.bounds.entrywise`, and the minimum over u is the semidefinite bound ``min {sum(u) : diag(u) - P >=
    0}``, whose root is at most ``sqrt(pi/2) = 1.2533`` times the true maximum (Nesterov 1998). A good u comes from
    ascent on the primal: rows ``V <- normalize_columns(V P)`` (r x d, unit columns, with momentum), ``u_i = ||(V
    P)_i||``. One Lanczos run certifies it, with a stated confidence; random projections of V, made better by ``s <-
    sign(P s)``, give the attained value.

    With the defaults that is at most 170 products: ``2 * rank * (rounds + corner_steps + 1)`` for u and the corners,
    ``2 * num_steps`` at most for the certificate and 2 for the result; ``products`` of the result counts them.
    ``dense`` forms J instead (``d`` products at most, see :meth:`jaxattr.AttributionJacobian.dense`); rounds, corners
    and an exact certificate then cost none, and both other bounds are always among the candidates. Which way was taken
    is in the result: its ``methods`` are ``("semidefinite",)`` or ``("semidefinite_dense",)``.

    The box needs no other mathematics: ``[J diag(h), J c]`` takes the place of J (:mod:`jaxattr.bounds._sign_form`).

    Args:
      attribute: ``(logits_fn, x, label) -> map``.
      ball: an :class:`~jaxattr.LInf`.
      within_box: use that ``x + delta`` stays in the ball's box.
      method: ``products`` or ``dense``; where it is not given, the one that takes fewer products with J by their
        count above: ``dense`` for up to 170 features with the defaults.
      rank: rows of V; by default 4, or 8 for ``dense``.
      rounds: of the ascent, in each cycle; by default 8, or 60 for ``dense``.
      cycles: at most so many times rounds, corners and a certificate; the best of each is kept.
      tolerance: stop after the cycle that brings ``euclidean / euclidean_attained - 1`` to this or below.
      num_steps: Krylov steps of a certificate at most (``products``).
      confidence: probability with which the bound holds (``products``); several certificates share what may fail.
      certificate_tolerance: a certificate's run ends when its upper value is above what it attains by no more than this
        share (``products``); 0 makes all steps. See :func:`~jaxattr.bounds.singular_value`.
      corner_steps: sign iterations for each of ``rank`` random projections of V, in each cycle.
      include: bounds that the result is never above: ``norm_relaxation`` costs another certificate, ``entrywise`` one
        and a dense J.
      chunk: rows of V, or rows or columns of J, evaluated at once.
      linearize: see :func:`jaxattr.attribution_jacobian`.
      kinks: what to do with a network that is not twice differentiable; see :func:`jaxattr.attribution_jacobian`.

    Returns:
      ``bound(logits_fn, x, label, key) -> DeviationBound``. ``euclidean`` carries ``8 sqrt(d)`` units in the last
      place for rounding.

    Raises:
      TypeError: if the ball is not an ``LInf`` or the attribution no function.
      ValueError: if an option is out of range; on call as :func:`~jaxattr.bounds.singular_value`.

    References:
      Goemans and Williamson 1995; Nesterov 1998; Burer and Monteiro 2003 (the rows); Journee et al. 2010 (the ascent).

    Example:
      >>> import jax, jax.numpy as jnp
      >>> import jaxattr as ja
      >>> A = 3 * jnp.eye(3) - 1  # P = 3 A: the best corner 24, the relaxation 27, the sum of entries 36
      >>> logits_fn = lambda x: jnp.stack([x @ A @ x / 2, 0.0])
      >>> bound = ja.bounds.semidefinite(ja.attributions.saliency(), ja.LInf(0.1), method="dense")
      >>> result = jax.jit(bound, static_argnums=0)(logits_fn, jnp.full(3, 0.5), 0, jax.random.key(0))
      >>> round(float(result.slope**2), 2), round(float(result.euclidean_attained / 0.1) ** 2, 2)
      (27.0, 24.0)
    """
    _checks.attribution(attribute)
    require_ball(ball, LInf, "semidefinite", "`singular_value`")
    if method is not None:
        _checks.choice("method", method, get_args(Algorithm))
    counts = {"rank": rank, "rounds": rounds, "cycles": cycles, "num_steps": num_steps, "corner_steps": corner_steps}
    for name, value in counts.items():
        if value is not None:
            _checks.positive_int(name, value)
    _checks.non_negative("certificate_tolerance", certificate_tolerance)
    included = _check_rest(tolerance, confidence, chunk, include)

    def bound(logits_fn, x, label, key):
        x = _checks.sample(x)
        jacobian = attribution_jacobian(
            attribute, logits_fn, x, label, linearize=linearize, kinks=kinks, method="semidefinite"
        )
        search = _Search.chosen(method, jacobian.value.size, rank, rounds, cycles, num_steps, corner_steps, included)
        dense, names, certificates = search.dense, search.names, cycles + len(search.names)
        form, dtype = SignForm.of(jacobian, ball, x, within_box), jacobian.value.dtype
        key_rows, key_corners, key_certificates = jax.random.split(key, 3)
        keys = jax.random.split(key_certificates, certificates)
        # Gradients do not pass through the search for u and s, only through the values at its result (see the end).
        if dense or "entrywise" in names:
            matrix, products = form.dense(chunk), jacobian.dense_products()
            fixed, apply = jax.lax.stop_gradient(matrix), lambda v: matrix @ v
        else:
            products, fixed, apply = jnp.zeros((), jnp.int32), None, lambda v: form.matvec(v).ravel()
        if dense and fixed is not None:
            operator = _relaxation.of_matrix(fixed)
        else:
            matvec = _numerics.constant(form.matvec, jax.ShapeDtypeStruct((form.size,), dtype))
            rmatvec = _numerics.constant(form.rmatvec, jacobian.value)
            certainty = 1 - (1 - confidence) / certificates
            operator = _relaxation.of_products(matvec, rmatvec, num_steps, certainty, certificate_tolerance)

        with jax.default_matmul_precision("highest"):
            rows = jax.random.normal(key_rows, (search.rank, form.size), dtype)
            best = _relaxation.start(_relaxation.unit_columns(rows), products)
            for name, key_one in zip(names, keys[cycles:], strict=True):
                weights, limit = _dual_of(name, fixed, form.size, dtype, chunk)
                best = _relaxation.consider(operator, best, weights, key_one)
                best = best._replace(upper=jnp.minimum(best.upper, limit))

            def cycle(best: _relaxation.Best) -> _relaxation.Best:
                key_one = jax.random.fold_in(key_corners, best.cycle)
                best, weights = _relaxation.ascend(operator, best, search.rounds, corner_steps, key_one, chunk)
                best = _relaxation.consider(operator, best, weights, keys[best.cycle])
                return best._replace(cycle=best.cycle + 1)

            def going(best: _relaxation.Best) -> Array:
                return (best.cycle < cycles) & ~(best.upper <= (1 + tolerance) * best.attained)

            best = cycle(best) if cycles == 1 else jax.lax.while_loop(going, cycle, best)
            best = jax.lax.stop_gradient(best)
            # Differentiate the weighted norm and the value at the corner with the found u and s held constant (envelope
            # theorem).
            values = jax.vmap(apply)(jnp.stack([best.vector / jnp.sqrt(best.weights), best.signs]))
            reached = _numerics.norm(values[0]) * jnp.sqrt(jnp.sum(best.weights))
            attained = _numerics.norm(values[1])
        excess = jax.lax.stop_gradient(best.upper / _relaxation.nonzero(reached))
        slope = _numerics.with_derivative(best.upper, reached * excess)
        return DeviationBound.from_slope(
            "semidefinite_dense" if dense else "semidefinite",
            ball,
            sample=x,
            value=jacobian.value,
            direction=form.direction(best.signs),
            slope=slope,
            attained_slope=attained,
            confidence=1.0 if dense else confidence,
            products=best.products + (0 if fixed is not None else 2),
            two_sided=not within_box,
            kinks=jacobian.kinks,
        )

    return Method("semidefinite", bound, ball)


class _Search(NamedTuple):
    """Settings of the search for u, given or chosen by the number of features."""

    dense: bool
    rank: int
    rounds: int
    names: tuple[str, ...]

    @classmethod
    def chosen(cls, method, size, rank, rounds, cycles, num_steps, corner_steps, names) -> "_Search":
        """Choose the settings, with the defaults of rank and rounds that the method takes."""
        lengths = (rounds or 8) + corner_steps + 1
        products = cycles * 2 * (rank or 4) * lengths + (cycles + len(names)) * 2 * num_steps + 2
        # The entries of P take a dense J in any case.
        dense = method == "dense" or (method is None and (size <= products or "entrywise" in names))
        if dense:
            return cls(True, rank or 8, rounds or 60, get_args(Include))
        return cls(False, rank or 4, rounds or 8, names)


def _dual_of(name: str, matrix: Array | None, size: int, dtype: Any, chunk: int | None) -> tuple[Array, Any]:
    """Return the weights u of the dual point behind another bound, and that bound itself where it is known already."""
    if name == "norm_relaxation" or matrix is None:
        return jnp.ones(size, dtype), jnp.inf
    # A row sum of P squares J: divide by the largest entry first.
    largest = _relaxation.nonzero(jnp.max(jnp.abs(matrix)))
    sums = absolute_row_sums(matrix / largest, chunk)
    return sums, largest * jnp.sqrt(jnp.sum(sums)) * (1 + _numerics.rounding(size, dtype))


def _check_rest(tolerance: float, confidence: float, chunk: int | None, include: Any) -> tuple[str, ...]:
    """Return the names in ``include``, each once, after checking the other options."""
    _checks.probability("confidence", confidence)
    if chunk is not None:
        _checks.positive_int("chunk", chunk)
    if not 0 <= tolerance < float("inf"):
        raise ValueError(f"`tolerance` must be a finite number of at least 0, got {tolerance!r}.")
    if isinstance(include, str):
        raise TypeError(f"`include` must be a tuple of names, got {include!r}. For one: `include=({include!r},)`.")
    for name in include:
        _checks.choice("include", name, get_args(Include))
    return tuple(dict.fromkeys(include))
