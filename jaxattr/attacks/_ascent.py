"""Climb an objective by projected gradient steps: the loop of every gradient attack of the library.

An *objective* gives the ascent direction and the merit by which the kept iterate is chosen; the ball is the domain. One
``lax`` loop traces an attack once, whatever its number of steps; ``vmap`` it over samples, and over keys for restarts.
"""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
from jax import Array

from jaxattr import _checks, _logits
from jaxattr.balls import Ball, require
from jaxattr.method import Method
from jaxattr.types import LogitsFn

Keep = Literal["last", "best", "best_label_kept"]


class PointObjective(NamedTuple):
    """Functions of an objective at one sample.

    Attributes:
      value: ``x' -> scalar``, by which iterates are compared; larger is a stronger attack.
      value_and_grad: ``x' -> (value, direction of ascent)``. The gradient may be that of a smooth stand-in.
      steer: ``x' -> (score, direction)`` for loops that compare and normalize anyway: an increasing function of the
        value and a positive multiple of the gradient, neither of which vanishes where a confident network makes
        those of ``value_and_grad`` underflow. ``None`` takes the latter.
      even: whether ``x - d`` is as good as ``x + d`` to leading order, as for a distance between attributions.
      kinks: how many operations of the network are not twice differentiable, where that was asked and allowed.
    """

    value: Callable[[Array], Array]
    value_and_grad: Callable[[Array], tuple[Array, Array]]
    steer: Callable[[Array], tuple[Array, Array]] | None = None
    even: bool = False
    kinks: int = 0


AttackObjective = Callable[[LogitsFn, Array, Any], PointObjective]
"""An objective is ``objective(logits_fn, x, label) -> PointObjective``; x is the clean sample."""


class AttackResult(NamedTuple):
    """The outcome of an attack, recomputed at the returned ``x`` after one more projection.

    Attributes:
      x: the perturbed input, inside of ball and box.
      objective: the attack's own measure of success there.
      label: the class predicted there; -1 where the logits are not finite and no class is predicted.
      label_kept: whether that is the class predicted for the clean sample; never where logits or input are not
        finite, or the clean sample is outside of the box.
      distance: norm of the perturbation, at most epsilon.
      stalled: whether the attack could not try: at every step all entries of the gradient were zero or not finite. The
        result then says nothing about robustness.
      kinks: how many operations of the network are not twice differentiable, for attacks that differentiate an
        attribution with ``kinks="allow"``; 0 for all others.
    """

    x: Array
    objective: Array
    label: Array
    label_kept: Array
    distance: Array
    stalled: Array
    kinks: Array


def predict(logits_fn: LogitsFn, x: Array) -> Array:
    """Return the predicted class, or -1 where the logits are not finite.

    Raises:
      ValueError: if there is one logit.
    """
    logits = logits_fn(x)
    _logits.require_classes(logits.shape[-1], "an attack")
    return _logits.predicted(logits)


def finish(
    logits_fn: LogitsFn,
    ball: Ball,
    x: Array,
    perturbed: Array,
    merit: Callable[[Array], Array],
    *,
    stalled: Any = False,
    kinks: Any = 0,
) -> AttackResult:
    """Project once more, and compute the fields of the result at the projected point."""
    perturbed = ball.project_input(x, perturbed)
    label = predict(logits_fn, perturbed)
    # Clipping hides an input outside of the box, so that ``contains`` decides whether the label counts as kept.
    kept = (label == predict(logits_fn, x)) & (label >= 0) & ball.contains(x, perturbed)
    distance = ball.norm(perturbed - x)
    return AttackResult(
        perturbed, merit(perturbed), label, kept, distance, jnp.asarray(stalled, bool), jnp.asarray(kinks, jnp.int32)
    )


class _Walk(NamedTuple):
    """The state of the ascent loop.

    Attributes:
      current: the iterate.
      chosen: the one to return: the best so far, or for ``last`` the last with a finite merit.
      score: of ``chosen``.
      anchor: the last iterate that kept the label.
      mirrored: whether an iterate has lost the label already.
      stalled: whether no step so far had a usable gradient.
    """

    current: Array
    chosen: Array
    score: Array
    anchor: Array
    mirrored: Array
    stalled: Array


def _require_functions(climb: Any) -> PointObjective:
    if not isinstance(climb, PointObjective):
        raise TypeError(
            f"`objective` must return a `jaxattr.attacks.PointObjective` for one sample, got {type(climb).__name__}."
            " Accepted are objectives such as `jaxattr.attacks.cross_entropy()`, with parentheses."
        )
    return climb


def _start(ball: Ball, x: Array, random_start: bool | float, key: Any) -> Array:
    if random_start is False:
        return x
    if random_start is True:
        return ball.project_input(x, x + ball.sample(key, x.shape, x.dtype))
    return ball.project_input(x, x + random_start * jax.random.normal(key, x.shape, x.dtype))


def projected_ascent(
    objective: AttackObjective,
    ball: Ball,
    *,
    num_steps: int,
    step_size: Any,
    default_step: float,
    random_start: bool | float,
    keep: Keep,
    unroll: int = 1,
    name: str = "projected_ascent",
) -> Method[AttackResult]:
    """Ascend by ``x_{t+1} = project(x_t + step_size * steepest(grad objective(x_t)))``, and keep one of the iterates.

    Entries of the gradient that are not finite count as zero. With ``keep="best_label_kept"`` the constraint steers as
    well as selects: an iterate that has lost the label goes half of the way back to the last one that had it. The first
    time, where the objective is a distance, it goes to the opposite point ``x - (x_t - x)`` instead: to first order one
    of the two keeps the label, and both are as far.

    Args:
      objective: the objective to climb.
      ball: the domain; its steepest direction is the normalized gradient for L2, the signs for LInf.
      num_steps: gradient steps.
      step_size: in units of the input, may be traced; or ``None``.
      default_step: step size as a share of epsilon, where ``step_size`` is ``None``.
      random_start: start uniformly in the ball (then in the box) instead of at x; or, for a number, with Gaussian noise
        of that standard deviation, projected.
      keep: ``last`` iterate (the last finite one, where logits stop being finite); ``best`` of all, x included; or the
        best of those that keep the predicted label (x itself, unperturbed, where none does).
      unroll: loop steps per compiled iteration.
      name: of the attack, for tables and messages.
    """
    _checks.positive_int("num_steps", num_steps)
    _checks.choice("keep", keep, get_args(Keep))
    if not isinstance(random_start, bool):
        _checks.positive("random_start", random_start)
    # A ball of radius zero is valid, and makes a step size of zero.
    step_size = default_step * require(ball).epsilon if step_size is None else _checks.positive("step_size", step_size)

    def attack(logits_fn: LogitsFn, x: Array, label: Any, key: Array | None) -> AttackResult:
        x = _checks.sample(x)
        label = _checks.label(logits_fn, x, label)
        climb = _require_functions(objective(logits_fn, x, label))
        steer = climb.value_and_grad if climb.steer is None else climb.steer
        clean_label = predict(logits_fn, x)
        length = jnp.asarray(step_size, x.dtype)
        # Logits may have another precision than x: compare scores in the finer one of x's and the default precision.
        precision = jnp.promote_types(x.dtype, jnp.result_type(float))
        start = _start(ball, x, random_start, key)

        def look(walk: _Walk) -> tuple[Array, Array, _Walk]:
            """Return the score of the iterate, the next iterate, and the walk with its ``stalled`` flag updated."""
            score, gradient = steer(walk.current)
            gradient = jnp.where(jnp.isfinite(gradient), gradient, 0)
            onward = ball.project_input(x, walk.current + length * ball.steepest(gradient))
            return score.astype(precision), onward, walk._replace(stalled=walk.stalled & ~jnp.any(gradient != 0))

        def last_step(_, walk: _Walk) -> _Walk:
            score, onward, walk = look(walk)
            chosen = jnp.where(jnp.isfinite(score), walk.current, walk.chosen)
            return walk._replace(current=onward, chosen=chosen)

        def best_step(t: Array, walk: _Walk) -> _Walk:
            current = walk.current
            score, following, walk = look(walk)
            improves = score > walk.score
            if keep == "best_label_kept":
                kept = (predict(logits_fn, current) == clean_label) & (clean_label >= 0)
                improves &= kept
                opposite = ~walk.mirrored & climb.even
                back = jnp.where(opposite, ball.project_input(x, 2 * x - current), (current + walk.anchor) / 2)
                following = jnp.where(kept, following, back)
                anchor = jnp.where(kept, current, jnp.where(opposite, x, walk.anchor))
                walk = walk._replace(anchor=anchor, mirrored=walk.mirrored | ~kept)
            return walk._replace(
                current=jnp.where(t == 0, start, following),
                chosen=jnp.where(improves, current, walk.chosen),
                score=jnp.where(improves, score, walk.score),
            )

        nothing = jnp.full((), -jnp.inf, precision)
        if keep == "last":
            walk = _Walk(start, x, nothing, x, jnp.zeros((), bool), jnp.ones((), bool))
            walk = jax.lax.fori_loop(0, num_steps, last_step, walk, unroll=unroll)
            chosen = jnp.where(predict(logits_fn, walk.current) >= 0, walk.current, walk.chosen)
        else:
            # The loop also judges x itself and the last iterate: it takes two gradients more than steps, and compiles
            # one copy of the attribution instead of three.
            walk = _Walk(x, x, nothing, x, jnp.zeros((), bool), jnp.ones((), bool))
            walk = jax.lax.fori_loop(0, num_steps + 2, best_step, walk, unroll=unroll)
            chosen = walk.chosen
        return finish(logits_fn, ball, x, chosen, climb.value, stalled=walk.stalled, kinks=climb.kinks)

    return Method(name, attack, ball, needs_key=random_start is not False)
