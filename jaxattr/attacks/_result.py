"""Define the result of an attack, which is recomputed at the input that the attack returns."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import Array

from jaxattr import _logits
from jaxattr.balls import Ball
from jaxattr.types import LogitsFn


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


class Domain(NamedTuple):
    """The set of perturbed inputs of one clean sample, as functions of a perturbed input.

    An attack of a fixed radius searches a ball (:meth:`of`). An attack that looks for the smallest perturbation builds
    its own: its ``project`` is that of the box alone, or the identity where its variables cannot leave the box.

    Attributes:
      project: ``x' -> x'`` inside of the domain.
      contains: ``x' -> bool``, false for whatever the projection cannot repair.
      distance: ``x' -> scalar``, the norm of the perturbation.
    """

    project: Callable[[Array], Array]
    contains: Callable[[Array], Array]
    distance: Callable[[Array], Array]

    @classmethod
    def of(cls, ball: Ball, x: Array) -> "Domain":
        """Build the domain of the inputs inside of a ball about ``x`` and of the ball's box."""
        return cls(
            lambda perturbed: ball.project_input(x, perturbed),
            lambda perturbed: ball.contains(x, perturbed),
            lambda perturbed: ball.norm(perturbed - x),
        )


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
    domain: Domain,
    x: Array,
    perturbed: Array,
    value: Callable[[Array], Array],
    *,
    stalled: Any = False,
    kinks: Any = 0,
) -> AttackResult:
    """Project once more, and compute the fields of the result at the projected point.

    Args:
      logits_fn: classifier of one input.
      domain: the domain of the attack.
      x: the clean sample.
      perturbed: the input that the attack chose.
      value: ``x' -> scalar``, the attack's own measure of success.
      stalled: see :class:`AttackResult`.
      kinks: see :class:`AttackResult`.
    """
    perturbed = domain.project(perturbed)
    label = predict(logits_fn, perturbed)
    # Clipping hides an input outside of the box, so that ``contains`` decides whether the label counts as kept.
    kept = (label == predict(logits_fn, x)) & (label >= 0) & domain.contains(perturbed)
    distance = domain.distance(perturbed)
    return AttackResult(
        perturbed, value(perturbed), label, kept, distance, jnp.asarray(stalled, bool), jnp.asarray(kinks, jnp.int32)
    )
