"""Bound the deviation under the label constraints of all classes, which may exclude both signs of a maximizer."""

import dataclasses
import math
from typing import Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
from jax import Array

from jaxattr import _checks, _numerics, spectral
from jaxattr._chunking import map_over
from jaxattr._spec import described
from jaxattr.balls import L2, Ball, require
from jaxattr.bounds._half_spaces import Coordinates, best_dual, climb, dense_upper_value, upper_value
from jaxattr.bounds._result import DeviationBound, cosine_from_euclidean, require_result
from jaxattr.bounds.label_constraint import LabelRegion, label_region
from jaxattr.bounds.norm_relaxation import norm_relaxation
from jaxattr.bounds.singular_value import singular_value
from jaxattr.jacobian import AttributionJacobian, attribution_jacobian
from jaxattr.method import Calling, Method
from jaxattr.programs.guard import Kinks
from jaxattr.types import Attribution, Bound

Algorithm = Literal["products", "dense"]

# Draw this many points with the moments of the relaxed solution; the best one gives the attained value.
_POINTS = 32


class LabelConstrainedBound(NamedTuple):
    """A bound with and without the label constraints of all competing classes.

    Attributes:
      bound: over the perturbations of the ball that keep the label, to first order. Where both signs are excluded, its
        ``direction`` is one that keeps the label, shorter than the ball allows if need be, and
        ``euclidean_attained`` belongs to that. Elsewhere it is ``unconstrained``, with the sign that keeps the label.
        It is not ``two_sided``, and not proportional to the radius.
      unconstrained: over the whole ball.
      keeps_plus: whether ``+epsilon * unconstrained.direction`` keeps the label, to first order.
      keeps_minus: the same for ``-epsilon * unconstrained.direction``; false for a base that is not ``two_sided``.
      both_excluded: whether neither does, although x itself has the label: ``unconstrained`` is not attained there.
    """

    bound: DeviationBound
    unconstrained: DeviationBound
    keeps_plus: Array
    keeps_minus: Array
    both_excluded: Array


class _Options(NamedTuple):
    """Options of the bound under label constraints."""

    dense: bool
    num_steps: int
    newton_steps: int
    competitors: int
    confidence: float
    chunk: int | None
    linearize: bool
    kinks: Kinks


@described
def label_constrained(
    attribute: Attribution,
    ball: Ball,
    *,
    base: Bound | None = None,
    method: Algorithm = "products",
    num_steps: int = 40,
    newton_steps: int = 20,
    competitors: int = 9,
    confidence: float = 0.999,
    chunk: int | None = 32,
    linearize: bool = True,
    kinks: Kinks = "refuse",
) -> Method[LabelConstrainedBound]:
    """Bound the deviation over the perturbations that keep the label against ALL other classes, to first order.

        T_e = max ||J delta||  over  ||delta|| <= epsilon,  <grad f_k - grad f_y, delta> <= f_y - f_k  for all k

    Of a maximizer over the ball and its negative, one half-space excludes at most one, which is why the constraint of
    Wang and Kong 2023 (Section 4.3) does not change their bounds. Two half-spaces can exclude both. The bound is then
    smaller: by the products of half-spaces of :mod:`jaxattr.bounds._half_spaces`, whose multipliers are chosen in the
    span of the normals and of a Krylov space of J. Any choice of multipliers gives a valid bound. The final eigenvalue
    is an upper value for the full operator, not for the subspace.

    Where one sign keeps the label the result is the unconstrained bound, as it is for a sample that is misclassified
    to begin with. The condition is on linearized margins: it does not stop the real label from changing.

    For a Euclidean ball and few half-spaces the relaxation is nearly exact. For an l-infinity ball ``products`` weighs
    all features alike, as Corollary 1 does, which seldom improves on a sharper ``base``; ``dense`` chooses a weight for
    every feature.

    Args:
      attribute: ``(logits_fn, x, label) -> map``.
      ball: an :class:`~jaxattr.L2` or :class:`~jaxattr.LInf`.
      base: bound of the same attribution over the same ball to start from; by default
        :func:`~jaxattr.bounds.singular_value` or :func:`~jaxattr.bounds.norm_relaxation`.
      method: ``products`` with J and its transpose, or ``dense``: J as a matrix, and a decomposition of one of its size
        in every Newton step.
      num_steps: Lanczos steps of the default base, of the Krylov space and of the eigenvalue, each (``products``).
      newton_steps: steps in the choice of the multipliers.
      competitors: half-spaces that are used, those nearest to excluding the base's direction.
      confidence: probability with which the eigenvalue holds (``products``). Its failure probability and that of the
        base add up in the result.
      chunk: backward passes, and columns of J, evaluated at once.
      linearize: see :func:`jaxattr.attribution_jacobian`.
      kinks: what to do with a network that is not twice differentiable; see :func:`jaxattr.attribution_jacobian`. A
        ``base`` has an option of the same name.

    Returns:
      ``bound(logits_fn, x, label, key) -> LabelConstrainedBound``.

    Raises:
      TypeError: if ``ball`` is none, ``attribute`` no attribution or ``base`` no bound; on call, if ``base`` returns
        something else than a :class:`DeviationBound`.
      ValueError: if an option is out of range or ``base`` is over another ball; on call as
        :func:`~jaxattr.bounds.singular_value` and :func:`~jaxattr.bounds.label_region`.

    References:
      Wang and Kong 2023, Section 4.3, for one competitor. Products of constraints: Sturm and Zhang 2003; Burer and
      Anstreicher 2013.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> import jaxattr as ja
      >>> # J = diag(2, 1). Class 1 takes over to the right of 0.05 and class 2 to the left of -0.05.
      >>> logits_fn = lambda x: jnp.stack([x[0] ** 2 + x[1] ** 2 / 2 + 0.5, 10 * x[0], -10 * x[0]])
      >>> bound = ja.bounds.label_constrained(ja.attributions.saliency(), ja.L2(0.1), method="dense")
      >>> result = jax.jit(bound, static_argnums=0)(logits_fn, jnp.zeros(2), 0, jax.random.key(0))
      >>> bool(result.both_excluded), round(float(result.unconstrained.euclidean), 3)
      (True, 0.2)
      >>> round(float(result.bound.euclidean), 3)  # sqrt(4 * 0.05^2 + 0.1^2 - 0.05^2)
      0.132
    """
    _checks.attribution(attribute)
    require(ball)
    _checks.choice("method", method, get_args(Algorithm))
    for name, value in {"num_steps": num_steps, "newton_steps": newton_steps, "competitors": competitors}.items():
        _checks.positive_int(name, value)
    _checks.probability("confidence", confidence)
    if chunk is not None:
        _checks.positive_int("chunk", chunk)
    options = _Options(method == "dense", num_steps, newton_steps, competitors, confidence, chunk, linearize, kinks)
    over_ball = _default_base(attribute, ball, options) if base is None else _checks.bound(base, "base")
    other = getattr(over_ball, "ball", None)
    if other is not None and (type(other), repr(other)) != (type(ball), repr(ball)):
        raise ValueError(f"`base` must be a bound over the same ball {ball!r}, got one over {other!r}.")

    def bound(logits_fn, x, label, key):
        x = _checks.sample(x)
        jacobian = attribution_jacobian(
            attribute, logits_fn, x, label, linearize=linearize, kinks=kinks, method="label_constrained"
        )
        unconstrained = require_result(
            Calling(over_ball).call(over_ball, logits_fn, x, label, key), "label_constrained", "base"
        )
        region = label_region(logits_fn, x, label, chunk=chunk)
        delta = unconstrained.epsilon * unconstrained.direction
        plus = region.keeps(delta)
        # A bound within the box does not allow the opposite direction.
        minus = region.keeps(-delta) if unconstrained.two_sided else jnp.zeros_like(plus)
        excluded = jnp.all(region.margins > 0) & ~plus & ~minus
        with jax.default_matmul_precision("highest"):
            constrained = _constrained(jacobian, region, unconstrained, ball, key, options)
        sign = jnp.where(minus & ~plus, -1, 1).astype(x.dtype)
        kept = dataclasses.replace(
            _named(unconstrained),
            direction=sign * unconstrained.direction,
            # The key decides which of both results is returned: the work and the risk of both count.
            confidence=constrained.confidence,
            products=constrained.products,
        )
        final = jax.tree.map(lambda new, old: jnp.where(excluded, new, old), constrained, kept)
        return LabelConstrainedBound(final, unconstrained, plus, minus, excluded)

    return Method("label_constrained", bound, ball)


def _default_base(attribute: Attribution, ball: Ball, options: _Options) -> Bound:
    constructor = singular_value if isinstance(ball, L2) else norm_relaxation
    return constructor(
        attribute,
        ball,
        method="dense" if options.dense else "lanczos",
        num_steps=options.num_steps,
        confidence=options.confidence,
        chunk=options.chunk,
        linearize=options.linearize,
        kinks=options.kinks,
    )


def _named(base: DeviationBound) -> DeviationBound:
    # The constraint may leave one sign only, and it cuts larger balls by more: the bound is not two-sided.
    return dataclasses.replace(base, methods=(*base.methods, "label_constrained"), two_sided=False)


def _constrained(
    jacobian: AttributionJacobian, region: LabelRegion, base: DeviationBound, ball: Ball, key: Array, options: _Options
) -> DeviationBound:
    """Bound the deviation of a sample as if the label constraints exclude both signs."""
    shape, size, dtype = jacobian.value.shape, jacobian.value.size, base.slope.dtype
    # Scale coordinates y such that the ball lies in the Euclidean unit ball, and J such that the base's value is 1.
    radius = 1.0 if isinstance(ball, L2) else math.sqrt(size)
    scale = radius / jnp.where(base.slope > 0, base.slope, 1)
    direction = base.direction.ravel() / radius
    every, near = _half_spaces(region, ball, radius, direction, options.competitors)

    def matvec(y):
        return scale * jacobian.matvec(y.reshape(shape)).ravel()

    def gram(y):
        return scale * jacobian.rmatvec(matvec(y).reshape(shape)).ravel()

    for_basis, for_value, for_points = jax.random.split(jax.random.fold_in(key, 1), 3)
    # Choose the multipliers for the whole problem (dense), or for its restriction to a subspace.
    if options.dense:
        dense = scale * jacobian.dense(options.chunk)
        squares, forms, basis, used = dense.T @ dense, near, None, jacobian.dense_products()
        coordinates = (Coordinates.alike if isinstance(ball, L2) else Coordinates.each)(size, dtype)
    else:
        start = jax.random.normal(for_basis, (size,), dtype)
        krylov = spectral.lanczos(matvec if jacobian.symmetric else gram, start, options.num_steps).basis
        basis = _numerics.orthonormal(jnp.concatenate([krylov, near[:, :-1]]).T).T
        images = map_over(matvec, basis, options.chunk)
        squares, forms = images @ images.T, jnp.column_stack([near[:, :-1] @ basis.T, near[:, -1]])
        coordinates = Coordinates.alike(len(basis), dtype)
        used = len(krylov) * (1 if jacobian.symmetric else 2) + len(basis)
    dual = best_dual(*jax.lax.stop_gradient((squares, forms)), coordinates, options.newton_steps)
    if options.dense:
        value, trusted = dense_upper_value(squares, forms, dual, coordinates), 1.0
    else:
        certainty = {"num_steps": options.num_steps, "confidence": options.confidence}
        found = upper_value(gram, near, dual, for_value, **certainty)
        value, trusted, used = found.upper, found.confidence, used + 2 * found.products
    # Keep the slope of the base where the value is NaN.
    slope = base.slope * jnp.where(value < 1, jnp.sqrt(jnp.maximum(value, jnp.finfo(dtype).tiny)), 1)

    # Search for an attained value: points near the relaxed solution, and both signs of the base's direction.
    cube = options.dense and not isinstance(ball, L2)
    drawn = dual.points(for_points, _POINTS)
    points = jnp.concatenate([drawn, climb(drawn, squares, forms, _project_cube if cube else _project_ball)])
    heights = jnp.sqrt(jnp.sum(points @ squares * points, axis=1))
    points = points if basis is None else points @ basis
    heights = heights * jax.vmap(lambda y: _length(every, ball, radius, y))(points)
    candidates = jnp.stack([direction, -direction, points[jnp.argmax(heights)]])
    # Within the box, the constraints are sure to allow part of the base's own direction only.
    candidates = candidates if base.two_sided else candidates[:1]
    steps = jax.lax.stop_gradient(jax.vmap(lambda y: _length(every, ball, radius, y) * y)(candidates))
    reached = jax.vmap(lambda y: _numerics.norm(matvec(y)))(steps)
    best = jnp.argmax(reached)
    cosine, degrees, vacuous = cosine_from_euclidean(base.epsilon * slope, base.attribution_norm)
    return dataclasses.replace(
        _named(base),
        euclidean=base.epsilon * slope,
        # Do not lower the attained value to the upper value, which has a rounding allowance of its own.
        euclidean_attained=base.epsilon * base.slope * reached[best],
        cosine=cosine,
        degrees=degrees,
        vacuous=vacuous,
        direction=(radius * steps[best]).reshape(shape),
        slope=slope,
        confidence=jnp.maximum(0, base.confidence - (1 - trusted)),
        kinks=jnp.maximum(base.kinks, jacobian.kinks),
        active=jnp.where(value < 1, len(base.methods), base.active).astype(jnp.int32),
        products=(base.products + used + len(steps)).astype(jnp.int32),
    )


def _half_spaces(
    region: LabelRegion, ball: Ball, radius: float, direction: Array, competitors: int
) -> tuple[Array, Array]:
    """Return half-spaces ``forms @ (y, 1) >= 0`` of all classes, and of those nearest to excluding ``direction``.

    The label's own row is the constant 1, which is one of the half-spaces that are multiplied with each other.
    """
    classes, dtype = len(region.margins), direction.dtype
    # The network may have another dtype than its input, and the logits another one than the gradients.
    region = LabelRegion(region.normals.astype(dtype), region.margins.astype(dtype))
    sizes = jax.vmap(_numerics.norm)(region.normals)
    empty = sizes <= 0
    normals = region.normals.reshape(classes, -1) / jnp.where(empty, 1, sizes)[:, None]
    away = radius * jnp.asarray(ball.epsilon, sizes.dtype) * sizes
    distances = jnp.maximum(jnp.where(away > 0, region.margins / jnp.where(away > 0, away, 1), jnp.inf), 0)
    # A half-space that does not cut the ball is replaced by the constant.
    cuts = ~empty & (distances < jax.vmap(ball.dual_norm)(normals) / radius)
    every = jnp.column_stack([-jnp.where(cuts[:, None], normals, 0), jnp.where(cuts, distances, 1)])
    nearness = jnp.abs(every[:, :-1] @ direction) / jnp.maximum(every[:, -1], jnp.finfo(sizes.dtype).tiny)
    nearness = jnp.where(region.margins < jnp.inf, nearness, jnp.inf)
    return every, every[jax.lax.top_k(nearness, min(competitors + 1, classes))[1]]


def _project_ball(points: Array) -> Array:
    return points / jnp.maximum(1, jnp.linalg.norm(points, axis=1, keepdims=True))


def _project_cube(points: Array) -> Array:
    side = points.shape[1] ** -0.5
    return jnp.clip(points, -side, side)


def _length(forms: Array, ball: Ball, radius: float, y: Array) -> Array:
    """Return the largest factor by which ``y`` stays in the ball and the half-spaces."""
    tiny = jnp.finfo(y.dtype).tiny
    outward = -forms[:, :-1] @ y
    limits = jnp.where(outward > 0, forms[:, -1] / jnp.maximum(outward, tiny), jnp.inf)
    length = jnp.minimum(jnp.min(limits), 1 / jnp.maximum(radius * ball.norm(y), tiny))
    # Stop short of the edge of a half-space, where the label is not kept.
    return (1 - 32 * jnp.finfo(y.dtype).eps) * length
