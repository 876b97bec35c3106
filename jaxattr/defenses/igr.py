"""Train with IGR, which penalizes the angle between clean and attacked attributions (Wang and Kong 2022)."""

import dataclasses

from jaxattr import _checks, metrics
from jaxattr._cost import gradients_of, times, total
from jaxattr._spec import described
from jaxattr.apply_fn import TrainingObjective
from jaxattr.attribution import as_attribution
from jaxattr.defenses._attacked import AttackedObjective, over_batch, zero_where_nan
from jaxattr.programs import guard
from jaxattr.programs.guard import Kinks
from jaxattr.types import Attack, AttributionFn


@described
def igr(
    base: TrainingObjective,
    attribute: AttributionFn,
    strength: float = 1.0,
    *,
    attack: Attack | None = None,
    kinks: Kinks = "refuse",
) -> AttackedObjective:
    r"""Add the regularizer of integrated gradients to an objective.

    .. math:: L_{base}(x, x') + \lambda \tfrac{1}{n} \sum_i \left(1 - \cos(g(x_i), g(x'_i))\right)

    Wang and Kong 2022. x' comes from the attack of the base (cross-entropy for AT, divergence for TRADES), so that no
    attack differentiates an attribution. TRADES+IGR of Wang and Kong 2023 is ``igr(trades(ball),
    integrated_gradients(10))``. They give no strength (a reimplementation takes 1) and do not say whether g(x) is held
    constant (that one holds it; here the gradient flows through both). Statistics of batch normalization are those of
    the base; the attributions are computed in evaluation mode.

    Args:
      base: ``adversarial(...)``, ``trades(...)`` or another objective with an attack; or one without, such as
        ``natural()``, and then ``attack`` says what x' is.
      attribute: g, differentiable in the parameters.
      strength: lambda; at 0 the loss is the base's.
      attack: of one sample; that of the base by default.
      kinks: what to do with a network that is not twice differentiable, such as one with ReLU or max-pooling:
        ``refuse`` it while it is traced, or ``allow`` it. The gradient of an attribution does not see where that jumps.

    Returns:
      ``objective(apply_fn, variables, batch, key) -> (loss, aux)``, with the metrics of the base and
      ``cosine_distance``.

    Raises:
      ValueError: if ``strength`` is negative, or neither the base has an attack nor one is given; on call, if the
        network has kinks or one logit.
      TypeError: if ``attack`` is none, such as a constructor without its arguments.

    Example:
      >>> import jax, jax.numpy as jnp, jaxattr as ja
      >>> from jaxattr.labeled import Batch
      >>> linear = lambda variables, xs, *, train=False, key=None: (xs @ variables["params"], {})
      >>> batch = Batch(jnp.array([[0.5, 0.5]]), jnp.array([0]))
      >>> base = ja.defenses.adversarial(ja.attacks.pgd(ja.LInf(0.1), num_steps=2))
      >>> objective = igr(base, ja.attributions.saliency())
      >>> loss, aux = objective(linear, {"params": jnp.eye(2)}, batch, jax.random.key(0))
      >>> float(aux["metrics"]["cosine_distance"])  # a linear network's saliency does not turn
      0.0
    """
    attribute = as_attribution(attribute)
    _checks.non_negative("strength", strength)
    if attack is not None:
        _checks.attack(attack)
    if isinstance(base, AttackedObjective):
        attacked_base = base if attack is None else dataclasses.replace(base, attack=attack)
    elif attack is not None:
        attacked_base = AttackedObjective(attack, _without_adversaries(base), loss_gradients=gradients_of(base))
    else:
        raise ValueError("`base` has no attack: give one as `attack=`, such as jaxattr.attacks.pgd(ball).")

    def distance(logits_fn, x, label, adversary):
        guard.check(attribute, logits_fn, x, kinks, method="igr")
        maps = [attribute(logits_fn, z, label) for z in (x, adversary)]
        return zero_where_nan(metrics.cosine_distance(*maps))

    def loss(apply_fn, variables, batch, adversaries, key):
        of_base, aux = attacked_base.loss(apply_fn, variables, batch, adversaries, key)
        mean = over_batch(distance, apply_fn, variables, batch.x, batch.label, adversaries).mean()
        return of_base + strength * mean, {**aux, "metrics": {**aux["metrics"], "cosine_distance": mean}}

    gradients = total([attacked_base.loss_gradients, times(4, attribute.gradients)])
    return dataclasses.replace(attacked_base, loss=loss, loss_gradients=gradients)


def _without_adversaries(base: TrainingObjective):
    def loss(apply_fn, variables, batch, adversaries, key):
        del adversaries
        return base(apply_fn, variables, batch, key)

    return loss
