"""Train with ART, attributional robustness training (Singh et al. 2020)."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.lax import stop_gradient

from jaxattr import _checks
from jaxattr._spec import described
from jaxattr.attacks import NamedObjective, PointObjective, pgd
from jaxattr.attributions import saliency
from jaxattr.balls import Ball
from jaxattr.defenses._attacked import AttackedObjective, penalized, zero_where_nan
from jaxattr.metrics import cosine_distance, top_k_indices
from jaxattr.programs import guard
from jaxattr.programs.guard import Kinks

_gradient = saliency()


@described
def misalignment(k: int | None = None, mean: Any = 0.0, std: Any = 1.0, *, kinks: Kinks = "refuse") -> NamedObjective:
    """Build the soft-margin triplet loss of one image, as an objective for :func:`jaxattr.attacks.pgd`.

    ``log(1 + exp(d_p - d_n))``, with ``d_p = 1 - cos(x, grad f_y(x))``, ``d_n = 1 - cos(x, grad f_j(x))`` and j the
    best wrong class: how little the image resembles the gradient of its own class, compared with that of its rival.

    Args:
      k: only the k features with the largest ``|grad f_y|`` at the clean sample are moved; ``None`` for all. (The
        released code takes them at the random start.)
      mean: of the images, a number or one per channel; subtracted before the cosines.
      std: of the images, likewise.
      kinks: what to do with a network that is not twice differentiable; see :func:`art`.

    Raises:
      ValueError: on call, if the network has kinks.
    """

    def objective(logits_fn, x, label):
        found = guard.check(_gradient, logits_fn, x, kinks, method="art")
        if k is None:
            moved = jnp.ones_like(x)
        else:
            top = top_k_indices(jnp.abs(_gradient(logits_fn, x, label)).ravel(), k)
            moved = jnp.zeros(x.size, x.dtype).at[top].set(1).reshape(x.shape)

        def value(z):
            positive, negative = _pair(logits_fn, z, label, std)
            image = (z - mean) / std
            return jax.nn.softplus(_distance(image, positive) - _distance(image, negative))

        def value_and_grad(z):
            distance, gradient = jax.value_and_grad(value)(z)
            return distance, gradient * moved

        return PointObjective(value, value_and_grad, kinks=found)

    # Two gradients, and the derivative of each.
    return NamedObjective("misalignment", objective, gradients=4)


@described
def art(
    ball: Ball,
    strength: float = 0.5,
    *,
    k: int | None = None,
    num_steps: int = 3,
    step_size: float | None = None,
    mean: Any = 0.0,
    std: Any = 1.0,
    kinks: Kinks = "refuse",
) -> AttackedObjective:
    r"""Build the objective of ART.

    .. math:: \min_\theta \tfrac{1}{n} \sum_i \mathrm{CE}(f_\theta(x'_i), y_i)
              + \lambda \tfrac{1}{2n} \sum_{z \in \{x_i, x'_i\}} \log(1 + e^{d_p(z) - d_n(z)})

    Singh et al. 2020, and their code for CIFAR-10: ``d_p(z)`` is the larger of the two distances
    ``1 - cos(z, grad f_y(w))`` for w in {x, x'}, and ``d_n(z)`` the smaller of ``1 - cos(z, grad f_j(w))``, j the best
    wrong class at w. Images are standardized and compared with the gradient with respect to the standardized image.
    The attack climbs :func:`misalignment` from a uniform random start. The authors branch to softplus(50) for gradients
    and ReLU for the cross-entropy; one smooth network serves both here. Settings for MNIST and Fashion-MNIST, which
    Wang and Kong 2023 use, are not published. Statistics of batch normalization are updated by the pass on the
    adversaries, and frozen in attack and gradients.

    Args:
      ball: the threat model.
      strength: lambda.
      k: features that the attack moves; the authors take 1,000 of 3,072 on CIFAR-10. ``None`` for all.
      num_steps: steps of the attack.
      step_size: in units of the input; ``2.5 * epsilon / num_steps`` by default. The authors take 3 steps of 5/255 at
        epsilon 8/255.
      mean: of the images, in units of the input: a number or one per channel.
      std: of the images, likewise.
      kinks: what to do with a network that is not twice differentiable, such as one with ReLU or max-pooling:
        ``refuse`` it while it is traced, or ``allow`` it. The gradient of an attribution does not see where that jumps.

    Returns:
      ``objective(apply_fn, variables, batch, key) -> (loss, aux)``, with the metrics ``adversarial_accuracy`` and
      ``triplet_loss``.

    Raises:
      ValueError: if an option is out of range; on call, if k exceeds the number of features, or the network has kinks
        or one logit.

    Example:
      >>> import jax, jax.numpy as jnp, jaxattr as ja
      >>> from jaxattr.labeled import Batch
      >>> linear = lambda variables, xs, *, train=False, key=None: (xs @ variables["params"], {})
      >>> batch = Batch(jnp.array([[1.0, 0.0]]), jnp.array([0]))
      >>> loss, aux = art(ja.LInf(0.0))(linear, {"params": jnp.eye(2)}, batch, jax.random.key(0))
      >>> round(float(aux["metrics"]["triplet_loss"]), 4)  # d_p = 0 and d_n = 1: log(1 + exp(-1))
      0.3133
    """
    _checks.non_negative("strength", strength)
    if np.any(np.asarray(std) <= 0):
        raise ValueError(f"`std` must be above 0, one number or one per channel, got {std!r}.")
    if k is not None:
        _checks.positive_int("k", k)
    attack = pgd(ball, objective=misalignment(k, mean, std, kinks=kinks), num_steps=num_steps, step_size=step_size)

    def triplet(logits_fn, x, label, adversary):
        guard.check(_gradient, logits_fn, x, kinks, method="art")
        pairs = [_pair(logits_fn, z, label, std) for z in (x, adversary)]
        images = [(z - mean) / std for z in (x, adversary)]

        def soft_margin(image):
            positive = jnp.maximum(*(_distance(image, own) for own, _ in pairs))
            negative = jnp.minimum(*(_distance(image, rival) for _, rival in pairs))
            return jax.nn.softplus(positive - negative)

        return (soft_margin(images[0]) + soft_margin(images[1])) / 2

    loss = penalized("adversaries", triplet, strength, "triplet_loss")
    return AttackedObjective(attack, loss, explains=True, loss_gradients=1 + 2 * 4)


def _pair(logits_fn, x, label, std):
    """Return the gradients of the label's logit and of the best wrong one, with respect to the standardized image."""
    logits = stop_gradient(logits_fn(x))
    rival = jnp.argmax(jnp.where(jnp.arange(logits.size) == label, -jnp.inf, logits))
    return _gradient(logits_fn, x, label) * std, _gradient(logits_fn, x, rival) * std


def _distance(image, explanation):
    return zero_where_nan(cosine_distance(image, explanation))
