"""Train without a defense, or with a penalty on the weights alone."""

import jax
import jax.numpy as jnp

from jaxattr import _checks
from jaxattr._spec import described
from jaxattr.apply_fn import ApplyFn, TrainingObjective
from jaxattr.defenses._attacked import PlainObjective, check_inputs, correct, mean_cross_entropy
from jaxattr.labeled import Batch


@described
def natural(l1: float = 0.0) -> TrainingObjective:
    r"""Build the objective of training without a defense.

    .. math:: \min_\theta \tfrac{1}{n} \sum_i \mathrm{CE}(f_\theta(x_i), y_i) + \lambda ||\theta||_1

    The loss is a mean over the batch. Where a paper states a sum (MNIST and Fashion-MNIST in Chen
    et al. 2019), its gradient is ``n`` times as large, which Adam ignores but SGD and penalties do
    not: the penalty of 0.01 on a sum over 50 samples of Chalasani et al. 2020 is ``l1=0.0002`` here.

    Args:
      l1: weight of the sum of absolute values of all parameters, biases and scales of batch
        normalization included, as released with Chalasani et al. 2020.

    Returns:
      ``objective(apply_fn, variables, batch, key) -> (loss, aux)``, with the metric ``accuracy``.

    Raises:
      ValueError: if ``l1`` is negative or not finite.

    Example:
      >>> import jax.numpy as jnp
      >>> linear = lambda variables, xs, *, train=False, key=None: (xs @ variables["params"], {})
      >>> batch = Batch(jnp.eye(2), jnp.array([0, 1]))
      >>> loss, aux = natural()(linear, {"params": jnp.zeros((2, 2))}, batch, None)
      >>> round(float(loss), 4)  # log(2)
      0.6931
    """
    _checks.non_negative("l1", l1)

    def objective(apply_fn: ApplyFn, variables, batch: Batch, key):
        check_inputs(batch.x)
        logits, updates = apply_fn(variables, batch.x, train=True, key=key)
        loss = mean_cross_entropy(logits, batch.label)
        if l1:
            loss += l1 * sum(jnp.sum(jnp.abs(weights)) for weights in jax.tree.leaves(variables["params"]))
        return loss, {"metrics": {"accuracy": correct(logits, batch.label)}, "updates": updates}

    return PlainObjective("natural", objective, gradients=1)
