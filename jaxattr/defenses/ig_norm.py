"""Train with IG-NORM and IG-SUM-NORM, which penalize integrated gradients of the loss from a sample to neighbors."""

import jax.numpy as jnp

from jaxattr import _checks, outputs
from jaxattr._cost import gradients_of, times, total
from jaxattr._spec import described
from jaxattr.attacks import AttackObjective, NamedObjective, PointObjective, cross_entropy, pgd, weighted_sum
from jaxattr.attributions import integrated_gradients
from jaxattr.attributions.integrated_gradients import Rule
from jaxattr.balls import Ball
from jaxattr.defenses._attacked import AttackedObjective, penalized
from jaxattr.jacobian import unchecked_jacobian
from jaxattr.programs import guard
from jaxattr.programs.guard import Kinks


@described
def path_norm(
    num_steps: int = 10,
    rule: Rule = "right",
    chunk: int | None = 5,
    rematerialize: bool = False,
    *,
    kinks: Kinks = "refuse",
    method: str = "path_norm",
) -> NamedObjective:
    """Build ``|| IG(x -> x') ||_1`` of the cross-entropy, as an objective for :func:`jaxattr.attacks.pgd`.

    ``IG_i(x -> x') = (x'_i - x_i) * integral_0^1 d_i CE(x + t (x' - x), y) dt``: integrated gradients of the loss of
    the label, with the clean sample as baseline. Its entries sum to ``CE(x') - CE(x)``. It is 0 with gradient 0 at x.

    Args:
      num_steps: path points, m in Chen et al. 2019.
      rule: of the quadrature; the authors' right Riemann sum by default.
      chunk: path points evaluated at once.
      rematerialize: see :func:`jaxattr.attributions.integrated_gradients`; the gradient of an attack recomputes, too.
      kinks: what to do with a network that is not twice differentiable; see :func:`ig_norm`.
      method: name of the calling method, for messages.

    Raises:
      ValueError: on call, if the network has kinks or one logit.

    Example:
      >>> import jax.numpy as jnp
      >>> norm = path_norm(num_steps=100)(lambda x: x, jnp.zeros(2), 0)
      >>> round(float(norm.value(jnp.array([0.0, 1.0]))), 2)  # log(1 + e) - log(2), and the sum's error
      0.62
    """
    checked = integrated_gradients(num_steps, rule, chunk=chunk)  # refuses invalid options before tracing

    def objective(logits_fn, x, label):
        path = integrated_gradients(num_steps, rule, x, chunk, rematerialize)
        attribute = outputs.explaining(path, outputs.loss)
        found = guard.check(attribute, logits_fn, x, kinks, method=method)

        def value(z):
            return jnp.sum(jnp.abs(attribute(logits_fn, z, label)))

        def value_and_grad(z):
            jacobian = unchecked_jacobian(attribute, logits_fn, z, label, linearize=not rematerialize)
            return jnp.sum(jnp.abs(jacobian.value)), jacobian.rmatvec(jnp.sign(jacobian.value))

        return PointObjective(value, value_and_grad, kinks=found)

    return NamedObjective("path_norm", objective, gradients=times(2, gradients_of(checked)))


@described
def ig_norm(
    ball: Ball,
    strength: float = 1.0,
    *,
    num_steps: int = 40,
    step_size: float | None = None,
    path_steps: int = 50,
    attack_path_steps: int = 10,
    rule: Rule = "right",
    chunk: int | None = 5,
    rematerialize: bool = False,
    kinks: Kinks = "refuse",
) -> AttackedObjective:
    r"""Build the objective of IG-NORM.

    .. math:: \min_\theta \tfrac{1}{n} \sum_i \mathrm{CE}(f_\theta(x_i), y_i)
              + \lambda \max_{x' \in N(x_i)} || \mathrm{IG}(x_i \to x') ||_1

    Chen et al. 2019, Eq. 8 with their released inner attack: PGD with a uniform random start on the second term alone,
    through second derivatives. IG is that of the cross-entropy of the label, a right Riemann sum. Both terms are means
    over the batch here and sums there, which is the same ratio. (Their code clips probabilities at 1e-10; a logarithm
    of softmax needs no clipping.) Statistics of batch normalization, which their networks do not have, are updated by
    the clean pass and frozen in attack and attribution.

    On a network of one layer with a convex loss the sum of both terms at ``strength=1`` is adversarial training
    (Chalasani et al. 2020, Theorem 5.1), except for the quadrature.

    Args:
      ball: the threat model.
      strength: lambda; the authors take 1 on MNIST and Fashion-MNIST, 0.1 on Flower.
      num_steps: steps of the inner attack.
      step_size: in units of the input; ``2.5 * epsilon / num_steps`` by default.
      path_steps: path points in the loss, m.
      attack_path_steps: path points in the attack.
      rule: of the quadrature in both; the authors' right Riemann sum by default.
      chunk: path points evaluated at once.
      rematerialize: in attack and loss, compute each chunk again instead of keeping what all path points have computed:
        half of the memory with 10 path points, and less the more there are.
      kinks: what to do with a network that is not twice differentiable, such as one with ReLU or max-pooling:
        ``refuse`` it while it is traced, or ``allow`` it. The gradient of an attribution does not see where that jumps.

    Returns:
      ``objective(apply_fn, variables, batch, key) -> (loss, aux)``, with the metrics ``accuracy`` and ``ig_norm``.

    Raises:
      ValueError: if an option is out of range; on call, if the network has kinks or one logit.

    Example:
      >>> import jax, jax.numpy as jnp, jaxattr as ja
      >>> from jaxattr.labeled import Batch
      >>> linear = lambda variables, xs, *, train=False, key=None: (xs @ variables["params"], {})
      >>> batch = Batch(jnp.array([[0.5, 0.5]]), jnp.array([0]))
      >>> objective = ig_norm(ja.LInf(0.1), num_steps=5)
      >>> loss, aux = objective(linear, {"params": jnp.eye(2)}, batch, jax.random.key(0))
      >>> round(float(aux["metrics"]["ig_norm"]), 3)  # log(1 + exp(0.2)) - log(2), and the sum's error
      0.105
    """
    _checks.non_negative("strength", strength)
    objective = path_norm(attack_path_steps, rule, chunk, rematerialize, kinks=kinks, method="ig_norm")
    attack = pgd(ball, objective=objective, num_steps=num_steps, step_size=step_size)
    path = path_norm(path_steps, rule, chunk, rematerialize, kinks=kinks, method="ig_norm")
    loss = penalized("clean", _norm(path), strength, "ig_norm")
    return AttackedObjective(attack, loss, explains=True, loss_gradients=total([1, gradients_of(path)]))


@described
def ig_sum_norm(
    ball: Ball,
    strength: float = 0.1,
    *,
    num_steps: int = 40,
    step_size: float | None = None,
    path_steps: int = 50,
    attack_path_steps: int = 10,
    rule: Rule = "right",
    chunk: int | None = 5,
    rematerialize: bool = False,
    kinks: Kinks = "refuse",
) -> AttackedObjective:
    r"""Build the objective of IG-SUM-NORM.

    .. math:: \min_\theta \tfrac{1}{n} \sum_i \max_{x' \in N(x_i)} \mathrm{CE}(f_\theta(x'), y_i)
              + \beta || \mathrm{IG}(x_i \to x') ||_1

    Chen et al. 2019, Eq. 9: the attack climbs the same sum, with fewer path points. Otherwise as :func:`ig_norm`; the
    statistics of batch normalization are updated by the pass on the adversaries.

    Args:
      ball: the threat model.
      strength: beta; the authors take 0.1, and 1 in the released file for GTSRB.
      num_steps: steps of the inner attack.
      step_size: in units of the input; ``2.5 * epsilon / num_steps`` by default.
      path_steps: path points in the loss, m.
      attack_path_steps: path points in the attack.
      rule: of the quadrature in both; the authors' right Riemann sum by default.
      chunk: path points evaluated at once.
      rematerialize: in attack and loss, compute each chunk again instead of keeping what all path points have computed:
        half of the memory with 10 path points, and less the more there are.
      kinks: what to do with a network that is not twice differentiable, such as one with ReLU or max-pooling:
        ``refuse`` it while it is traced, or ``allow`` it. The gradient of an attribution does not see where that jumps.

    Returns:
      ``objective(apply_fn, variables, batch, key) -> (loss, aux)``, with the metrics ``adversarial_accuracy`` and
      ``ig_norm``.

    Raises:
      ValueError: if an option is out of range; on call, if the network has kinks or one logit.

    Example:
      >>> import jax, jax.numpy as jnp, jaxattr as ja
      >>> from jaxattr.labeled import Batch
      >>> linear = lambda variables, xs, *, train=False, key=None: (xs @ variables["params"], {})
      >>> batch = Batch(jnp.array([[0.5, 0.5]]), jnp.array([0]))
      >>> objective = ig_sum_norm(ja.LInf(0.1), strength=0.0, num_steps=5)
      >>> loss, aux = objective(linear, {"params": jnp.eye(2)}, batch, jax.random.key(0))
      >>> round(float(loss), 4)  # log(1 + exp(0.2))
      0.7981
    """
    _checks.non_negative("strength", strength)
    path = path_norm(attack_path_steps, rule, chunk, rematerialize, kinks=kinks, method="ig_sum_norm")
    objective = weighted_sum([(1.0, cross_entropy()), (strength, path)])
    attack = pgd(ball, objective=objective, num_steps=num_steps, step_size=step_size)
    path = path_norm(path_steps, rule, chunk, rematerialize, kinks=kinks, method="ig_sum_norm")
    loss = penalized("adversaries", _norm(path), strength, "ig_norm")
    return AttackedObjective(attack, loss, explains=True, loss_gradients=total([1, gradients_of(path)]))


def _norm(objective: AttackObjective):
    def norm(logits_fn, x, label, adversary):
        return objective(logits_fn, x, label).value(adversary)

    return norm
