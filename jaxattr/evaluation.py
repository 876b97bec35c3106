"""What training and evaluation share: networks of batches, objectives, accuracies."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial
from jaxtyping import Array, Float, Int, PRNGKeyArray

from jaxattr.types import Attack

Variables: TypeAlias = Mapping[str, Any]
"""``{"params": ...}``, and the collections that a forward pass in training may change."""

ApplyFn: TypeAlias = Callable[..., tuple[Array, Mapping[str, Any]]]
"""``apply_fn(variables, xs, *, train=False, key=None) -> (logits, updates)`` on a batch."""

Objective: TypeAlias = Callable[..., tuple[Array, Mapping[str, Any]]]
"""``objective(apply_fn, variables, batch, key) -> (loss, aux)``."""


class Batch(NamedTuple):
    """Samples and their labels."""

    x: Float[Array | np.ndarray, "n *shape"]
    label: Int[Array | np.ndarray, "n"]


# A dataclass and not a closure, so that equal networks are one entry in the caches of jit.
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
        """The logits in the dtype of ``xs``, and the updates in the dtypes of their collections."""
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
    """The network as it was before :func:`mixed_precision`, if it was."""
    return apply_fn.apply_fn if isinstance(apply_fn, MixedPrecision) else apply_fn


def _cast(tree: Any, dtype: Any) -> Any:
    return jax.tree.map(lambda leaf: leaf.astype(dtype) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf, tree)


def _like(new: Array, old: Array) -> Array:
    return new.astype(old.dtype)


def accuracy(apply_fn: ApplyFn, variables: Variables, data: Any, *, batch_size: int = 256) -> float:
    """Compute the fraction of samples that the network classifies correctly, in evaluation mode.

    Args:
      apply_fn: the network; hashable, and compiled once however often this is called.
      variables: its variables.
      data: anything with arrays ``x`` and ``label``.
      batch_size: samples at a time.

    Example:
      >>> linear = lambda variables, xs, *, train=False, key=None: (xs @ variables["params"], {})
      >>> data = Batch(np.eye(2, dtype=np.float32), np.array([0, 0]))
      >>> accuracy(linear, {"params": np.eye(2, dtype=np.float32)}, data)
      0.5
    """
    return _fraction(partial(_correct, apply_fn), variables, data, None, batch_size)


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

    Args:
      apply_fn: the network; hashable.
      variables: its variables.
      data: anything with arrays ``x`` and ``label``.
      attack: ``attack(logits_fn, x, label, key)``, whose result has the adversarial input as
        ``.x``; compiled once per attack object.
      key: sample ``i`` is attacked with ``fold_in(key, i)``, whatever ``batch_size``.
      batch_size: samples at a time.
    """
    return _fraction(partial(_withstands, apply_fn, attack), variables, data, key, batch_size)


@partial(jax.jit, static_argnums=0)
def _correct(apply_fn, variables, batch, keys=None):
    del keys
    return apply_fn(variables, batch.x)[0].argmax(-1) == batch.label


@partial(jax.jit, static_argnums=(0, 1))
def _withstands(apply_fn, attack, variables, batch, keys):
    logits_fn = frozen(apply_fn, variables)

    def attacked(x, label, key):
        return attack(logits_fn, x, label, key).x

    adversaries = Batch(jax.vmap(attacked)(batch.x, batch.label, keys), batch.label)
    return _correct(apply_fn, variables, batch) & _correct(apply_fn, variables, adversaries)


def _fraction(test: Callable, variables: Variables, data: Any, key, batch_size: int) -> float:
    xs, labels = arrays(data)
    batch_size = min(batch_size, len(xs))
    correct = 0
    for start in range(0, len(xs), batch_size):
        # The last batch is filled up with its own last sample, so that all have one shape.
        rows = np.minimum(np.arange(start, start + batch_size), len(xs) - 1)
        keys = None if key is None else jax.vmap(partial(jax.random.fold_in, key))(rows)
        answers = np.asarray(test(variables, Batch(xs[rows], labels[rows]), keys))
        correct += int(answers[: len(xs) - start].sum())
    return correct / len(xs)


def arrays(data: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return ``data.x`` and ``data.label`` on the host; ``ValueError`` where they do not match."""
    xs, labels = np.asarray(data.x), np.asarray(data.label)
    if len(xs) == 0 or labels.shape != xs.shape[:1] or labels.dtype.kind not in "iu":
        raise ValueError(
            "`data` needs samples `x` (n, *shape) and one integer `label` each (n,), got "
            f"x {xs.shape} and label {labels.shape} {labels.dtype}."
        )
    return xs, labels
