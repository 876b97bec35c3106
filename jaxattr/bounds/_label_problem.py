"""Bound the deviation of a sample whose label constraints exclude both signs of a maximizer.

The problem is written in coordinates in which the ball lies in the Euclidean unit ball (:class:`Problem`). Multipliers
of products of half-spaces are chosen for all of it, or for its restriction to a subspace (:class:`_Part`), by
:mod:`jaxattr.bounds._half_spaces`; the upper value and the attained one are then those of the whole problem.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jaxattr import _numerics
from jaxattr._chunking import map_over
from jaxattr._krylov import lanczos
from jaxattr.balls import L2, Ball
from jaxattr.bounds._half_spaces import Coordinates, Dual, ascend, best_dual, dense_upper_value, upper_value
from jaxattr.bounds._result import DeviationBound, cosine_from_euclidean
from jaxattr.bounds.label_constraint import LabelRegion
from jaxattr.jacobian import AttributionJacobian
from jaxattr.programs.guard import Kinks

# Draw this many points with the moments of the relaxed solution; the best one gives the attained value.
_POINTS = 32


class Options(NamedTuple):
    """Options of the bound under label constraints."""

    dense: bool
    num_steps: int
    newton_steps: int
    competitors: int
    confidence: float
    chunk: int | None
    linearize: bool
    kinks: Kinks

    def products(self, size: int, symmetric: bool) -> int:
        """Return the number of products with J or its transpose at most, without those of the base."""
        if self.dense:
            return size + 3
        krylov = min(self.num_steps, size)
        images = min(krylov + self.competitors + 1, size)
        # A step of the eigenvalue's run is a product with J^T J: one for each feature and one more at most, and a last.
        eigenvalue = 2 * (min(self.num_steps, size + 1) + 1)
        return krylov * (1 if symmetric else 2) + images + eigenvalue + 3


def named(base: DeviationBound) -> DeviationBound:
    """Add the constraint to the names of a bound, which it makes one-sided."""
    # The constraint may leave one sign only, and it cuts larger balls by more: the bound is not two-sided.
    return dataclasses.replace(base, methods=(*base.methods, "label_constrained"), two_sided=False)


def constrained(
    jacobian: AttributionJacobian, region: LabelRegion, base: DeviationBound, ball: Ball, key: Array, options: Options
) -> DeviationBound:
    """Bound the deviation of a sample as if the label constraints exclude both signs."""
    problem = Problem.of(jacobian, region, base, ball, options.competitors)
    for_basis, for_value, for_points = jax.random.split(jax.random.fold_in(key, 1), 3)
    part = _whole(problem, options) if options.dense else _restricted(problem, options, for_basis)
    dual = best_dual(*jax.lax.stop_gradient((part.squares, part.forms)), part.coordinates, options.newton_steps)
    value, trusted, used = _upper(problem, part, dual, options, for_value)
    # Keep the slope of the base where the value is NaN.
    slope = base.slope * jnp.where(value < 1, jnp.sqrt(jnp.maximum(value, jnp.finfo(problem.dtype).tiny)), 1)
    step, reached, candidates = _attained(problem, part, dual, for_points)
    cosine, degrees, vacuous = cosine_from_euclidean(base.epsilon * slope, base.attribution_norm)
    return dataclasses.replace(
        named(base),
        euclidean=base.epsilon * slope,
        # Do not lower the attained value to the upper value, which has a rounding allowance of its own.
        euclidean_attained=base.epsilon * base.slope * reached,
        cosine=cosine,
        degrees=degrees,
        vacuous=vacuous,
        direction=(problem.radius * step).reshape(jacobian.value.shape),
        slope=slope,
        confidence=jnp.maximum(0, base.confidence - (1 - trusted)),
        kinks=jnp.maximum(base.kinks, jacobian.kinks),
        active=jnp.where(value < 1, len(base.methods), base.active).astype(jnp.int32),
        products=(base.products + used + candidates).astype(jnp.int32),
    )


class Problem(NamedTuple):
    """The constrained problem of one sample, in flat coordinates y.

    The coordinates are such that the ball lies in the Euclidean unit ball, and J is scaled such that the base's value
    is 1.

    Attributes:
      jacobian: J, without the scale.
      base: the bound over the whole ball.
      ball: the threat model.
      radius: Euclidean radius of the ball, per unit of epsilon.
      scale: of J.
      direction: of the base.
      every: half-spaces ``every @ (y, 1) >= 0`` of all classes.
      near: those of ``every`` that are nearest to excluding ``direction``.
    """

    jacobian: AttributionJacobian
    base: DeviationBound
    ball: Ball
    radius: float
    scale: Array
    direction: Array
    every: Array
    near: Array

    @classmethod
    def of(
        cls, jacobian: AttributionJacobian, region: LabelRegion, base: DeviationBound, ball: Ball, competitors: int
    ) -> "Problem":
        """Build the problem of a sample, with so many competitors in ``near``."""
        radius = 1.0 if isinstance(ball, L2) else math.sqrt(jacobian.value.size)
        scale = radius / jnp.where(base.slope > 0, base.slope, 1)
        direction = base.direction.ravel() / radius
        every, near = _half_spaces(region, ball, radius, direction, competitors)
        return cls(jacobian, base, ball, radius, scale, direction, every, near)

    @property
    def size(self) -> int:
        """Return the number of features."""
        return self.jacobian.value.size

    @property
    def dtype(self) -> Any:
        """Return the type of the values."""
        return self.base.slope.dtype

    def matvec(self, y: Array) -> Array:
        """Return ``J y``, flat and scaled."""
        return self.scale * self.jacobian.matvec(y.reshape(self.jacobian.value.shape)).ravel()

    def gram(self, y: Array) -> Array:
        """Return ``J^T J y``, flat and scaled."""
        image = self.matvec(y).reshape(self.jacobian.value.shape)
        return self.scale * self.jacobian.rmatvec(image).ravel()

    def length(self, y: Array) -> Array:
        """Return the largest factor by which ``y`` stays in the ball and all half-spaces."""
        return _length(self.every, self.ball, self.radius, y)


class _Part(NamedTuple):
    """The part of a problem in which the multipliers are chosen: all of it, or a subspace.

    Attributes:
      squares: ``J^T J`` in the part's coordinates.
      forms: the nearest half-spaces in the part's coordinates.
      basis: orthonormal rows of the subspace; ``None`` for the whole problem.
      coordinates: which coordinates share a weight.
      project: points onto the ball, row by row.
      products: with J or its transpose, spent on ``squares``.
    """

    squares: Array
    forms: Array
    basis: Array | None
    coordinates: Coordinates
    project: Callable[[Array], Array]
    products: Any


def _whole(problem: Problem, options: Options) -> _Part:
    """Form J, and choose a weight for every feature of a cube."""
    matrix = problem.scale * problem.jacobian.dense(options.chunk)
    ball = isinstance(problem.ball, L2)
    coordinates = (Coordinates.alike if ball else Coordinates.each)(problem.size, problem.dtype)
    project = _project_ball if ball else _project_cube
    return _Part(matrix.T @ matrix, problem.near, None, coordinates, project, problem.jacobian.dense_products())


def _restricted(problem: Problem, options: Options, key: Array) -> _Part:
    """Restrict the problem to the span of a Krylov space of J and of the normals of the half-spaces."""
    symmetric, normals = problem.jacobian.symmetric, problem.near[:, :-1]
    start = jax.random.normal(key, (problem.size,), problem.dtype)
    krylov = lanczos(problem.matvec if symmetric else problem.gram, start, options.num_steps).basis
    basis = _numerics.orthonormal(jnp.concatenate([krylov, normals]).T).T
    images = map_over(problem.matvec, basis, options.chunk)
    forms = jnp.column_stack([normals @ basis.T, problem.near[:, -1]])
    coordinates = Coordinates.alike(len(basis), problem.dtype)
    products = len(krylov) * (1 if symmetric else 2) + len(basis)
    return _Part(images @ images.T, forms, basis, coordinates, _project_ball, products)


def _upper(
    problem: Problem, part: _Part, dual: Dual, options: Options, key: Array
) -> tuple[Array, float | Array, int | Array]:
    """Return an upper value of the form for the whole problem, its confidence, and the products so far."""
    if part.basis is None:
        return dense_upper_value(part.squares, part.forms, dual, part.coordinates), 1.0, part.products
    certainty = {"num_steps": options.num_steps, "confidence": options.confidence}
    found = upper_value(problem.gram, problem.near, dual, key, **certainty)
    return found.upper, found.confidence, part.products + 2 * found.products


def _attained(problem: Problem, part: _Part, dual: Dual, key: Array) -> tuple[Array, Array, int]:
    """Search for an attained value: points near the relaxed solution, and both signs of the base's direction.

    Returns:
      The step, the length of its image under J, and the products that it took.
    """
    drawn = dual.points(key, _POINTS)
    points = jnp.concatenate([drawn, ascend(drawn, part.squares, part.forms, part.project)])
    heights = jnp.sqrt(jnp.sum(points @ part.squares * points, axis=1))
    points = points if part.basis is None else points @ part.basis
    heights = heights * jax.vmap(problem.length)(points)
    candidates = jnp.stack([problem.direction, -problem.direction, points[jnp.argmax(heights)]])
    # Within the box, the constraints are sure to allow part of the base's own direction only.
    candidates = candidates if problem.base.two_sided else candidates[:1]
    steps = jax.lax.stop_gradient(jax.vmap(lambda y: problem.length(y) * y)(candidates))
    reached = jax.vmap(lambda y: _numerics.norm(problem.matvec(y)))(steps)
    best = jnp.argmax(reached)
    return steps[best], reached[best], len(steps)


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
