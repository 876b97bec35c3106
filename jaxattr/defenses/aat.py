"""Train with attributional adversarial training: AAT, and AdvAAT with a robust loss (Ivankay et al. 2020)."""

from jaxattr import _checks
from jaxattr._cost import times, total
from jaxattr._spec import described
from jaxattr.attacks import Dissimilarity, cross_entropy, deviation, pgd, weighted_sum
from jaxattr.attacks.dissimilarities import pearson
from jaxattr.attribution import as_attribution
from jaxattr.balls import Ball
from jaxattr.defenses._attacked import AttackedObjective, penalized, zero_where_nan
from jaxattr.programs import guard
from jaxattr.programs.guard import Kinks
from jaxattr.types import AttributionFn


@described
def aat(
    attribute: AttributionFn,
    ball: Ball,
    strength: float = 1.0,
    *,
    num_steps: int = 7,
    step_size: float | None = None,
    dissimilarity: Dissimilarity | None = None,
    attack_attribute: AttributionFn | None = None,
    kinks: Kinks = "refuse",
) -> AttackedObjective:
    r"""Build the objective of AAT.

    .. math:: \min_\theta \tfrac{1}{n} \sum_i \mathrm{CE}(f_\theta(x_i), y_i)
              + \lambda \max_{x' \in N(x_i)} d(g(x_i), g(x')), \qquad d = 1 - \tfrac{r + 1}{2}

    r is Pearson's correlation of the signed feature maps. No official code for images was found: the formula follows
    the literature (Wang and Kong 2023, Section 2.2, confirm the correlation; the authors' later code for text the scale
    to [0, 1]), and strength, steps and path points are recommendations, not quotations. The gradient flows through
    both attributions. Statistics of batch normalization are updated by the clean pass, and frozen in attack and
    attribution.

    Args:
      attribute: g, differentiable in the parameters, such as ``integrated_gradients(num_steps=50)``.
      ball: the threat model.
      strength: lambda.
      num_steps: steps of the inner attack, PGD from a uniform random start.
      step_size: in units of the input; ``2.5 * epsilon / num_steps`` by default.
      dissimilarity: objective of the attack; :func:`jaxattr.attacks.dissimilarities.pearson` by default, which is the
        loss's.
      attack_attribute: a cheaper g for the attack, such as ``integrated_gradients(num_steps=10)``; g by default.
      kinks: what to do with a network that is not twice differentiable, such as one with ReLU or max-pooling:
        ``refuse`` it while it is traced, or ``allow`` it. The gradient of an attribution does not see where that jumps.

    Returns:
      ``objective(apply_fn, variables, batch, key) -> (loss, aux)``, with the metrics ``accuracy`` and
      ``pearson_distance``.

    Raises:
      ValueError: if an option is out of range; on call, if the network has kinks or one logit.

    Example:
      >>> import jax, jax.numpy as jnp, jaxattr as ja
      >>> from jaxattr.labeled import Batch
      >>> linear = lambda variables, xs, *, train=False, key=None: (xs @ variables["params"], {})
      >>> batch = Batch(jnp.array([[0.5, 0.5]]), jnp.array([0]))
      >>> objective = aat(ja.attributions.saliency(), ja.LInf(0.1))
      >>> loss, aux = objective(linear, {"params": jnp.eye(2)}, batch, jax.random.key(0))
      >>> float(aux["metrics"]["pearson_distance"])  # a linear network's saliency does not move
      0.0
    """
    attribute = as_attribution(attribute)
    _checks.non_negative("strength", strength)
    objective = deviation(attack_attribute or attribute, dissimilarity or pearson(), kinks=kinks, method="aat")
    attack = pgd(ball, objective=objective, num_steps=num_steps, step_size=step_size)

    loss = penalized("clean", _distance(attribute, kinks, "aat"), strength, "pearson_distance")
    return AttackedObjective(attack, loss, explains=True, loss_gradients=total([1, times(4, attribute.gradients)]))


@described
def adv_aat(
    attribute: AttributionFn,
    ball: Ball,
    strength: float = 1.0,
    *,
    num_steps: int = 7,
    step_size: float | None = None,
    dissimilarity: Dissimilarity | None = None,
    attack_attribute: AttributionFn | None = None,
    kinks: Kinks = "refuse",
) -> AttackedObjective:
    r"""Build the objective of AdvAAT, which attacks prediction and explanation together.

    .. math:: \min_\theta \tfrac{1}{n} \sum_i \max_{x' \in N(x_i)}
              \mathrm{CE}(f_\theta(x'), y_i) + \lambda d(g(x_i), g(x'))

    As :func:`aat` (and as little verified), "with robust training loss" (Wang and Kong 2023, Section 5): one x' climbs
    the sum. Statistics of batch normalization are updated by the pass on the adversaries.

    Args:
      attribute: g, differentiable in the parameters.
      ball: the threat model.
      strength: lambda.
      num_steps: steps of the inner attack.
      step_size: in units of the input; ``2.5 * epsilon / num_steps`` by default.
      dissimilarity: objective of the attack beside the cross-entropy;
        :func:`jaxattr.attacks.dissimilarities.pearson` by default.
      attack_attribute: a cheaper g for the attack; g by default.
      kinks: what to do with a network that is not twice differentiable, such as one with ReLU or max-pooling:
        ``refuse`` it while it is traced, or ``allow`` it. The gradient of an attribution does not see where that jumps.

    Returns:
      ``objective(apply_fn, variables, batch, key) -> (loss, aux)``, with the metrics ``adversarial_accuracy`` and
      ``pearson_distance``.

    Raises:
      ValueError: if an option is out of range; on call, if the network has kinks or one logit.

    Example:
      >>> import jax, jax.numpy as jnp, jaxattr as ja
      >>> from jaxattr.labeled import Batch
      >>> linear = lambda variables, xs, *, train=False, key=None: (xs @ variables["params"], {})
      >>> batch = Batch(jnp.array([[0.5, 0.5]]), jnp.array([0]))
      >>> objective = adv_aat(ja.attributions.saliency(), ja.LInf(0.1))
      >>> loss, aux = objective(linear, {"params": jnp.eye(2)}, batch, jax.random.key(0))
      >>> round(float(loss), 4)  # adversarial training's, for the saliency does not move
      0.7981
    """
    attribute = as_attribution(attribute)
    _checks.non_negative("strength", strength)
    objective = weighted_sum(
        [
            (1.0, cross_entropy()),
            (
                strength,
                deviation(attack_attribute or attribute, dissimilarity or pearson(), kinks=kinks, method="adv_aat"),
            ),
        ]
    )
    attack = pgd(ball, objective=objective, num_steps=num_steps, step_size=step_size)

    loss = penalized("adversaries", _distance(attribute, kinks, "adv_aat"), strength, "pearson_distance")
    return AttackedObjective(attack, loss, explains=True, loss_gradients=total([1, times(4, attribute.gradients)]))


def _distance(attribute: AttributionFn, kinks: Kinks, method: str):
    def distance(logits_fn, x, label, adversary):
        guard.check(attribute, logits_fn, x, kinks, method=method)
        compared = pearson().compare(attribute(logits_fn, x, label))
        return zero_where_nan(compared.measure(attribute(logits_fn, adversary, label)))

    return distance
