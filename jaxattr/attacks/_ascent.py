"""Ascend an objective by gradient steps: ``init``, ``step`` and ``run``, the loop of every gradient attack.

A step evaluates the objective at the current iterate and then asks two rules. The *move* says which point comes next;
the *keep* says whether the iterate is the one to return so far, and may send the search elsewhere. Each rule has a
memory of its own in the state, as an optimizer of Optax has. One ``lax`` loop traces an attack once, whatever its
number of steps; ``vmap`` it over samples, and over keys for restarts.

Projected ascent (:func:`projected_ascent`) is the move :func:`steepest` with one of three keeps. Other attacks reuse
the loop with rules of their own: a move that remembers the previous iterate and its step size, for momentum and
halving; a keep that takes the nearest iterate that has lost the label, for the smallest perturbation.
"""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
from jax import Array

from jaxattr import _checks
from jaxattr._cost import gradients_of, times
from jaxattr.attacks._result import AttackResult, Domain, finish, predict
from jaxattr.balls import Ball, require
from jaxattr.method import Method
from jaxattr.types import LogitsFn

Keep = Literal["last", "best", "best_label_kept"]


class PointObjective(NamedTuple):
    """The functions of an objective at one sample.

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

    @property
    def ascent(self) -> Callable[[Array], tuple[Array, Array]]:
        """Return ``x' -> (score, direction)`` for a loop that compares scores and normalizes directions."""
        return self.value_and_grad if self.steer is None else self.steer


AttackObjective = Callable[[LogitsFn, Array, Any], PointObjective]
"""An objective is ``objective(logits_fn, x, label) -> PointObjective``; x is the clean sample."""


class Move(NamedTuple):
    """A rule for the next iterate.

    Attributes:
      init: ``start -> memory``, any pytree of arrays.
      update: ``(memory, current, score, gradient) -> (following, memory)``. The gradient is finite.
    """

    init: Callable[[Array], Any]
    update: Callable[[Any, Array, Array, Array], tuple[Array, Any]]


class Keeper(NamedTuple):
    """A rule for the iterate to return.

    Attributes:
      init: ``start -> memory``, any pytree of arrays.
      update: ``(memory, state, score, following) -> (take, following, memory)``: whether ``state.current``, which has
        this score, is the one to return from now on, and the next iterate, which the rule may change.
    """

    init: Callable[[Array], Any]
    update: Callable[[Any, "State", Array, Array], tuple[Array, Array, Any]]


class State(NamedTuple):
    """The state of an ascent at one sample.

    Attributes:
      current: the iterate that the next step evaluates; changes in every step.
      chosen: the iterate to return; becomes ``current`` in steps in which the keep rule takes it.
      score: of ``chosen``, minus infinity at first; changes together with ``chosen``.
      stalled: whether no step so far had a usable gradient; true at first, false from the first such step on.
      moves: the memory of the move rule; the rule changes it in every step.
      keeps: the memory of the keep rule; the rule changes it in every step.
    """

    current: Array
    chosen: Array
    score: Array
    stalled: Array
    moves: Any
    keeps: Any


def init(start: Array, move: Move, keep: Keeper, *, fallback: Array | None = None) -> State:
    """Build the state before the first step.

    Args:
      start: the first iterate.
      move: the rule for the next iterate.
      keep: the rule for the iterate to return.
      fallback: the input to return where no iterate is taken; ``start`` by default.
    """
    # Logits may have another precision than x: compare scores in the finer one of x's and the default precision.
    precision = jnp.promote_types(start.dtype, jnp.result_type(float))
    return State(
        current=start,
        chosen=start if fallback is None else fallback,
        score=jnp.full((), -jnp.inf, precision),
        stalled=jnp.ones((), bool),
        moves=move.init(start),
        keeps=keep.init(start),
    )


def step(state: State, evaluate: Callable[[Array], tuple[Array, Array]], move: Move, keep: Keeper) -> State:
    """Evaluate the current iterate, decide whether to keep it, and go on to the next one.

    Args:
      state: the state before the step.
      evaluate: ``x' -> (score, gradient)``. Entries of the gradient that are not finite count as zero.
      move: the rule for the next iterate.
      keep: the rule for the iterate to return.
    """
    score, gradient = evaluate(state.current)
    score, gradient = score.astype(state.score.dtype), jnp.where(jnp.isfinite(gradient), gradient, 0)
    following, moves = move.update(state.moves, state.current, score, gradient)
    take, following, keeps = keep.update(state.keeps, state, score, following)
    return State(
        current=following,
        chosen=jnp.where(take, state.current, state.chosen),
        score=jnp.where(take, score, state.score),
        stalled=state.stalled & ~jnp.any(gradient != 0),
        moves=moves,
        keeps=keeps,
    )


def run(
    state: State,
    evaluate: Callable[[Array], tuple[Array, Array]],
    move: Move,
    keep: Keeper,
    num_steps: int,
    *,
    then: Array | None = None,
    unroll: int = 1,
) -> State:
    """Make ``num_steps`` steps in one loop.

    Args:
      state: from :func:`init`.
      evaluate: as in :func:`step`.
      move: as in :func:`step`.
      keep: as in :func:`step`.
      num_steps: evaluations of the objective.
      then: a second iterate, which takes the place of the move from the first one. An ascent that starts at a random
        point can so judge the clean sample, too, in the same loop: the attribution is compiled once.
      unroll: steps per compiled iteration.
    """

    def body(t: Array, state: State) -> State:
        following = step(state, evaluate, move, keep)
        if then is None:
            return following
        # A move that is not made must not be remembered.
        moves = jax.tree.map(lambda old, new: jnp.where(t == 0, old, new), state.moves, following.moves)
        return following._replace(current=jnp.where(t == 0, then, following.current), moves=moves)

    return jax.lax.fori_loop(0, num_steps, body, state, unroll=unroll)


def steepest(domain: Domain, ball: Ball, length: Array) -> Move:
    """Build the move to ``project(x_t + length * d)``, d the ball's steepest direction for the gradient."""

    def update(memory: Any, current: Array, _: Array, gradient: Array) -> tuple[Array, Any]:
        return domain.project(current + length * ball.steepest(gradient)), memory

    return Move(lambda _: (), update)


def last_finite() -> Keeper:
    """Build the rule that takes every iterate with a finite score, so that the last one stays."""
    return Keeper(lambda _: (), lambda memory, _, score, following: (jnp.isfinite(score), following, memory))


def best() -> Keeper:
    """Build the rule that takes an iterate whose score is above that of the chosen one."""
    return Keeper(lambda _: (), lambda memory, state, score, following: (score > state.score, following, memory))


class _Returns(NamedTuple):
    """The memory of :func:`best_label_kept`.

    Attributes:
      anchor: the last iterate that kept the label; changes in each step whose iterate kept it.
      lost: whether an iterate has lost the label; true from the first such step on.
    """

    anchor: Array
    lost: Array


def best_label_kept(
    x: Array, keeps_label: Callable[[Array], Array], project: Callable[[Array], Array], *, even: bool
) -> Keeper:
    """Build the rule that takes the best of the iterates that keep the label, and sends the others back.

    An iterate that has lost the label goes half of the way back to the last one that had it. The first time, where the
    objective is even, it goes to the opposite point ``x - (x_t - x)`` instead: to first order one of the two keeps the
    label, and both are as far.

    Args:
      x: the clean sample.
      keeps_label: ``x' -> bool``.
      project: ``x' -> x'`` inside of the domain.
      even: see :class:`PointObjective`.
    """

    def update(memory: _Returns, state: State, score: Array, following: Array) -> tuple[Array, Array, _Returns]:
        current, (anchor, lost) = state.current, memory
        kept = keeps_label(current)
        opposite = ~lost & even
        back = jnp.where(opposite, project(2 * x - current), (current + anchor) / 2)
        anchor = jnp.where(kept, current, jnp.where(opposite, x, anchor))
        return (score > state.score) & kept, jnp.where(kept, following, back), _Returns(anchor, lost | ~kept)

    return Keeper(lambda _: _Returns(x, jnp.zeros((), bool)), update)


def _require_functions(given: Any) -> PointObjective:
    """Return what an objective built, or raise ``TypeError`` if it is no :class:`PointObjective`."""
    if not isinstance(given, PointObjective):
        raise TypeError(
            f"`objective` must return a `jaxattr.attacks.PointObjective` for one sample, got {type(given).__name__}."
            " Accepted are objectives such as `jaxattr.attacks.cross_entropy()`, with parentheses."
        )
    return given


def _start(domain: Domain, ball: Ball, x: Array, random_start: bool | float, key: Any) -> Array:
    if random_start is False:
        return x
    if random_start is True:
        return domain.project(x + ball.sample(key, x.shape, x.dtype))
    return domain.project(x + random_start * jax.random.normal(key, x.shape, x.dtype))


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
    well as selects: see :func:`best_label_kept`.

    Args:
      objective: the objective to ascend.
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
        functions, domain = _require_functions(objective(logits_fn, x, label)), Domain.of(ball, x)
        move = steepest(domain, ball, jnp.asarray(step_size, x.dtype))
        start = _start(domain, ball, x, random_start, key)
        if keep == "last":
            rule = last_finite()
            state = run(init(start, move, rule, fallback=x), functions.ascent, move, rule, num_steps, unroll=unroll)
            # The loop has not evaluated the last iterate.
            chosen = jnp.where(predict(logits_fn, state.current) >= 0, state.current, state.chosen)
        else:
            rule = best()
            if keep == "best_label_kept":
                clean = predict(logits_fn, x)
                rule = best_label_kept(
                    x, lambda z: (predict(logits_fn, z) == clean) & (clean >= 0), domain.project, even=functions.even
                )
            # The loop also judges x itself and the last iterate: it takes two gradients more than steps, and compiles
            # one copy of the attribution instead of three.
            state = run(init(x, move, rule), functions.ascent, move, rule, num_steps + 2, then=start, unroll=unroll)
            chosen = state.chosen
        return finish(logits_fn, domain, x, chosen, functions.value, stalled=state.stalled, kinks=functions.kinks)

    def gradients(_: int) -> int | None:
        return times(num_steps, gradients_of(objective))

    return Method(name, attack, ball, needs_key=random_start is not False, gradients=gradients)
