"""Define threat models: a ball of perturbations, and the box in which inputs are valid.

A ball is a pytree, so its radius may be traced: a sweep over radii is a ``vmap`` over ``L2(epsilon)``. Bounds,
attacks and defenses take the same object. Radii are in units of the input; a network that wants normalized inputs
normalizes inside itself.
"""

import abc
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from jaxtyping import Float

from jaxattr import _checks, _numerics

DEFAULT_BOX = (0.0, 1.0)


class Ball(abc.ABC):
    """The threat model ``{delta : ||delta|| <= epsilon, lower <= x + delta <= upper}``; see :class:`L2`, :class:`LInf`.

    Attributes:
      epsilon: the radius, in units of the input; may be traced.
      box: ``(lower, upper)``, numbers or arrays (or lists of them) that broadcast against the input, or ``None``.
        A feature whose limits are equal cannot move.
    """

    name: ClassVar[str]

    def __init__(self, epsilon: Any, box: tuple[Any, Any] | None = DEFAULT_BOX):
        if _checks.is_concrete(epsilon):
            if np.asarray(epsilon).dtype.kind not in "iuf":
                raise TypeError(f"`epsilon` must be a number of at least 0, got {epsilon!r}.")
            if np.ndim(epsilon) != 0:
                raise ValueError(
                    f"`epsilon` must be a single number, got shape {np.shape(epsilon)}. For several radii:"
                    f" `jax.vmap(lambda epsilon: ... {type(self).__name__}(epsilon) ...)(epsilons)`."
                )
            if not 0 <= float(epsilon) < float("inf"):
                raise ValueError(f"`epsilon` must be a finite number of at least 0, got {epsilon!r}.")
        if box is not None:
            if not isinstance(box, (tuple, list)) or len(box) != 2:
                raise ValueError(f"`box` must be (lower, upper) or None for inputs without one, got {box!r}.")
            box = tuple(_limit(limit, box) for limit in box)
            _check_order(box)
        self.epsilon = epsilon
        self.box = box

    def __init_subclass__(cls, **kwargs):
        super().__init_subclass__(**kwargs)
        jax.tree_util.register_pytree_with_keys_class(cls)

    def __repr__(self):
        return f"{type(self).__name__}({self.epsilon!r}, box={self.box!r})"

    def tree_flatten_with_keys(self):
        """Return radius and box as leaves."""
        key = jax.tree_util.GetAttrKey
        return ((key("epsilon"), self.epsilon), (key("box"), self.box)), None

    @classmethod
    def tree_unflatten(cls, _, children):
        """Invert :meth:`tree_flatten_with_keys`."""
        # Skip the checks: JAX also unflattens with placeholders that are no numbers.
        ball = object.__new__(cls)
        ball.epsilon, ball.box = children
        return ball

    @abc.abstractmethod
    def norm(self, delta: Float[Array, "*shape"]) -> Float[Array, ""]:
        """Compute the norm of the ball."""

    @abc.abstractmethod
    def dual_norm(self, gradient: Float[Array, "*shape"]) -> Float[Array, ""]:
        """Compute ``max <gradient, d>`` over ``||d|| <= 1``."""

    @abc.abstractmethod
    def steepest(self, gradient: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        """Return a ``d`` with ``||d|| <= 1`` that attains :meth:`dual_norm`; zero where the gradient is zero."""

    @abc.abstractmethod
    def project(self, delta: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        """Return the perturbation of the ball that is nearest to ``delta`` in the Euclidean norm."""

    @abc.abstractmethod
    def sample(self, key: Array, shape: tuple[int, ...], dtype: Any = None) -> Float[Array, "..."]:
        """Draw a perturbation uniformly from the ball."""

    def clip(self, x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        """Return the valid input nearest to ``x``."""
        return (
            x if self.box is None else jnp.clip(x, jnp.asarray(self.box[0], x.dtype), jnp.asarray(self.box[1], x.dtype))
        )

    def interval(self, x: Float[Array, "*shape"]) -> tuple[Float[Array, "*shape"], Float[Array, "*shape"]]:
        """Return the limits of each coordinate of a perturbation that stays in the ball and keeps ``x + delta`` valid.

        ``lower = max(-epsilon, box[0] - x) <= 0 <= upper = min(epsilon, box[1] - x)``. A black pixel can only brighten.
        For :class:`LInf` these limits are the only constraints on it; for :class:`L2` they contain the ball.

        Returns:
          ``(lower, upper)``, shaped like ``x``; without a box ``(-epsilon, epsilon)``.
        """
        radius = jnp.broadcast_to(jnp.asarray(self.epsilon, x.dtype), x.shape)
        if self.box is None:
            return -radius, radius
        low, high = (jnp.asarray(limit, x.dtype) - x for limit in self.box)
        # Rounding may have put x a little outside of the box; the perturbation 0 is always allowed.
        return jnp.minimum(0, jnp.maximum(-radius, low)), jnp.maximum(0, jnp.minimum(radius, high))

    def project_input(self, x: Float[Array, "*shape"], perturbed: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        """Return a valid input within ``epsilon`` of ``x``: ball first, then box.

        Clipping moves every coordinate towards ``x``, which lies in the box, so that the result is still in the ball.
        (It is the nearest such input for :class:`LInf`, and a feasible one for :class:`L2`.) ``norm(result - x) <=
        epsilon`` holds as it is computed, not up to rounding: where ``x + delta`` would be rounded away from ``x``, it
        is rounded towards it; an L2 perturbation is made shorter by what summing its squares may be off by.
        """
        delta = self._shortened(self.project(perturbed - x), x.dtype)
        moved = x + delta
        if self.box is not None:
            # An x that rounding has put a little outside of the box may stay there.
            lower, upper = (jnp.asarray(limit, x.dtype) for limit in self.box)
            slack = self._rounding_slack(x.dtype)
            lower = jnp.where((x < lower) & (x >= lower - slack), x, lower)
            upper = jnp.where((x > upper) & (x <= upper + slack), x, upper)
            moved = jnp.clip(moved, lower, upper)
        return self._towards(x, moved, delta)

    @abc.abstractmethod
    def _shortened(self, delta: Array, dtype: Any) -> Array:
        """Return a perturbation whose norm is at most epsilon, however its rounding falls."""

    def _radius(self, dtype: Any) -> Array:
        """Return the largest number of ``dtype`` that is at most epsilon."""
        radius = jnp.asarray(self.epsilon, dtype)
        if not _checks.is_concrete(self.epsilon):
            return radius
        rounded = np.asarray(self.epsilon, dtype)
        too_large = float(rounded) > float(self.epsilon)
        return jnp.asarray(np.nextafter(rounded, np.zeros_like(rounded)) if too_large else rounded)

    def _towards(self, x: Array, moved: Array, delta: Array) -> Array:
        """Return ``moved``, one unit in the last place nearer to x where it is farther from x than ``|delta|``."""
        fixed_x, fixed, limit = jax.lax.stop_gradient((x, moved, self._limits(delta)))
        difference = fixed - fixed_x
        # Recover the rounding error of the subtraction (Knuth 1969, TwoSum): x - fixed = -(difference + rest), exactly.
        part = difference - fixed
        rest = (fixed - (difference - part)) - (fixed_x + part)
        size, beyond = jnp.abs(difference), jnp.sign(difference) * rest > 0
        nearer = jnp.where((size > limit) | ((size == limit) & beyond), jnp.nextafter(fixed, fixed_x), fixed)
        # Add the correction, so that the derivative is that of `moved`.
        return moved + (nearer - fixed)

    def _limits(self, delta: Array) -> Array:
        """Return the largest move of each coordinate."""
        return jnp.abs(delta)

    def _rounding_slack(self, dtype: Any) -> Array:
        """Return the distance by which rounding may put an input outside of the box."""
        finite = [jnp.where(jnp.isfinite(limit), jnp.abs(limit), 0) for limit in map(jnp.asarray, self.box or ())]
        largest = jnp.max(jnp.stack([jnp.max(limit, initial=0) for limit in finite])) if finite else 0
        return (16 * jnp.finfo(dtype).eps * jnp.maximum(1.0, largest)).astype(dtype)

    def contains(
        self, x: Float[Array, "*shape"], perturbed: Float[Array, "*shape"], tolerance: float | None = None
    ) -> Array:
        """Return whether ``perturbed`` is a valid input within ``epsilon`` of ``x``, up to rounding.

        Args:
          x: the input.
          perturbed: the perturbed input.
          tolerance: slack in units of the input; by default 16 units in the last place of the largest of 1, epsilon and
            the input's values.
        """
        slack = tolerance
        if slack is None:
            largest = jnp.maximum(jnp.maximum(1, self.epsilon), jnp.max(jnp.abs(x)))
            slack = 16 * jnp.finfo(x.dtype).eps * largest
        inside = (self.norm(perturbed - x) <= self.epsilon + slack) & jnp.all(jnp.isfinite(x))
        return inside & jnp.all(jnp.abs(self.clip(perturbed) - perturbed) <= slack)

    def check_input(self, x: Float[Array | np.ndarray, "*shape"]) -> None:
        """Raise ``ValueError`` if a concrete ``x`` (or batch) lies outside of the box.

        NaN passes: it is flagged in results.
        """
        if self.box is None or not _checks.is_concrete(x) or not all(map(_checks.is_concrete, self.box)):
            return
        dtype = x.dtype if hasattr(x, "dtype") else jnp.result_type(float)
        values, limits = np.asarray(x), [np.asarray(limit) for limit in self.box]
        for limit in limits:
            fits = limit.ndim <= values.ndim and all(
                a in (1, b) for a, b in zip(limit.shape[::-1], values.shape[::-1], strict=False)
            )
            if not fits:
                raise ValueError(
                    f"`box` has a limit of shape {limit.shape}, which does not fit inputs of {values.shape}."
                    " Accepted is what broadcasts against one input: a number, one value a channel or one a feature."
                )
        largest = max((float(np.max(np.abs(limit[np.isfinite(limit)]), initial=0)) for limit in limits), default=0)
        slack = 16 * float(jnp.finfo(dtype).eps) * max(1.0, largest)
        if np.any(values < limits[0] - slack) or np.any(values > limits[1] + slack):
            raise ValueError(
                f"`x` must lie in the box of valid inputs {_shown(limits)}, but its values range from"
                f" {np.nanmin(values):.6g} to {np.nanmax(values):.6g}. Rescale the input, or give the ball its box:"
                f" `{type(self).__name__}(epsilon, box=(lower, upper))`, or `box=None` for inputs without one."
            )


class L2(Ball):
    """The Euclidean ball, ``||delta||_2 <= epsilon``.

    Args:
      epsilon: radius in units of the input, at least 0.
      box: ``(lower, upper)`` limits of valid inputs; ``None`` for inputs without one.

    Raises:
      ValueError: if ``epsilon`` is negative, not finite or not a scalar, or a lower limit is above its upper one.

    Example:
      >>> import jax.numpy as jnp
      >>> import jaxattr as ja
      >>> ja.L2(1.0).project(jnp.array([3.0, 4.0])).round(3).tolist()
      [0.6000000238418579, 0.800000011920929]
    """

    name = "l2"

    def norm(self, delta):
        return _numerics.norm(delta)

    def dual_norm(self, gradient):
        return self.norm(gradient)

    def steepest(self, gradient):
        # Scaling by the largest entry first keeps tiny gradients (1e-30 in float32) from squaring to zero.
        largest = jnp.max(jnp.abs(gradient))
        scaled = gradient / jnp.where(largest > 0, largest, 1)
        return scaled / jnp.maximum(optax.safe_norm(scaled.ravel(), 0.0), 1)

    def project(self, delta):
        # Optax divides by the radius: a ball of radius 0 would turn a zero perturbation into 0 / 0.
        radius = jnp.asarray(self.epsilon, delta.dtype)
        safe = jnp.maximum(radius, jnp.sqrt(jnp.finfo(delta.dtype).tiny))
        return jnp.where(radius > 0, optax.projections.projection_l2_ball(delta, safe), 0)

    def _shortened(self, delta, dtype):
        # A norm of n squares is off by some units in the last place, in whatever order a compiler sums them.
        target = self._radius(dtype) * (1 - (4 + delta.size**0.5 / 4) * float(jnp.finfo(dtype).eps))
        length = jax.lax.stop_gradient(self.norm(delta))
        return delta * jnp.where(length > target, target / jnp.where(length > target, length, 1), 1)

    def sample(self, key, shape, dtype=None):
        # Avoid `jax.random.ball`: its rejection sampler of generalized normals takes seconds to compile on CPUs.
        dtype = dtype or jnp.result_type(float)
        for_direction, for_radius = jax.random.split(key)
        gaussian = jax.random.normal(for_direction, shape, dtype)
        radius = jnp.asarray(self.epsilon, dtype) * jax.random.uniform(for_radius, (), dtype) ** (1 / gaussian.size)
        return gaussian * (radius / self.norm(gaussian))


class LInf(Ball):
    """The ball of the maximum norm, ``|delta_i| <= epsilon`` for every feature.

    Args:
      epsilon: radius in units of the input, at least 0.
      box: ``(lower, upper)`` limits of valid inputs; ``None`` for inputs without one.

    Raises:
      ValueError: if ``epsilon`` is negative, not finite or not a scalar, or a lower limit is above its upper one.

    Example:
      >>> import jax.numpy as jnp
      >>> import jaxattr as ja
      >>> ball = ja.LInf(0.1)
      >>> ball.project_input(jnp.array([0.5, 0.05]), jnp.array([0.25, -0.3])).tolist()
      [0.4000000059604645, 0.0]
    """

    name = "linf"

    def norm(self, delta):
        return jnp.max(jnp.abs(delta))

    def dual_norm(self, gradient):
        return jnp.sum(jnp.abs(gradient))

    def steepest(self, gradient):
        return jnp.sign(gradient)

    def project(self, delta):
        return optax.projections.projection_linf_ball(delta, self.epsilon)

    def _shortened(self, delta, dtype):
        return optax.projections.projection_linf_ball(delta, self._radius(dtype))

    def _limits(self, delta):
        return jnp.broadcast_to(self._radius(delta.dtype), delta.shape)

    def sample(self, key, shape, dtype=None):
        dtype = dtype or jnp.result_type(float)
        return jax.random.uniform(key, shape, dtype, -1, 1) * jnp.asarray(self.epsilon, dtype)


def _limit(limit: Any, box: Any) -> Any:
    """Return one limit of a box: a number or an array as it is, anything else as an array."""
    if hasattr(limit, "dtype") or isinstance(limit, (int, float)):
        return limit
    array = np.asarray(limit) if not isinstance(limit, (list, tuple)) or _of_one_shape(limit) else np.asarray(None)
    if array.dtype.kind not in "iuf":
        raise ValueError(f"`box` must be (lower, upper), numbers or arrays of numbers, got {box!r}.")
    return array.astype(float) if array.dtype.kind != "f" else array


def _of_one_shape(values: Any) -> bool:
    try:
        np.asarray(values)
    # Rows of different lengths raise this error.
    except ValueError:
        return False
    return True


def _check_order(box: tuple[Any, ...]) -> None:
    if not all(map(_checks.is_concrete, box)):
        return
    lower, upper = map(np.asarray, box)
    try:
        shape = np.broadcast_shapes(lower.shape, upper.shape)
    except ValueError:
        raise ValueError(
            f"`box` must be (lower, upper) of shapes that broadcast, got {lower.shape} and {upper.shape}."
        ) from None
    # NaN is no valid limit. Equal limits are valid: the feature cannot move.
    wrong = np.broadcast_to(~(lower <= upper), shape)
    if np.any(wrong):
        where = tuple(map(int, np.argwhere(wrong)[0])) if wrong.ndim else None
        raise ValueError(
            f"`box` must be (lower, upper) with lower <= upper, got {_shown([lower, upper])}"
            f"{'' if where is None else f', where feature {where} has lower > upper or NaN'}."
        )


def _shown(limits: Any) -> str:
    """Format a box for a message: numbers, and the range of arrays."""
    return "({})".format(
        ", ".join(
            str(limit.item()) if limit.ndim == 0 else f"array of {limit.min():.6g} to {limit.max():.6g}"
            for limit in map(np.asarray, limits)
        )
    )


def require(ball: Any) -> Ball:
    """Return ``ball``, or raise ``TypeError`` if it is none."""
    if not isinstance(ball, Ball):
        raise TypeError(f"`ball` must be `jaxattr.L2(epsilon)` or `jaxattr.LInf(epsilon)`, got {ball!r}.")
    return ball


BALLS: dict[str, type[Ball]] = {"l2": L2, "linf": LInf}
