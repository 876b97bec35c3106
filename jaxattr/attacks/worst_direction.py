"""Attack with the maximizer that a bound reports."""

import jax
import jax.numpy as jnp

from jaxattr import _checks
from jaxattr._cost import gradients_of, times, total
from jaxattr._spec import described
from jaxattr.attacks._result import AttackResult, Domain, finish, predict
from jaxattr.attribution import as_attribution
from jaxattr.balls import Ball, require
from jaxattr.method import Method
from jaxattr.metrics import euclidean
from jaxattr.types import AttributionFn, Bound


@described
def worst_direction(
    ball: Ball, attribute: AttributionFn, bound: Bound, *, keep_label: bool = True
) -> Method[AttackResult]:
    """Take the point ``x +- epsilon * direction`` of a bound, clipped to the box, that moves the attribution more.

    For L2 the direction is the top singular vector of J, for LInf a sign corner; where the linear model is good, no
    attack that stays near the box's inside goes much further. Of the two points, one that keeps the predicted label is
    preferred (Wang and Kong 2023, Section 4.3: to first order at least one does). A bound within the box has one such
    point.

    Args:
      ball: the threat model, the same as the bound's.
      attribute: the attribution that is attacked.
      bound: ``(logits_fn, x, label, key) -> DeviationBound``.
      keep_label: prefer a point that keeps the label to one that does not.

    Returns:
      ``attack(logits_fn, x, label, key) -> AttackResult``; ``objective`` is ``||g(x') - g(x)||_2``, ``stalled`` says
      that the bound has no direction, and ``kinks`` are the bound's.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> import jaxattr as ja
      >>> logits_fn = lambda x: jnp.stack([x @ x, -1.0])
      >>> saliency, ball = ja.attributions.saliency(), ja.L2(0.1)
      >>> attack = ja.attacks.worst_direction(ball, saliency, ja.bounds.singular_value(saliency, ball))
      >>> result = jax.jit(attack, static_argnums=0)(logits_fn, jnp.full(4, 0.5), 0, jax.random.key(0))
      >>> round(float(result.objective), 4)
      0.2
    """
    require(ball)
    attribute = as_attribution(attribute)
    _checks.bound(bound)

    def attack(logits_fn, x, label, key) -> AttackResult:
        x = _checks.sample(x)
        base = bound(logits_fn, x, label, key)
        with jax.default_matmul_precision("highest"):
            clean = _checks.attribution_map(attribute(logits_fn, x, label), x)
        clean_label = predict(logits_fn, x)

        def merit(z):
            # Use the precision of the bound with which the deviation is compared.
            with jax.default_matmul_precision("highest"):
                return euclidean(clean, attribute(logits_fn, z, label))

        usable = jnp.isfinite(base.direction)
        direction = jnp.where(usable, base.direction, 0).astype(x.dtype)
        step = jnp.asarray(ball.epsilon, x.dtype) * direction
        # A bound within the box has one maximizer, whose opposite may leave the box.
        steps = [step, -step] if base.two_sided else [step]
        points = jax.vmap(lambda z: ball.project_input(x, z))(jnp.stack([x + step for step in steps]))
        moved = jax.vmap(merit)(points)
        # Replace NaN by -1, below all deviations: argmax would choose NaN.
        moved = jnp.where(jnp.isfinite(moved), moved, -1)
        if keep_label:
            kept = jax.vmap(lambda z: predict(logits_fn, z) == clean_label)(points)
            # Rank points that keep the label above all others, and by deviation among themselves.
            moved = jnp.where(kept, moved, moved - 2 - jnp.max(moved))
        return finish(
            logits_fn,
            Domain.of(ball, x),
            x,
            points[jnp.argmax(moved)],
            merit,
            stalled=~jnp.any(direction != 0),
            kinks=getattr(base, "kinks", 0),
        )

    def gradients(size):
        # The maps at x, at the two points, and at the better one.
        return total([gradients_of(bound, size), times(4, attribute.gradients)])

    return Method("worst_direction", attack, ball, needs_key=getattr(bound, "needs_key", True), gradients=gradients)
