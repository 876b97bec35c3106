r"""Bound a positive semidefinite quadratic form on a ball intersected with half-spaces, from above.

The form is ``y^T P y`` with P positive semidefinite, the ball lies in the Euclidean unit ball, and a half-space is
``l_k(y) = c_k - <m_k, y> >= 0`` with ``c_k >= 0``. Multipliers of single half-spaces are of no use: the form is even in
y, and none of them excludes both y and -y. Multipliers of products are: ``l_j(y) l_k(y) >= 0`` where both hold. For any
``nu_jk >= 0``, with ``z = (y, 1)``,

    y^T P y  <=  y^T P y + sum_{j<k} nu_jk l_j(y) l_k(y)  =  z^T A(nu) z.

The constant ``l_0 = 1`` is one of the half-spaces, so that each of them also enters by itself. (Squares of l_k are
nowhere negative and of no use.) For positive weights d of the coordinates of z with ``z^T diag(d) z <= cost(d)`` on the
ball,

    max y^T P y  <=  cost(d) * lambda_max(diag(d)^-1/2 A(nu) diag(d)^-1/2).

That is true for whatever nu and d; the best ones are a semidefinite program, min { cost(d) : diag(d) - A(nu) >= 0,
nu >= 0 }, solved here by Newton's method on its log-determinant barrier.

If the top eigenvector v of P is unique, and one half-space excludes v and another one -v, the optimum is below
``lambda_max(P)``: the relaxation's moments of y would have to be ``(s v, v v^T)`` with -1 <= s <= 1, and none of these
satisfies ``l_j l_k >= 0`` where it satisfies ``l_j >= 0`` and ``l_k >= 0``.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float

from jaxattr import _numerics, spectral

# A Newton step that was not cut short shrinks the barrier by the factor _SHRINK, down to a relative gap of _GAP: below
# it float32 loses the inverse of the slack, from which points are drawn.
_SHRINK, _GAP = 0.5, 2e-4
# Bound the relative error of the eigenvalue, which is twice that of the bound.
_TOLERANCE = 1e-3
# A Newton step goes at most this share of the way to the boundary of the feasible set.
_STEP = 0.9


class Coordinates(NamedTuple):
    """Weights of the coordinates of ``z = (y, 1)``: which coordinates share one, and what each weight costs.

    Attributes:
      groups: zeros and ones, (weights, n + 1).
      cost: ``z^T diag(d @ groups) z <= d @ cost`` on the ball, (weights,).
    """

    groups: Array
    cost: Array

    @classmethod
    def alike(cls, size: int, dtype: Any) -> "Coordinates":
        """Give one weight to all of y, in the Euclidean unit ball, and one to the constant."""
        constant = np.append(np.zeros(size), 1)
        return cls(jnp.asarray(np.stack([1 - constant, constant]), dtype), jnp.ones(2, dtype))

    @classmethod
    def each(cls, size: int, dtype: Any) -> "Coordinates":
        """Give each coordinate its own weight, in the cube ``|y_i| <= size^-1/2``."""
        return cls(jnp.eye(size + 1, dtype=dtype), jnp.asarray(np.append(np.full(size, 1 / size), 1), dtype))


class Dual(NamedTuple):
    """Multipliers and weights, the variables of the dual problem.

    Attributes:
      multipliers: nu as a symmetric matrix, (half-spaces, half-spaces); its diagonal is zero.
      weights: d, one for each group of coordinates.
      root: matrix root of the moments of ``(y, 1)`` that solve the relaxation, ``root @ root.T`` up to a factor.
    """

    multipliers: Array
    weights: Array
    root: Array

    def points(self, key: Array, count: int) -> Float[Array, "count n"]:
        """Draw points with the moments of the relaxed solution: if exact, its maximizer (where that is unique).

        Points are the mean plus or minus columns of a root of the covariance. Of several maximizers (mirror images),
        the mean alone would be between them.
        """
        # The root of the moments gives the Schur complement of the constant's moment without a second decomposition,
        # which would run beside that of the upper value. Two batches of them on two threads wait for each other (JAX
        # 0.10, CPUs).
        constant = self.root[-1] / jnp.linalg.norm(self.root[-1])
        rows = self.root[:-1] / jnp.linalg.norm(self.root[-1])
        mean = rows @ constant
        deviations = rows - jnp.outer(mean, constant)
        return mean + jax.random.rademacher(key, (count, len(constant)), mean.dtype) @ deviations.T


def quadratic_form(
    gram: Float[Array, "n n"], forms: Float[Array, "k n+1"], multipliers: Float[Array, "k k"]
) -> Float[Array, "n+1 n+1"]:
    """Return ``A(nu)`` for ``forms`` with ``l_k(y) = forms[k] @ (y, 1)``."""
    return jnp.pad(gram, (0, 1)) + forms.T @ multipliers @ forms


class _Barrier(NamedTuple):
    """The dual problem ``min { d @ cost : diag(d @ groups) - A(nu) >= 0, nu >= 0 }``.

    A point of it is a vector: the weights d, then one multiplier for each pair of half-spaces.

    Attributes:
      gram: P.
      forms: the half-spaces, as in :func:`best_dual`.
      coordinates: which coordinates share a weight.
      objective: gradient of ``d @ cost`` along a point.
      pairs: first and second half-space of each pair, static.
    """

    gram: Array
    forms: Array
    coordinates: Coordinates
    objective: Array
    pairs: tuple[np.ndarray, np.ndarray]

    @classmethod
    def of(cls, gram: Array, forms: Array, coordinates: Coordinates) -> "_Barrier":
        """Build the problem of a form and its half-spaces."""
        first, second = np.triu_indices(len(forms), 1)
        objective = jnp.append(coordinates.cost, jnp.zeros(len(first), gram.dtype))
        return cls(gram, forms, coordinates, objective, (first, second))

    @property
    def dimension(self) -> int:
        """Return the parameter of the barrier: the size of the slack, plus the number of multipliers."""
        return len(self.gram) + 1 + len(self.pairs[0])

    def weights(self, point: Array) -> Array:
        """Return the weights of a point."""
        return point[: len(self.coordinates.cost)]

    def multipliers(self, point: Array) -> Array:
        """Return the multipliers of a point, as a vector."""
        return point[len(self.coordinates.cost) :]

    def symmetric(self, multipliers: Array) -> Array:
        """Return multipliers as a symmetric matrix."""
        upper = jnp.zeros((len(self.forms),) * 2, self.gram.dtype).at[self.pairs].set(multipliers)
        return upper + upper.T

    def slack(self, point: Array) -> Array:
        """Return ``diag(d) - A(nu)``, positive definite inside of the feasible set."""
        form = quadratic_form(self.gram, self.forms, self.symmetric(self.multipliers(point)))
        return jnp.diag(self.weights(point) @ self.coordinates.groups) - form

    def inverse_root(self, point: Array) -> Array:
        """Return a matrix root of the inverse of the slack."""
        values, vectors = _numerics.eigh(self.slack(point))
        # Clamp eigenvalues at the boundary of the cone, which rounding may have made negative.
        return vectors / jnp.sqrt(jnp.maximum(values, jnp.finfo(self.gram.dtype).eps * values[-1]))


class _Newton(NamedTuple):
    """The state of Newton's method on the barrier.

    Attributes:
      point: of :class:`_Barrier`; changes in every step whose linear system float32 can solve.
      barrier: weight of the logarithms; shrinks after each step that was not cut short.
    """

    point: Array
    barrier: Array


def _init(problem: _Barrier) -> _Newton:
    """Start with small multipliers, and weights that are large enough to be feasible."""
    multipliers = jnp.full(len(problem.pairs[0]), 0.02, problem.gram.dtype)
    start = quadratic_form(problem.gram, problem.forms, problem.symmetric(multipliers))
    cost = problem.coordinates.cost
    weights = jnp.full(len(cost), 1.1 * jnp.linalg.norm(start), problem.gram.dtype)
    return _Newton(jnp.append(weights, multipliers), weights @ cost / problem.dimension)


def _move(problem: _Barrier, multipliers: Array, barrier: Array, root: Array) -> Array:
    """Solve for the Newton step from the point with these multipliers and this root of the inverse of the slack."""
    (first, second), groups = problem.pairs, problem.coordinates.groups
    inverse = root @ root.T
    # These are the derivatives of -log det(slack) along weights (diagonal matrices) and multipliers (rank two).
    images = inverse @ problem.forms.T
    inner = problem.forms @ images
    a, b = first[:, None], second[:, None]
    pairs = 2 * (inner[a, first] * inner[b, second] + inner[a, second] * inner[b, first])
    mixed = -2 * groups @ (images[:, first] * images[:, second])
    hessian = jnp.block([[groups @ inverse**2 @ groups.T, mixed], [mixed.T, pairs + jnp.diag(multipliers**-2)]])
    pull = jnp.append(groups @ jnp.diag(inverse), 1 / multipliers - 2 * inner[first, second])
    # Multipliers range over many orders of magnitude: scaled to a unit diagonal, the system is well conditioned.
    unit = jnp.sqrt(jnp.diag(hessian))
    return _numerics.solve(hessian / unit[:, None] / unit, (pull - problem.objective / barrier) / unit) / unit


def _step(problem: _Barrier, state: _Newton) -> _Newton:
    """Make a Newton step, cut short before the boundary of the feasible set, and shrink the barrier."""
    point, barrier = state
    multipliers, root = problem.multipliers(point), problem.inverse_root(point)
    move = _move(problem, multipliers, barrier, root)
    change = problem.slack(point + move) - problem.slack(point)
    shrinking = -problem.multipliers(move) / multipliers
    outward = jnp.maximum(-_numerics.eigh(root.T @ change @ root)[0][0], jnp.max(shrinking, initial=0))
    length = jnp.minimum(1, _STEP / jnp.maximum(outward, _STEP))
    following = point + length * move
    # Keep the previous point if the float32 solve failed.
    safe = jnp.all(jnp.isfinite(following)) & jnp.all(following > 0)
    gap = _GAP * (problem.weights(following) @ problem.coordinates.cost) / problem.dimension
    weaker = jnp.minimum(jnp.maximum(_SHRINK * barrier, gap), barrier)
    return _Newton(jnp.where(safe, following, point), jnp.where(length > 0.5, weaker, barrier))


def best_dual(
    gram: Float[Array, "n n"], forms: Float[Array, "k n+1"], coordinates: Coordinates, num_steps: int
) -> Dual:
    """Find multipliers and weights with nearly the smallest upper value.

    Args:
      gram: P.
      forms: ``l_k(y) = forms[k] @ (y, 1)``, the constant among them.
      coordinates: which coordinates share a weight.
      num_steps: Newton steps; 20 come within about 2e-4 of the optimum.

    Returns:
      The :class:`Dual`, strictly feasible up to rounding.
    """
    problem = _Barrier.of(gram, forms, coordinates)
    point = jax.lax.fori_loop(0, num_steps, lambda _, state: _step(problem, state), _init(problem)).point
    multipliers = problem.symmetric(problem.multipliers(point))
    return Dual(multipliers, problem.weights(point), problem.inverse_root(point))


def upper_value(
    gram: Callable[[Array], Array],
    forms: Float[Array, "k m"],
    dual: Dual,
    key: Array,
    *,
    num_steps: int,
    confidence: float,
) -> spectral.Extreme:
    """Bound the form by a dual with the weights of :meth:`Coordinates.alike`, by products with P.

    Where the half-spaces cancel nearly all of P, the remainder and the weight of y are tiny, and dividing one by the
    other would amplify rounding. Any weights are valid, so that the one of y
    is lifted to where its cost and that rounding are the same, and the upper value is larger by the latter: a share of
    the sizes of all terms before they cancel. In float32 that is up to 1 % of the value, and nothing to speak of where
    little cancels.

    Args:
      gram: ``y -> P y`` with ``lambda_max(P)`` of at most about 1; the dual may come from a part of P only.
      forms: ``l_k(y) = forms[k] @ (y, 1)``.
      dual: multipliers and weights.
      key: random key of the start vector.
      num_steps: Lanczos steps.
      confidence: probability with which the ``upper`` value holds.
    """
    size, dtype = forms.shape[1] - 1, forms.dtype
    relative = _numerics.rounding(size + 1, dtype)
    sizes = jnp.linalg.norm(forms[:, :-1], axis=1)
    # This bounds the sum of P (of norm one) and the products of half-spaces in y, before they cancel.
    whole = 1 + sizes @ dual.multipliers @ sizes
    # The weight of y divides the rounding error and adds to the cost: choose the weight with the least sum of both.
    lift = jnp.sqrt(relative * whole * jnp.sum(dual.weights))
    weights = jax.lax.stop_gradient(dual.weights.at[0].max(lift))
    root = jnp.sqrt(jnp.append(jnp.broadcast_to(weights[0], size), weights[1]))
    cost = jnp.sum(weights)

    def product(z):
        z = z / root
        image = forms.T @ (dual.multipliers @ (forms @ z))
        return cost * image.at[:-1].add(gram(z[:-1])) / root

    found = spectral.largest_eigenvalue(
        product, (size + 1,), key, num_steps=num_steps, confidence=confidence, tolerance=_TOLERANCE, dtype=dtype
    )
    sizes = jnp.linalg.norm(forms / root, axis=1)
    rounding = relative * cost * (1 / weights[0] + sizes @ dual.multipliers @ sizes)
    return found._replace(upper=found.upper + jax.lax.stop_gradient(rounding))


def dense_upper_value(
    gram: Float[Array, "n n"], forms: Float[Array, "k n+1"], dual: Dual, coordinates: Coordinates
) -> Float[Array, ""]:
    """Bound the form by a dual from dense matrices, with an allowance for rounding.

    An entry of A(nu) is wrong by a share of the sum of its terms' sizes, before they cancel, and so is ``z^T A z``; the
    eigenvalue by a share of the largest one in size.
    """
    root = jnp.sqrt(dual.weights @ coordinates.groups)
    values = _numerics.eigvalsh(quadratic_form(gram, forms, dual.multipliers) / root[:, None] / root)
    rounding = _numerics.rounding(len(root), root.dtype)
    terms = quadratic_form(jnp.abs(gram), jnp.abs(forms), dual.multipliers)
    # Both expressions bound the spectral norm; z has a length of at most the square root of two.
    lost = 2 * jnp.minimum(jnp.max(jnp.sum(terms, axis=1)), jnp.linalg.norm(terms))
    upper = dual.weights @ coordinates.cost * (values[-1] + rounding * jnp.max(jnp.abs(values)))
    return upper + rounding * jax.lax.stop_gradient(lost)


def ascend(
    points: Float[Array, "count n"],
    gram: Float[Array, "n n"],
    forms: Float[Array, "k n+1"],
    project: Callable[[Array], Array],
    num_steps: int = 30,
) -> Float[Array, "count n"]:
    """Ascend ``y^T P y`` by gradient steps, and project each in turns on the most violated half-space and the ball.

    Args:
      points: where to start, as rows.
      gram: P, with a largest eigenvalue of about 1.
      forms: ``l_k(y) = forms[k] @ (y, 1)`` with normals of length one, or zero for a constant.
      project: onto the ball, row by row.
      num_steps: gradient steps.

    Returns:
      Points that are nearly in the ball and the half-spaces.
    """

    def nearer(_, points):
        left = points @ forms[:, :-1].T + forms[:, -1]
        worst = jnp.argmin(left, axis=1)
        return project(points + jnp.maximum(-jnp.min(left, axis=1), 0)[:, None] * forms[worst, :-1])

    def step(i, points):
        # Steps shrink to zero, since the last projections leave long steps outside of the set.
        return jax.lax.fori_loop(0, 8, nearer, points + (1 - i / num_steps) ** 2 * points @ gram)

    return jax.lax.fori_loop(0, num_steps, step, points)
