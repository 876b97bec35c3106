"""Define networks of batches: their type, the classifier of one input that one gives, and mixed precision.

A network of batches is a pure function of its variables and a batch:

    apply_fn(variables, xs, *, train=False, key=None) -> (logits, updates)

In training, ``updates`` holds the collections that the pass has changed, such as the statistics of batch normalization.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial
from jaxtyping import Array

from jaxattr._compiled import compiled
from jaxattr._logits import require_classes

__all__ = [
    "ApplyFn",
    "MixedPrecision",
    "TrainingObjective",
    "Variables",
    "as_classifier",
    "check_classes",
    "full_precision",
    "mixed_precision",
]

Variables: TypeAlias = Mapping[str, Any]
"""Variables are ``{"params": ...}``, and the collections that a forward pass in training may change."""

ApplyFn: TypeAlias = Callable[..., tuple[Array, Mapping[str, Any]]]
"""A network of batches is ``apply_fn(variables, xs, *, train=False, key=None) -> (logits, updates)``."""

TrainingObjective: TypeAlias = Callable[..., tuple[Array, Mapping[str, Any]]]
"""A training objective is ``objective(apply_fn, variables, batch, key) -> (loss, aux)``."""


# A dataclass instead of a closure makes equal networks one entry in the caches of jit.
@dataclass(frozen=True)
class _OneInput:
    apply_fn: ApplyFn

    def __call__(self, variables, x):
        return self.apply_fn(variables, x[None])[0][0]


def as_classifier(apply_fn: ApplyFn, variables: Variables) -> Partial:
    """Turn a network of batches into a classifier of ONE input in evaluation mode.

    Example:
      >>> import jax.numpy as jnp
      >>> linear = lambda variables, xs, *, train=False, key=None: (xs @ variables["params"], {})
      >>> as_classifier(linear, {"params": jnp.eye(2)})(jnp.array([3.0, 4.0])).tolist()
      [3.0, 4.0]
    """
    return Partial(_OneInput(apply_fn), variables)


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


def _logits_of(apply_fn: ApplyFn, variables: Variables, xs: Array) -> Array:
    return apply_fn(variables, xs)[0]
