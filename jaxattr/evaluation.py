"""Define networks of batches, objectives and accuracies, which training and evaluation share."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial
from jaxtyping import Array, Float, Int, PRNGKeyArray

from jaxattr import _checks
from jaxattr._compiled import compiled
from jaxattr._logits import predicted, require_classes
from jaxattr.types import Attack

__all__ = [
    "ApplyFn",
    "Batch",
    "MixedPrecision",
    "Objective",
    "Robustness",
    "Variables",
    "accuracy",
    "arrays",
    "check_classes",
    "check_labels",
    "frozen",
    "full_precision",
    "mixed_precision",
    "predicted",
    "robust_accuracy",
    "robustness",
]

logger = logging.getLogger(__name__)

Variables: TypeAlias = Mapping[str, Any]
"""``{"params": ...}``, and the collections that a forward pass in training may change."""

ApplyFn: TypeAlias = Callable[..., tuple[Array, Mapping[str, Any]]]
"""A network of batches is ``apply_fn(variables, xs, *, train=False, key=None) -> (logits, updates)``."""

Objective: TypeAlias = Callable[..., tuple[Array, Mapping[str, Any]]]
"""An objective is ``objective(apply_fn, variables, batch, key) -> (loss, aux)``."""


class Batch(NamedTuple):
    """Samples and their labels."""

    x: Float[Array | np.ndarray, "n *shape"]
    label: Int[Array | np.ndarray, "n"]


# A dataclass instead of a closure makes equal networks one entry in the caches of jit.
@dataclass(frozen=True)
class _One:
    apply_fn: ApplyFn

    def __call__(self, variables, x):
        return self.apply_fn(variables, x[None])[0][0]


def frozen(apply_fn: ApplyFn, variables: Variables) -> Partial:
    """Turn a network of batches into a classifier of ONE input in evaluation mode.

    Example:
      >>> import jax.numpy as jnp
      >>> linear = lambda variables, xs, *, train=False, key=None: (xs @ variables["params"], {})
      >>> frozen(linear, {"params": jnp.eye(2)})(jnp.array([3.0, 4.0])).tolist()
      [3.0, 4.0]
    """
    return Partial(_One(apply_fn), variables)


@dataclass(frozen=True)
class MixedPrecision:
    """A network whose forward passes are computed in ``dtype``; made by :func:`mixed_precision`."""

    apply_fn: ApplyFn
    dtype: Any

    def __call__(self, variables, xs, *, train: bool = False, key=None):
        """Return the logits in the dtype of ``xs``, and the updates in the dtypes of their collections."""
        halved = {**variables, "params": _cast(variables["params"], self.dtype)}
        logits, updates = self.apply_fn(halved, jnp.asarray(xs).astype(self.dtype), train=train, key=key)
        updates = {name: jax.tree.map(_like, value, variables[name]) for name, value in updates.items()}
        return logits.astype(xs.dtype), updates


def mixed_precision(apply_fn: ApplyFn, dtype: Any = jnp.bfloat16) -> MixedPrecision:
    """Compute the passes through a network in ``dtype``; parameters, losses and attributions keep their precision.

    Passes of objectives and of attacks on the prediction take the cheaper dtype. Attributions inside of a loss, and
    attacks on them, are gradients of gradients and take the network as it was (:func:`full_precision`).

    Args:
      apply_fn: the network; of Flax modules those whose ``dtype`` is not fixed.
      dtype: a floating-point dtype.

    Raises:
      TypeError: if ``dtype`` is not one.

    Example:
      >>> import jax.numpy as jnp
      >>> linear = lambda variables, xs, *, train=False, key=None: (xs @ variables["params"], {})
      >>> logits, _ = mixed_precision(linear)({"params": jnp.eye(2)}, jnp.array([[1.0, 1.001]]))
      >>> logits.tolist(), logits.dtype.name  # eight bits of precision
      ([[1.0, 1.0]], 'float32')
    """
    if not jnp.issubdtype(dtype, jnp.floating):
        raise TypeError(f"`dtype` must be a floating-point dtype such as jnp.bfloat16, got {dtype!r}.")
    return MixedPrecision(full_precision(apply_fn), jnp.dtype(dtype))


def full_precision(apply_fn: ApplyFn) -> ApplyFn:
    """Return the network as it was before :func:`mixed_precision`, if it was."""
    return apply_fn.apply_fn if isinstance(apply_fn, MixedPrecision) else apply_fn


def _cast(tree: Any, dtype: Any) -> Any:
    return jax.tree.map(lambda leaf: leaf.astype(dtype) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf, tree)


def _like(new: Array, old: Array) -> Array:
    return new.astype(old.dtype)


def check_classes(apply_fn: ApplyFn, variables: Variables, xs: Any) -> int:
    """Return the number of logits of a network of batches, without computing them.

    Args:
      apply_fn: the network.
      variables: its variables.
      xs: a batch of inputs; only its shape and dtype are used.

    Raises:
      ValueError: if the network returns no logits ``(n, classes)``, or one logit: no class is compared with another.

    Example:
      >>> linear = lambda variables, xs, *, train=False, key=None: (xs @ variables["params"], {})
      >>> check_classes(linear, {"params": np.eye(3)}, np.zeros((5, 3)))
      3
    """
    batch = jax.ShapeDtypeStruct((1, *np.shape(xs)[1:]), jax.dtypes.canonicalize_dtype(xs.dtype))
    # Trace once for as long as the network lives, as for the programs below.
    logits = compiled(_logits_of, apply_fn).eval_shape(dict(variables), batch)
    if getattr(logits, "ndim", None) != 2 or logits.shape[0] != 1:
        raise ValueError(
            f"`apply_fn` must return logits (n, classes) and updates, but of a batch {batch.shape} it returned logits"
            f" {getattr(logits, 'shape', type(logits).__name__)}."
        )
    require_classes(logits.shape[1], "an accuracy")
    return logits.shape[1]


def check_labels(labels: Any, classes: int, name: str = "label") -> None:
    """Refuse labels that no logit belongs to.

    Indexing would take -1 for the last class, and a class that is never predicted counts as a mistake.

    Args:
      labels: integers.
      classes: how many logits there are.
      name: of the argument, for the message.

    Raises:
      ValueError: if there are any; the message names them.

    Example:
      >>> check_labels(np.array([0, 2, -1]), 3)
      Traceback (most recent call last):
      ValueError: `label` must be between 0 and 2 (the network has 3 logits), but 1 of 3 labels are not: -1 ...
    """
    labels = np.asarray(labels)
    wrong, counts = np.unique(labels[(labels < 0) | (labels >= classes)], return_counts=True)
    if wrong.size:
        named = ", ".join(f"{label} ({count} times)" for label, count in zip(wrong[:5], counts[:5], strict=True))
        raise ValueError(
            f"`{name}` must be between 0 and {classes - 1} (the network has {classes} logits), but {counts.sum()} of"
            f" {labels.size} labels are not: {named}{', ...' if wrong.size > 5 else ''}. Leave such samples out, or"
            " give the network a logit for each class."
        )


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
    xs, labels = arrays(data)
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
    xs, labels = arrays(data)
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


def _logits_of(apply_fn: ApplyFn, variables: Variables, xs: Array) -> Array:
    return apply_fn(variables, xs)[0]


def _predictions(apply_fn: ApplyFn, variables: Variables, xs: Array) -> Array:
    return predicted(_logits_of(apply_fn, variables, xs))


def _attacked(apply_fn: ApplyFn, attack: Attack, variables: Variables, xs: Array, labels: Array, keys: Array) -> Array:
    """Return as columns the predicted class of the sample, of each of its attacks, and whether the attack stalled."""
    logits_fn = frozen(apply_fn, variables)

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
    batch_size = min(batch_size, len(xs))
    found = []
    for start in range(0, len(xs), batch_size):
        # Fill the last batch up with its own last sample, so that all batches have one shape.
        rows = np.minimum(np.arange(start, start + batch_size), len(xs) - 1)
        keys = None if key is None else jax.vmap(partial(jax.random.fold_in, key))(rows)
        found.append(np.asarray(run(Batch(xs[rows], labels[rows]), keys)))
    return np.concatenate(found)[: len(xs)]


def arrays(data: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return ``data.x`` and ``data.label`` on the host.

    Raises:
      TypeError: if inputs are not floating-point numbers.
      ValueError: if inputs and labels do not match.
    """
    xs, labels = np.asarray(data.x), np.asarray(data.label)
    if len(xs) == 0 or labels.shape != xs.shape[:1] or labels.dtype.kind not in "iu":
        raise ValueError(
            "`data` needs samples `x` (n, *shape) and one integer `label` each (n,), got "
            f"x {xs.shape} and label {labels.shape} {labels.dtype}."
        )
    # Check one sample only, so that nothing is copied.
    _checks.sample(xs[0])
    return xs, labels
