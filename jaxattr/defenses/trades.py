"""Train with TRADES, which trades accuracy against the change of the prediction."""

import jax

from jaxattr import _checks, _logits
from jaxattr._spec import described
from jaxattr.attacks import kl_divergence, pgd
from jaxattr.balls import Ball
from jaxattr.defenses._attacked import AttackedObjective, correct, mean_cross_entropy


@described
def trades(ball: Ball, beta: float = 6.0, *, num_steps: int = 10, step_size: float | None = None) -> AttackedObjective:
    r"""Build the objective of TRADES.

    .. math:: \min_\theta \tfrac{1}{n} \sum_i \mathrm{CE}(f_\theta(x_i), y_i)
              + \beta \max_{x' \in N(x_i)} \mathrm{KL}(p_\theta(x_i) || p_\theta(x'))

    Zhang et al. 2019, and their code: the attack climbs the divergence, starts at x with Gaussian noise of standard
    deviation 0.001, and sees the network in evaluation mode; both outer passes are in training mode, the clean one
    first, and update the statistics of batch normalization one after the other. Gradients flow through both.

    Args:
      ball: the threat model.
      beta: weight of the divergence; the authors take 1 on MNIST and 6 on CIFAR-10. At 0 the loss is ``natural()``'s.
      num_steps: steps of the inner attack.
      step_size: in units of the input; ``2.5 * epsilon / num_steps`` by default.

    Returns:
      ``objective(apply_fn, variables, batch, key) -> (loss, aux)``, with the metrics ``accuracy``,
      ``adversarial_accuracy`` and ``kl_divergence`` (nats).

    Raises:
      ValueError: if an option is out of range.

    Example:
      >>> import jax, jax.numpy as jnp, jaxattr as ja
      >>> from jaxattr.labeled import Batch
      >>> linear = lambda variables, xs, *, train=False, key=None: (xs @ variables["params"], {})
      >>> batch = Batch(jnp.array([[0.5, 0.5]]), jnp.array([0]))
      >>> objective = trades(ja.LInf(0.1), beta=1.0)
      >>> loss, aux = objective(linear, {"params": jnp.eye(2)}, batch, jax.random.key(0))
      >>> round(float(aux["metrics"]["kl_divergence"]), 4)  # of (1/2, 1/2) and sigmoid(+-0.2)
      0.005
    """
    _checks.non_negative("beta", beta)
    attack = pgd(ball, objective=kl_divergence(), num_steps=num_steps, step_size=step_size, random_start=1e-3)

    def loss(apply_fn, variables, batch, adversaries, key):
        clean_key, adversarial_key = jax.random.split(key)
        clean, updates = apply_fn(variables, batch.x, train=True, key=clean_key)
        moved, later = apply_fn({**variables, **updates}, adversaries, train=True, key=adversarial_key)
        # Compute this first, because it refuses a network of one logit.
        natural = mean_cross_entropy(clean, batch.label)
        log_p, log_q = (jax.vmap(_logits.log_softmax)(logits) for logits in (clean, moved))
        divergence = jax.vmap(_logits.divergence)(log_p, log_q).mean()
        metrics = {
            "accuracy": correct(clean, batch.label),
            "adversarial_accuracy": correct(moved, batch.label),
            "kl_divergence": divergence,
        }
        return natural + beta * divergence, {"metrics": metrics, "updates": {**updates, **later}}

    return AttackedObjective(attack, loss, loss_gradients=2)
