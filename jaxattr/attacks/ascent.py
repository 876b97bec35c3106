"""Projected ascent: the loop that every gradient attack here is a case of.

An *objective* says what is climbed and by what the kept iterate is chosen; the ball says where. One ``lax`` loop, so
that an attack is traced once whatever its number of steps; ``vmap`` over samples, and over keys for restarts.
"""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
from jax import Array

from jaxattr import _checks
from jaxattr.balls import Ball, require
from jaxattr.method import Method
from jaxattr.types import Attack, LogitsFn

Keep = Literal["last", "best", "best_label_kept"]


class Climb(NamedTuple):
    """An objective at one sample.

    Attributes:
      merit: ``x' -> scalar``, by which iterates are compared; larger is a stronger attack.
      merit_and_gradient: ``x' -> (merit, direction of ascent)``. The gradient may be that of a smooth stand-in.
    """

    merit: Callable[[Array], Array]
    merit_and_gradient: Callable[[Array], tuple[Array, Array]]


Objective = Callable[[LogitsFn, Array, Any], Climb]
"""``objective(logits_fn, x, label) -> Climb``; x is the clean sample."""


class AttackResult(NamedTuple):
    """What an attack found. Everything is recomputed at the returned ``x``, after it has been projected once more.

    Attributes:
      x: the perturbed input, inside of ball and box.
      objective: the attack's own measure of success there.
      label: the class predicted there.
      label_kept: whether that is the class predicted for the clean sample; never where logits or input are not
        finite, or the clean sample is outside of the box.
      distance: norm of the perturbation, at most epsilon.
    """

    x: Array
    objective: Array
    label: Array
    label_kept: Array
    distance: Array


def predict(logits_fn: LogitsFn, x: Array) -> Array:
    """The predicted class."""
    return jnp.argmax(logits_fn(x)).astype(jnp.int32)


def finish(
    logits_fn: LogitsFn, ball: Ball, x: Array, perturbed: Array, merit: Callable[[Array], Array]
) -> AttackResult:
    """Project once more, and recompute what is said about the result."""
    perturbed = ball.project_input(x, perturbed)
    label = predict(logits_fn, perturbed)
    kept = label == predict(logits_fn, x)
    # argmax takes NaN for a class, and clipping brings an input from outside of the box back from afar: neither keeps
    # anything.
    kept &= ball.contains(x, perturbed) & jnp.all(jnp.isfinite(logits_fn(perturbed)))
    return AttackResult(perturbed, merit(perturbed), label, kept, ball.norm(perturbed - x))


def projected_ascent(
    objective: Objective,
    ball: Ball,
    *,
    num_steps: int,
    step_size: Any,
    default_step: float,
    random_start: bool | float,
    keep: Keep,
    unroll: int = 1,
) -> Attack:
    """``x_{t+1} = project(x_t + step_size * steepest(grad objective(x_t)))``, and the iterate that is worth keeping.

    Args:
      objective: what is climbed.
      ball: where; its steepest direction is the normalized gradient for L2, the signs for LInf.
      num_steps: gradient steps.
      step_size: in units of the input, may be traced; or ``None``.
      default_step: step size as a share of epsilon, where ``step_size`` is ``None``.
      random_start: start uniformly in the ball (then in the box) instead of at x; or, for a number, with Gaussian noise
        of that standard deviation, projected.
      keep: ``last`` iterate; ``best`` of all, x included; or the best of those that keep the predicted label
        (x itself, unperturbed, where none does).
      unroll: loop steps per compiled iteration.
    """
    _checks.positive_int("num_steps", num_steps)
    _checks.choice("keep", keep, get_args(Keep))
    if not isinstance(random_start, bool):
        _checks.positive("random_start", random_start)
    # A radius of zero is a ball like any other, and makes a step of zero.
    step_size = default_step * require(ball).epsilon if step_size is None else _checks.positive("step_size", step_size)

    def attack(logits_fn: LogitsFn, x: Array, label: Any, key: Array) -> AttackResult:
        x = _checks.sample(x)
        label = _checks.label(logits_fn, x, label)
        climb = objective(logits_fn, x, label)
        clean_label = predict(logits_fn, x)
        length = jnp.asarray(step_size, x.dtype)
        if random_start is True:
            start = ball.clip(x + ball.sample(key, x.shape, x.dtype))
        elif random_start is False:
            start = x
        else:
            start = ball.project_input(x, x + random_start * jax.random.normal(key, x.shape, x.dtype))

        def better(current, merit, best):
            """The better of an iterate and the best so far, (x, merit)."""
            improves = merit > best[1]
            if keep == "best_label_kept":
                improves &= predict(logits_fn, current) == clean_label
            return jnp.where(improves, current, best[0]), jnp.where(improves, merit, best[1])

        def ascend(current):
            merit, gradient = climb.merit_and_gradient(current)
            return merit, ball.project_input(x, current + length * ball.steepest(gradient))

        def last_step(_, current):
            return ascend(current)[1]

        def best_step(t, state):
            current, best = state
            merit, following = ascend(current)
            return jnp.where(t == 0, start, following), better(current, merit, best)

        if keep == "last":
            chosen = jax.lax.fori_loop(0, num_steps, last_step, start, unroll=unroll)
        else:
            # x itself and the last iterate are judged inside of the loop as well: two gradients more than steps, and
            # one copy of the attribution to compile instead of three.
            nothing = (x, jnp.full((), -jnp.inf, x.dtype))
            _, (chosen, _) = jax.lax.fori_loop(0, num_steps + 2, best_step, (x, nothing), unroll=unroll)
        return finish(logits_fn, ball, x, chosen, climb.merit)

    return Method("projected_ascent", attack, ball)
