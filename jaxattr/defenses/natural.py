"""Training without a defense."""

import optax

from jaxattr.evaluation import ApplyFn, Batch, Objective


def natural() -> Objective:
    r"""Build the objective :math:`\min_\theta \tfrac{1}{n} \sum_i \mathrm{CE}(f_\theta(x_i), y_i)`.

    The loss is a mean over the batch. Where a paper states a sum (MNIST and Fashion-MNIST in Chen
    et al. 2019), its gradient is ``n`` times as large, which Adam ignores but SGD and penalties do
    not.

    Returns:
      ``objective(apply_fn, variables, batch, key) -> (loss, aux)``, with the metric ``accuracy``.

    Example:
      >>> import jax.numpy as jnp
      >>> linear = lambda variables, xs, *, train=False, key=None: (xs @ variables["params"], {})
      >>> batch = Batch(jnp.eye(2), jnp.array([0, 1]))
      >>> loss, aux = natural()(linear, {"params": jnp.zeros((2, 2))}, batch, None)
      >>> round(float(loss), 4)  # log(2)
      0.6931
    """

    def objective(apply_fn: ApplyFn, variables, batch: Batch, key):
        logits, updates = apply_fn(variables, batch.x, train=True, key=key)
        loss = optax.losses.softmax_cross_entropy_with_integer_labels(logits, batch.label).mean()
        accuracy = (logits.argmax(-1) == batch.label).mean()
        return loss, {"metrics": {"accuracy": accuracy}, "updates": updates}

    return objective
