"""Attack by projected gradient descent, PGD (Madry et al. 2018)."""

from typing import Any

from jaxattr import _checks
from jaxattr._spec import described
from jaxattr.attacks._ascent import AttackObjective, Keep, projected_ascent
from jaxattr.attacks._result import AttackResult
from jaxattr.attacks.objectives import cross_entropy, require_objective
from jaxattr.balls import Ball
from jaxattr.method import Method


@described
def pgd(
    ball: Ball,
    *,
    num_steps: int = 20,
    step_size: Any = None,
    objective: AttackObjective | None = None,
    random_start: bool | float = True,
    keep: Keep = "last",
    unroll: int = 1,
) -> Method[AttackResult]:
    """Build PGD, ``x <- project(x + step_size * steepest(grad objective))``, on the cross-entropy by default.

    Wang and Kong 2023 evaluate their l2 bounds with 20 steps on the cross-entropy and state no step size. That attack
    wants another label, not another explanation: it says little about how tight a bound is. For that pass
    ``objective=deviation(attribute, euclidean())``, or use :func:`~jaxattr.attacks.ifia` with ``euclidean()``, which
    also keeps the label.

    Confident networks do not stop it, since :func:`~jaxattr.attacks.cross_entropy` follows the log-odds. Where the
    gradient is zero or not finite in every entry and at every step, the result says so: ``stalled``.

    Args:
      ball: the threat model, L2 or LInf.
      num_steps: gradient steps.
      step_size: in units of the input; ``2.5 * epsilon / num_steps`` by default, which can cross the ball.
      objective: the objective to climb; the cross-entropy of the label by default.
      random_start: start uniformly in the ball, then clipped to the box; a number is the standard deviation of
        Gaussian noise to start with instead (TRADES: 0.001).
      keep: ``last`` (as in the paper), ``best`` or ``best_label_kept``. With the latter an iterate that has lost the
        label goes back half of the way to the last one that had it.
      unroll: loop steps per compiled iteration.

    Returns:
      ``attack(logits_fn, x, label, key) -> AttackResult``.

    Raises:
      ValueError: if an option is out of range; on call, if x lies outside of the box, the label does not fit, or the
        network has one logit.
      TypeError: if ``objective`` is none, such as a constructor without its parentheses.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> import jaxattr as ja
      >>> logits_fn = lambda x: jnp.array([[1.0, -2.0], [0.0, 0.0]]) @ x
      >>> attack = ja.attacks.pgd(ja.LInf(0.1))
      >>> attack(logits_fn, jnp.array([0.5, 0.5]), 0, jax.random.key(0)).x.round(3).tolist()
      [0.4000000059604645, 0.6000000238418579]
    """
    return projected_ascent(
        cross_entropy() if objective is None else require_objective(objective),
        ball,
        num_steps=num_steps,
        step_size=step_size,
        default_step=2.5 / _checks.positive_int("num_steps", num_steps),
        random_start=random_start,
        keep=keep,
        unroll=unroll,
        name="pgd",
    )
