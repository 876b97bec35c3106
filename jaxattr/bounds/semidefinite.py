"""Bound the l-infinity deviation by the semidefinite relaxation, by products with J."""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
from jax import Array

from jaxattr import _checks, _numerics
from jaxattr._cost import times
from jaxattr._spec import described
from jaxattr.attribution import as_attribution
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

# Rows of V and rounds of the ascent by default. Rounds cost products with J, or nothing where J is a matrix.
_DEFAULTS = {"products": {"rank": 4, "rounds": 8}, "dense": {"rank": 8, "rounds": 60}}


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
    attribute = as_attribution(attribute)
    require_ball(ball, LInf, "semidefinite", "`singular_value`")
    certificates = _Certificates(num_steps, confidence, certificate_tolerance, include).checked()
    options = _Options(method, rank, rounds, cycles, corner_steps, tolerance, chunk, certificates).checked()

    def bound(logits_fn, x, label, key):
        x = _checks.sample(x)
        jacobian = attribution_jacobian(
            attribute, logits_fn, x, label, linearize=linearize, kinks=kinks, method="semidefinite"
        )
        form = SignForm.of(jacobian, ball, x, within_box)
        problem = (_by_matrix if options.dense(jacobian.value.size) else _by_products)(form, options)
        with jax.default_matmul_precision("highest"):
            best = _relaxation.solve(
                problem.operator, problem.candidates, problem.search, key, form.size, jacobian.value.dtype
            )
            slope, attained = _values(problem, best)
        return DeviationBound.from_slope(
            problem.name,
            ball,
            sample=x,
            value=jacobian.value,
            direction=form.direction(best.signs),
            slope=slope,
            attained_slope=attained,
            confidence=problem.confidence,
            products=best.products + problem.products,
            two_sided=not within_box,
            kinks=jacobian.kinks,
        )

    def gradients(size):
        return times(2 * (size if options.dense(size) else options.products(size)), attribute.gradients)

    return Method("semidefinite", bound, ball, gradients=gradients)


class _Certificates(NamedTuple):
    """The options that ``products`` alone uses; ``dense`` proves its certificates, and includes both other bounds."""

    num_steps: int
    confidence: float
    tolerance: float
    include: tuple[Include, ...]

    def checked(self) -> "_Certificates":
        """Return the options with each name of ``include`` once, or refuse them."""
        _checks.positive_int("num_steps", self.num_steps)
        _checks.probability("confidence", self.confidence)
        _checks.non_negative("certificate_tolerance", self.tolerance)
        if isinstance(self.include, str):
            given = self.include
            raise TypeError(f"`include` must be a tuple of names, got {given!r}. For one: `include=({given!r},)`.")
        for name in self.include:
            _checks.choice("include", name, get_args(Include))
        return self._replace(include=tuple(dict.fromkeys(self.include)))


class _Options(NamedTuple):
    """The options of the search, as given; ``None`` stands for a default that depends on the method."""

    method: Algorithm | None
    rank: int | None
    rounds: int | None
    cycles: int
    corner_steps: int
    tolerance: float
    chunk: int | None
    certificates: _Certificates

    def checked(self) -> "_Options":
        """Return the options, or refuse them."""
        if self.method is not None:
            _checks.choice("method", self.method, get_args(Algorithm))
        for name in ("rank", "rounds", "cycles", "corner_steps", "chunk"):
            if getattr(self, name) is not None:
                _checks.positive_int(name, getattr(self, name))
        _checks.non_negative("tolerance", self.tolerance)
        return self

    def search(self, method: Algorithm) -> _relaxation.Search:
        """Return the lengths of the search, with the method's defaults of rank and rounds."""
        rank, rounds = (getattr(self, name) or default for name, default in _DEFAULTS[method].items())
        return _relaxation.Search(rank, rounds, self.cycles, self.corner_steps, self.tolerance, self.chunk)

    @property
    def runs(self) -> int:
        """Return the number of certificates that ``products`` makes at most."""
        return self.cycles + len(self.certificates.include)

    def products(self, size: int) -> int:
        """Return the number of products with J that ``products`` takes at most, with a dense J where it forms one."""
        formed = size if "entrywise" in self.certificates.include else 2
        return self.search("products").applications + self.runs * 2 * self.certificates.num_steps + formed

    def dense(self, size: int) -> bool:
        """Return whether the bound forms J and nothing else: asked for, or taking no more products."""
        if self.method is None:
            return size <= self.products(size)
        return self.method == "dense"


class _Problem(NamedTuple):
    """The relaxation of one sample, in the form that its solver takes.

    Attributes:
      name: of the method in the result.
      operator: B, for the search; it has no derivative.
      candidates: dual points of other bounds, which the result is never above.
      search: lengths of the search.
      apply: ``s -> B s`` with a derivative.
      products: products with J that the search does not count.
      confidence: probability with which the bound holds.
    """

    name: str
    operator: _relaxation.Operator
    candidates: tuple[_relaxation.Candidate, ...]
    search: _relaxation.Search
    apply: Callable[[Array], Array]
    products: Any
    confidence: float


def _by_products(form: SignForm, options: _Options) -> _Problem:
    """Build the problem of ``products``: Krylov runs certify, and J is formed only where its entries are asked for."""
    value = form.jacobian.value
    matvec = _numerics.constant(form.matvec, jax.ShapeDtypeStruct((form.size,), value.dtype))
    rmatvec = _numerics.constant(form.rmatvec, value)
    # The certificates share the probability of failing.
    steps, confidence, tolerance, include = options.certificates
    certainty = 1 - (1 - confidence) / options.runs
    operator = _relaxation.of_products(matvec, rmatvec, steps, certainty, tolerance)
    matrix, apply, products = None, lambda v: form.matvec(v).ravel(), 2
    if "entrywise" in include:
        matrix, products = form.dense(options.chunk), form.jacobian.dense_products()
        apply = lambda v: matrix @ v  # noqa: E731
    candidates = tuple(_candidate(name, form.size, value.dtype, matrix, options.chunk) for name in include)
    return _Problem("semidefinite", operator, candidates, options.search("products"), apply, products, confidence)


def _by_matrix(form: SignForm, options: _Options) -> _Problem:
    """Build the problem of ``dense``: J is a matrix, and both other bounds are candidates."""
    matrix, dtype = form.dense(options.chunk), form.jacobian.value.dtype
    return _Problem(
        "semidefinite_dense",
        _relaxation.of_matrix(jax.lax.stop_gradient(matrix)),
        tuple(_candidate(name, form.size, dtype, matrix, options.chunk) for name in get_args(Include)),
        options.search("dense"),
        lambda v: matrix @ v,
        form.jacobian.dense_products(),
        1.0,
    )


def _candidate(name: Include, size: int, dtype: Any, matrix: Array | None, chunk: int | None) -> _relaxation.Candidate:
    """Return the dual point behind another bound, with that bound where it is known without a certificate."""
    if name == "norm_relaxation" or matrix is None:
        return _relaxation.Candidate(jnp.ones(size, dtype), jnp.inf)
    matrix = jax.lax.stop_gradient(matrix)
    # A row sum of P squares J: divide by the largest entry first.
    largest = _relaxation.nonzero(jnp.max(jnp.abs(matrix)))
    sums = absolute_row_sums(matrix / largest, chunk)
    limit = largest * jnp.sqrt(jnp.sum(sums)) * (1 + _numerics.rounding(size, dtype))
    return _relaxation.Candidate(sums, limit)


def _values(problem: _Problem, best: _relaxation.Best) -> tuple[Array, Array]:
    """Return the upper and the attained value per unit of epsilon, with their derivatives.

    The derivative is that of the weighted norm and of the value at the corner, with the found u and s held constant
    (envelope theorem). No derivative passes through the search.
    """
    values = jax.vmap(problem.apply)(jnp.stack([best.vector / jnp.sqrt(best.weights), best.signs]))
    reached = _numerics.norm(values[0]) * jnp.sqrt(jnp.sum(best.weights))
    excess = jax.lax.stop_gradient(best.upper / _relaxation.nonzero(reached))
    return _numerics.with_derivative(best.upper, reached * excess), _numerics.norm(values[1])
