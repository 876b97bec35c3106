r"""The largest value of a quadratic form over the part of a ball that some half-spaces leave, from above.

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

# A Newton step that was not cut short makes the next barrier weaker, down to this distance from the optimum: beyond it
# the slack's inverse, from which points are drawn, is lost in float32.
_SHRINK, _GAP = 0.5, 2e-4
# Of the eigenvalue, which is twice as much as of the bound.
_TOLERANCE = 1e-3
# Of the way to the edge of what is feasible.
_STEP = 0.9


class Coordinates(NamedTuple):
    """Which coordinates of ``z = (y, 1)`` share a weight, and what the weights cost.

    Attributes:
      groups: zeros and ones, (weights, n + 1).
      cost: ``z^T diag(d @ groups) z <= d @ cost`` on the ball, (weights,).
    """

    groups: Array
    cost: Array

    @classmethod
    def alike(cls, size: int, dtype: Any) -> "Coordinates":
        """One weight for all of y, in the Euclidean unit ball, and one for the constant."""
        constant = np.append(np.zeros(size), 1)
        return cls(jnp.asarray(np.stack([1 - constant, constant]), dtype), jnp.ones(2, dtype))

    @classmethod
    def each(cls, size: int, dtype: Any) -> "Coordinates":
        """A weight for every coordinate, in the cube ``|y_i| <= size^-1/2``."""
        return cls(jnp.eye(size + 1, dtype=dtype), jnp.asarray(np.append(np.full(size, 1 / size), 1), dtype))


class Dual(NamedTuple):
    """A choice of multipliers and weights.

    Attributes:
      multipliers: nu as a symmetric matrix, (half-spaces, half-spaces); its diagonal is zero.
      weights: d, one for each group of coordinates.
      root: of the moments of ``(y, 1)`` that answer the relaxation, ``root @ root.T`` up to a factor.
    """

    multipliers: Array
    weights: Array
    root: Array

    def points(self, key: Array, count: int) -> Float[Array, "count n"]:
        """Points with the relaxation's moments: the maximizer, where it is exact and there is one.

        The mean plus or minus columns of a root of the covariance. Of several maximizers (mirror images), the mean
        alone would be between them.
        """
        # The Schur complement of the constant's moment, by its root: a decomposition here, independent of that of the
        # upper value, would run beside it. Two batches of them on two threads wait for each other (JAX 0.10, CPUs).
        constant = self.root[-1] / jnp.linalg.norm(self.root[-1])
        rows = self.root[:-1] / jnp.linalg.norm(self.root[-1])
        mean = rows @ constant
        deviations = rows - jnp.outer(mean, constant)
        return mean + jax.random.rademacher(key, (count, len(constant)), mean.dtype) @ deviations.T


def quadratic_form(
    gram: Float[Array, "n n"], forms: Float[Array, "k n+1"], multipliers: Float[Array, "k k"]
) -> Float[Array, "n+1 n+1"]:
    """``A(nu)``, for ``forms`` with ``l_k(y) = forms[k] @ (y, 1)``."""
    return jnp.pad(gram, (0, 1)) + forms.T @ multipliers @ forms


def best_dual(
    gram: Float[Array, "n n"], forms: Float[Array, "k n+1"], coordinates: Coordinates, num_steps: int
) -> Dual:
    """Multipliers and weights with nearly the smallest upper value.

    Args:
      gram: P.
      forms: ``l_k(y) = forms[k] @ (y, 1)``, the constant among them.
      coordinates: which coordinates share a weight.
      num_steps: Newton steps; 20 come within about 2e-4 of the optimum.

    Returns:
      The :class:`Dual`, strictly feasible up to rounding.
    """
    first, second = np.triu_indices(len(forms), 1)
    groups, cost = coordinates
    count, dimension = len(cost), len(gram) + 1 + len(first)
    objective = jnp.append(cost, jnp.zeros(len(first), gram.dtype))

    def symmetric(multipliers):
        upper = jnp.zeros((len(forms), len(forms)), gram.dtype).at[first, second].set(multipliers)
        return upper + upper.T

    def slack(point):
        return jnp.diag(point[:count] @ groups) - quadratic_form(gram, forms, symmetric(point[count:]))

    def inverse_root(matrix):
        values, vectors = _numerics.eigh(matrix)
        # Rounding may have put an eigenvalue at the edge to its other side.
        return vectors / jnp.sqrt(jnp.maximum(values, jnp.finfo(gram.dtype).eps * values[-1]))

    def newton(_, state):
        point, barrier = state
        multipliers = point[count:]
        root = inverse_root(slack(point))
        inverse = root @ root.T
        # Derivatives of -log det(slack) along weights (diagonal matrices) and multipliers (matrices of rank two).
        images = inverse @ forms.T
        inner = forms @ images
        a, b = first[:, None], second[:, None]
        pairs = 2 * (inner[a, first] * inner[b, second] + inner[a, second] * inner[b, first])
        mixed = -2 * groups @ (images[:, first] * images[:, second])
        hessian = jnp.block([[groups @ inverse**2 @ groups.T, mixed], [mixed.T, pairs + jnp.diag(multipliers**-2)]])
        pull = jnp.append(groups @ jnp.diag(inverse), 1 / multipliers - 2 * inner[first, second])
        # Multipliers range over many orders of magnitude: with a diagonal of ones the system is well conditioned.
        unit = jnp.sqrt(jnp.diag(hessian))
        move = _numerics.solve(hessian / unit[:, None] / unit, (pull - objective / barrier) / unit) / unit
        change = slack(point + move) - slack(point)
        outward = jnp.maximum(
            -_numerics.eigh(root.T @ change @ root)[0][0], jnp.max(-move[count:] / multipliers, initial=0)
        )
        length = jnp.minimum(1, _STEP / jnp.maximum(outward, _STEP))
        following = point + length * move
        # What float32 cannot solve any more is left as it is.
        safe = jnp.all(jnp.isfinite(following)) & jnp.all(following > 0)
        weaker = jnp.maximum(_SHRINK * barrier, _GAP * (following[:count] @ cost) / dimension)
        return jnp.where(safe, following, point), jnp.where(length > 0.5, jnp.minimum(weaker, barrier), barrier)

    multipliers = jnp.full(len(first), 0.02, gram.dtype)
    start = quadratic_form(gram, forms, symmetric(multipliers))
    weights = jnp.full(count, 1.1 * jnp.linalg.norm(start), gram.dtype)
    initial = jnp.append(weights, multipliers), weights @ cost / dimension
    point, _ = jax.lax.fori_loop(0, num_steps, newton, initial)
    return Dual(symmetric(point[count:]), point[:count], inverse_root(slack(point)))


def upper_value(
    gram: Callable[[Array], Array],
    forms: Float[Array, "k n+1"],
    dual: Dual,
    key: Array,
    *,
    num_steps: int,
    confidence: float,
) -> spectral.Extreme:
    """The upper value of a dual whose weights are :meth:`Coordinates.alike`, by products with P.

    Where the half-spaces take off nearly all of P, products of size one cancel to next to nothing, and the weight of y
    is as small: what is left would be rounding, multiplied by its inverse. Any weights are valid, so that the one of y
    is lifted to where its cost and that rounding are the same, and the upper value is larger by the latter: a share of
    the sizes of all terms before they cancel. In float32 that is up to 1 % of the value, and nothing to speak of where
    little cancels.

    Args:
      gram: ``y -> P y`` with ``lambda_max(P)`` of at most about 1; the dual may come from a part of P only.
      forms: ``l_k(y) = forms[k] @ (y, 1)``.
      dual: multipliers and weights.
      key: of the random start.
      num_steps: Lanczos steps.
      confidence: probability with which the ``upper`` value holds.
    """
    size, dtype = forms.shape[1] - 1, forms.dtype
    relative = _numerics.rounding(size + 1, dtype)
    sizes = jnp.linalg.norm(forms[:, :-1], axis=1)
    # What P (of norm one) and the products of half-spaces add up to in y before they cancel.
    whole = 1 + sizes @ dual.multipliers @ sizes
    # Their rounding is divided by the weight of y, which costs as much: the least of weight and error together.
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
    """The upper value of a dual, with what rounding may have hidden of it.

    An entry of A(nu) is wrong by a share of the sum of its terms' sizes, before they cancel, and so is ``z^T A z``; the
    eigenvalue by a share of the largest one in size.
    """
    root = jnp.sqrt(dual.weights @ coordinates.groups)
    values = _numerics.eigvalsh(quadratic_form(gram, forms, dual.multipliers) / root[:, None] / root)
    rounding = _numerics.rounding(len(root), root.dtype)
    terms = quadratic_form(jnp.abs(gram), jnp.abs(forms), dual.multipliers)
    # Two limits of a spectral norm; z has a length of at most the square root of two.
    lost = 2 * jnp.minimum(jnp.max(jnp.sum(terms, axis=1)), jnp.linalg.norm(terms))
    upper = dual.weights @ coordinates.cost * (values[-1] + rounding * jnp.max(jnp.abs(values)))
    return upper + rounding * jax.lax.stop_gradient(lost)


def climb(
    points: Float[Array, "count n"],
    gram: Float[Array, "n n"],
    forms: Float[Array, "k n+1"],
    project: Callable[[Array], Array],
    num_steps: int = 30,
) -> Float[Array, "count n"]:
    """Gradient steps on ``y^T P y``, each followed by projections on the worst half-space and the ball in turns.

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
        # Ever shorter: what the last projections leave of a long step would be outside.
        return jax.lax.fori_loop(0, 8, nearer, points + (1 - i / num_steps) ** 2 * points @ gram)

    return jax.lax.fori_loop(0, num_steps, step, points)
