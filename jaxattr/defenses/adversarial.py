"""Train on adversarial examples: adversarial training (AT)."""

from jaxattr import _checks
from jaxattr._spec import described
from jaxattr.defenses._attacked import AttackedObjective, correct, mean_cross_entropy
from jaxattr.types import Attack


@described
def adversarial(attack: Attack) -> AttackedObjective:
    r"""Build the objective of adversarial training.

    .. math:: \min_\theta \tfrac{1}{n} \sum_i \max_{x' \in N(x_i)} \mathrm{CE}(f_\theta(x'), y_i)

    Madry et al. 2018. The inner maximum is whatever ``attack`` finds, one key per sample; by
    Danskin's theorem its result is a constant for the gradient. The attack sees the network in
    evaluation mode, with running statistics and without dropout; the outer pass on its results is
    in training mode, and updates the statistics of batch normalization. (Some released code attacks
    in training mode, and then the statistics drift with every step of the attack.)

    Args:
      attack: ``attack(logits_fn, x, label, key)``, whose result has the adversarial input as
        ``.x``.

    Returns:
      ``objective(apply_fn, variables, batch, key) -> (loss, aux)``, with the metric
      ``adversarial_accuracy``.

    Raises:
      TypeError: if ``attack`` is none, such as a constructor without its arguments.

    Example:
      >>> import jax, jax.numpy as jnp, jaxattr as ja
      >>> from jaxattr.labeled import Batch
      >>> objective = adversarial(ja.attacks.pgd(ja.LInf(0.1), num_steps=2))
      >>> linear = lambda variables, xs, *, train=False, key=None: (xs @ variables["params"], {})
      >>> batch = Batch(jnp.array([[0.5, 0.5]]), jnp.array([0]))
      >>> loss, aux = objective(linear, {"params": jnp.eye(2)}, batch, jax.random.key(0))
      >>> round(float(loss), 4)  # log(1 + exp(0.2)): the logits become 0.4 and 0.6
      0.7981
    """
    _checks.attack(attack)

    def loss(apply_fn, variables, batch, adversaries, key):
        logits, updates = apply_fn(variables, adversaries, train=True, key=key)
        metrics = {"adversarial_accuracy": correct(logits, batch.label)}
        return mean_cross_entropy(logits, batch.label), {"metrics": metrics, "updates": updates}

    return AttackedObjective(attack, loss, loss_gradients=1)
