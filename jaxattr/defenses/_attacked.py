"""Build defenses with an inner maximization: attack every sample, then take a loss of both inputs."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax import Array
from jax.lax import stop_gradient

from jaxattr import _checks, _logits, _values
from jaxattr._cost import gradients_of, total
from jaxattr.apply_fn import ApplyFn, TrainingObjective, Variables, as_classifier, full_precision
from jaxattr.balls import Ball
from jaxattr.labeled import Batch
from jaxattr.types import Attack

Loss = Callable[[ApplyFn, Variables, Batch, Array, Array], tuple[Array, Mapping[str, Any]]]
"""``loss(apply_fn, variables, batch, adversaries, key) -> (loss, aux)``."""


class PlainObjective(_values.Value):
    """An objective ``objective(apply_fn, variables, batch, key) -> (loss, aux)`` without an attack, with a name.

    Args:
      name: for tables and messages.
      function: the objective.
      gradients: gradients of the network for one sample and update; ``None`` where the number is not known.

    Attributes:
      name: as given.
      spec: how it was built, where a constructor of this library has built it.
    """

    def __init__(self, name: str, function: TrainingObjective, *, gradients: int | None = None):
        self.name, self._function, self._gradients = name, function, gradients

    def __repr__(self) -> str:
        return f"<training objective {self.name}>" if self.spec is None else str(self.spec)

    def gradients(self, size: int) -> int | None:
        """Return the number of gradients of the network that one sample and update cost, ``None`` if not known."""
        del size
        return self._gradients

    def __call__(
        self, apply_fn: ApplyFn, variables: Variables, batch: Batch, key: Array | None
    ) -> tuple[Array, Mapping[str, Any]]:
        """Compute the loss and its ``aux``."""
        return self._function(apply_fn, variables, batch, key)


@dataclass(frozen=True, repr=False)
class AttackedObjective(_values.Value):
    """An objective that attacks first: ``objective(apply_fn, variables, batch, key) = loss(..., attack(batch), ...)``.

    By Danskin's theorem the adversaries are constants for the gradient. The attack sees the network in evaluation mode,
    with running statistics and without dropout.

    Attributes:
      attack: an attack of one sample; it gets one key per sample.
      loss: a loss of the clean batch and the adversaries.
      explains: whether the attack differentiates an attribution, which is then computed in full precision.
      loss_gradients: gradients of the network that the loss of one sample costs; ``None`` where that is not known.
      spec: how it was built, where a constructor of this library has built it.

    Raises:
      TypeError: on call, if inputs are not floating-point numbers.
      ValueError: on call, if inputs are known to lie outside of the box of the attack's ball.
    """

    attack: Attack
    loss: Loss
    explains: bool = False
    loss_gradients: int | None = None

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.attack!r})" if self.spec is None else str(self.spec)

    def gradients(self, size: int) -> int | None:
        """Return the number of gradients of the network that one sample and update cost, ``None`` if not known.

        They are those of the attack and of the loss, in which the gradient of an attribution counts twice.

        Args:
          size: number of features of the input.
        """
        return total([gradients_of(self.attack, size), self.loss_gradients])

    @property
    def ball(self) -> Ball | None:
        """Return the threat model of the attack, whose box must contain inputs; ``None`` where the attack has none."""
        return getattr(self.attack, "ball", None)

    def __call__(
        self, apply_fn: ApplyFn, variables: Variables, batch: Batch, key: Array
    ) -> tuple[Array, Mapping[str, Any]]:
        """Compute the loss and its ``aux``."""
        attack_key, loss_key = jax.random.split(key)
        adversaries = self.adversaries(apply_fn, variables, batch, attack_key)
        return self.loss(apply_fn, variables, batch, adversaries, loss_key)

    def adversaries(self, apply_fn: ApplyFn, variables: Variables, batch: Batch, key: Array) -> Array:
        """Attack the batch, and return the adversarial inputs as constants."""
        check_inputs(batch.x, self.ball)
        network = full_precision(apply_fn) if self.explains else apply_fn
        logits_fn = as_classifier(network, jax.tree.map(stop_gradient, variables))
        keys = jax.random.split(key, len(batch.label))

        def attacked(x, label, key):
            return self.attack(logits_fn, x, label, key).x

        return stop_gradient(jax.vmap(attacked)(batch.x, batch.label, keys))


def penalized(
    passes: Literal["clean", "adversaries"], penalty: Callable[..., Array], strength: float, metric: str
) -> Loss:
    """Build the cross-entropy of one of the two inputs, plus ``strength`` times the mean of a penalty on explanations.

    Args:
      passes: inputs of the cross-entropy; that pass is in training mode and updates statistics.
      penalty: ``(logits_fn, x, label, adversary) -> scalar`` of one sample.
      strength: its weight.
      metric: the penalty's name in ``aux["metrics"]``, beside ``accuracy`` or ``adversarial_accuracy``.
    """
    accuracy = "accuracy" if passes == "clean" else "adversarial_accuracy"

    def loss(apply_fn, variables, batch, adversaries, key):
        xs = batch.x if passes == "clean" else adversaries
        logits, updates = apply_fn(variables, xs, train=True, key=key)
        mean = over_batch(penalty, apply_fn, variables, batch.x, batch.label, adversaries).mean()
        metrics = {accuracy: correct(logits, batch.label), metric: mean}
        return mean_cross_entropy(logits, batch.label) + strength * mean, {"metrics": metrics, "updates": updates}

    return loss


def over_batch(function: Callable[..., Array], apply_fn: ApplyFn, variables: Variables, *arrays: Array) -> Array:
    """Evaluate ``function(logits_fn, *sample)`` for every sample, differentiable in the variables.

    It serves attributions inside of a loss: in evaluation mode, so that one sample's explanation does not depend on the
    rest of the batch and no statistics change, and in full precision.
    """
    logits_fn = as_classifier(full_precision(apply_fn), variables)
    return jax.vmap(lambda *sample: function(logits_fn, *sample))(*arrays)


def mean_cross_entropy(logits: Array, label: Any) -> Array:
    """Return the mean cross-entropy of a batch of logits, precise also where the label is far ahead.

    Raises:
      ValueError: if there is one logit, whose softmax is 1 and whose loss is 0 whatever the weights.
    """
    _logits.require_classes(logits.shape[-1], "a cross-entropy")
    return jax.vmap(_logits.cross_entropy)(logits, label).mean()


def correct(logits: Array, label: Any) -> Array:
    """Return the fraction of a batch that is classified correctly; logits that are not finite predict no class."""
    return (_logits.predicted(logits) == label).mean()


def check_inputs(xs: Any, ball: Ball | None = None) -> None:
    """Refuse a batch of inputs that are not floating-point numbers, or that are known to lie outside of the box."""
    _checks.sample(xs[0])
    if ball is not None:
        ball.check_input(xs)


def zero_where_nan(distance: Array) -> Array:
    """Return a distance, or 0 with derivative 0 where it is NaN, as of a zero map, which has no direction.

    One such sample (a black image under integrated gradients) must not end the training of all others.
    """
    return jnp.where(jnp.isnan(distance), 0, distance)
