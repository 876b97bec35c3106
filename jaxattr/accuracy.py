"""Measure how many samples a network classifies correctly, as they are and under attack."""

import logging
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PRNGKeyArray

from jaxattr import _checks
from jaxattr._compiled import compiled
from jaxattr._logits import predicted
from jaxattr.apply_fn import ApplyFn, Variables, as_classifier, check_classes
from jaxattr.batches import full_batches
from jaxattr.labeled import Batch, check_labels, samples_and_labels
from jaxattr.types import Attack

__all__ = ["Robustness", "accuracy", "predicted", "robust_accuracy", "robustness"]

logger = logging.getLogger(__name__)


def accuracy(apply_fn: ApplyFn, variables: Variables, data: Any, *, batch_size: int = 256) -> float:
    """Compute the fraction of samples that the network classifies correctly, in evaluation mode.

    A sample whose logits are not finite is of no class, and counts as a mistake; a warning says how many there are.

    Args:
      apply_fn: the network; compiled once for as long as it lives.
      variables: its variables.
      data: anything with arrays ``x`` and ``label``.
      batch_size: samples at a time.

    Raises:
      TypeError: if inputs are not floating-point numbers.
      ValueError: if the network has one logit, or labels are out of range.

    Example:
      >>> linear = lambda variables, xs, *, train=False, key=None: (xs @ variables["params"], {})
      >>> data = Batch(np.eye(2, dtype=np.float32), np.array([0, 0]))
      >>> accuracy(linear, {"params": np.eye(2, dtype=np.float32)}, data)
      0.5
    """
    xs, labels = samples_and_labels(data)
    check_labels(labels, check_classes(apply_fn, variables, xs))
    program = compiled(_predictions, apply_fn)
    found = _over_batches(lambda batch, _: program(variables, batch.x), xs, labels, None, batch_size)
    if np.any(found < 0):
        logger.warning("logits of %d of %d samples are not finite; they count as mistakes", (found < 0).sum(), len(xs))
    return float(np.mean(found == labels))


class Robustness(NamedTuple):
    """Accuracy of a network under an attack, with counts of the samples that the attack does not judge.

    Attributes:
      accuracy: fraction of samples classified correctly as they are.
      robust_accuracy: fraction of samples classified correctly as they are and after the attack, which could try.
      stalled: samples that are classified correctly before and after an attack that could not try: its gradient was
        zero or not finite in every entry at every step. They are not part of ``robust_accuracy``.
      not_finite: samples whose logits are not finite as they are, or after the attack where they had been correct. They
        are part of no accuracy.
      samples: how many there are in all.
    """

    accuracy: float
    robust_accuracy: float
    stalled: int
    not_finite: int
    samples: int


def robustness(
    apply_fn: ApplyFn,
    variables: Variables,
    data: Any,
    attack: Attack,
    key: PRNGKeyArray,
    *,
    batch_size: int = 256,
) -> Robustness:
    """Attack every sample, and count those that withstand it, those that do not, and those that it could not try.

    Args:
      apply_fn: the network.
      variables: its variables.
      data: anything with arrays ``x`` and ``label``.
      attack: ``attack(logits_fn, x, label, key)``, whose result has the adversarial input as ``.x`` (or several, from
        :func:`jaxattr.attacks.restarts`, all of which have to fail) and, where it knows, a flag ``.stalled``; compiled
        once for as long as it lives.
      key: sample ``i`` is attacked with ``fold_in(key, i)``, whatever ``batch_size``.
      batch_size: samples at a time.

    Raises:
      TypeError: if inputs are not floating-point numbers.
      ValueError: if inputs lie outside of the box of the attack's ball, the network has one logit, or labels are out of
        range.

    Example:
      >>> import jaxattr as ja
      >>> linear = lambda variables, xs, *, train=False, key=None: (xs @ variables["params"], {})
      >>> data = Batch(np.array([[0.9, 0.1], [0.5, 0.4]], np.float32), np.array([0, 0]))
      >>> found = robustness(linear, {"params": np.eye(2)}, data, ja.attacks.pgd(ja.LInf(0.1)), jax.random.key(0))
      >>> found.accuracy, found.robust_accuracy, found.stalled, found.not_finite
      (1.0, 0.5, 0, 0)
    """
    xs, labels = samples_and_labels(data)
    ball = getattr(attack, "ball", None)
    if ball is not None:
        ball.check_input(xs)
    check_labels(labels, check_classes(apply_fn, variables, xs))
    program = compiled(_attacked, apply_fn, attack)
    found = _over_batches(
        lambda batch, keys: program(variables, batch.x, batch.label, keys), xs, labels, key, batch_size
    )
    clean, attacked, stalled = found[:, 0], found[:, 1:-1], found[:, -1].astype(bool)
    correct = clean == labels
    kept = correct & np.all(attacked == labels[:, None], axis=1)
    unknown = correct & ~kept & np.all((attacked == labels[:, None]) | (attacked < 0), axis=1)
    result = Robustness(
        accuracy=float(correct.mean()),
        robust_accuracy=float((kept & ~stalled).mean()),
        stalled=int((kept & stalled).sum()),
        not_finite=int(((clean < 0) | unknown).sum()),
        samples=len(xs),
    )
    if result.stalled or result.not_finite:
        logger.warning(
            "of %d samples the attack could not try %d (gradients of zero, or not finite), and logits of %d are not"
            " finite; none of these counts as robust",
            len(xs),
            result.stalled,
            result.not_finite,
        )
    return result


def robust_accuracy(
    apply_fn: ApplyFn,
    variables: Variables,
    data: Any,
    attack: Attack,
    key: PRNGKeyArray,
    *,
    batch_size: int = 256,
) -> float:
    """Compute the fraction of samples classified correctly, both as they are and after ``attack``.

    Samples that the attack could not try, and those whose logits are not finite, do not count as robust; a warning says
    how many there are, and :func:`robustness` counts them apart. Arguments and errors are those of :func:`robustness`.

    Example:
      >>> import jaxattr as ja
      >>> linear = lambda variables, xs, *, train=False, key=None: (xs @ variables["params"], {})
      >>> data = Batch(np.array([[0.9, 0.1], [0.5, 0.4]], np.float32), np.array([0, 0]))
      >>> robust_accuracy(linear, {"params": np.eye(2)}, data, ja.attacks.pgd(ja.LInf(0.1)), jax.random.key(0))
      0.5
    """
    return robustness(apply_fn, variables, data, attack, key, batch_size=batch_size).robust_accuracy


def _predictions(apply_fn: ApplyFn, variables: Variables, xs: Array) -> Array:
    return predicted(apply_fn(variables, xs)[0])


def _attacked(apply_fn: ApplyFn, attack: Attack, variables: Variables, xs: Array, labels: Array, keys: Array) -> Array:
    """Return as columns the predicted class of the sample, of each of its attacks, and whether the attack stalled."""
    logits_fn = as_classifier(apply_fn, variables)

    def one(x, label, key):
        result = attack(logits_fn, x, label, key)
        return result.x.reshape(-1, *x.shape), jnp.all(jnp.asarray(getattr(result, "stalled", False)))

    adversaries, stalled = jax.vmap(one)(xs, labels, keys)
    after = _predictions(apply_fn, variables, adversaries.reshape(-1, *xs.shape[1:]))
    before = _predictions(apply_fn, variables, xs)
    return jnp.concatenate([before[:, None], after.reshape(len(xs), -1), stalled[:, None].astype(jnp.int32)], axis=1)


def _over_batches(
    run: Callable[[Batch, Any], Array], xs: np.ndarray, labels: np.ndarray, key: Any, batch_size: int
) -> np.ndarray:
    """Evaluate ``run(batch, keys)`` on all samples, a row each."""
    _checks.positive_int("batch_size", batch_size)
    found = []
    for _, rows in full_batches(0, len(xs), min(batch_size, len(xs))):
        keys = None if key is None else jax.vmap(partial(jax.random.fold_in, key))(rows)
        found.append(np.asarray(run(Batch(xs[rows], labels[rows]), keys)))
    return np.concatenate(found)[: len(xs)]
