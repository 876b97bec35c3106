"""Checks of arguments, made once, at the border, while shapes are known.

Each function raises ``ValueError`` or ``TypeError`` that says what was given, what is accepted and what to do.
Values that are still abstract (inside ``jit``, ``vmap``, ``grad``) pass: inside compiled code a failure is data.
"""

import math
from typing import Any

import jax
import jax.core
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxattr.types import LogitsFn


def is_concrete(value: Any) -> bool:
    """Whether ``value`` is known while tracing."""
    return not isinstance(value, jax.core.Tracer)


def positive_int(name: str, value: Any) -> int:
    """Return ``value`` if it is an integer of at least one."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise TypeError(f"`{name}` must be an integer of at least 1, got {value!r}.")
    if value < 1:
        raise ValueError(f"`{name}` must be at least 1, got {value}.")
    return int(value)


def positive(name: str, value: Any) -> Any:
    """Return ``value`` if it is a finite number above zero, or not known yet."""
    if is_concrete(value) and not (np.ndim(value) == 0 and 0 < float(value) < math.inf):
        raise ValueError(f"`{name}` must be a finite number above 0, got {value!r}.")
    return value


def non_negative(name: str, value: Any) -> Any:
    """Return ``value`` if it is a finite number of at least zero, or not known yet."""
    if is_concrete(value) and not (np.ndim(value) == 0 and 0 <= float(value) < math.inf):
        raise ValueError(f"`{name}` must be a finite number of at least 0, got {value!r}.")
    return value


def probability(name: str, value: float) -> float:
    """Return ``value`` if it lies strictly between zero and one."""
    if not 0.0 < value < 1.0:
        raise ValueError(f"`{name}` must lie strictly between 0 and 1, got {value!r}.")
    return float(value)


def choice(name: str, value: str, accepted: Any) -> str:
    """Return ``value`` if it is one of ``accepted``."""
    if value not in accepted:
        raise ValueError(f"`{name}` must be one of {', '.join(map(repr, accepted))}; got {value!r}.")
    return value


def sample(x: Any) -> Array:
    """Return one input as an array of floating-point numbers."""
    if not hasattr(x, "dtype"):
        x = np.asarray(x)
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise TypeError(
            f"`x` must be an array of floating-point numbers, got dtype {x.dtype}. Images of integers in"
            " [0, 255] become valid inputs by `x.astype('float32') / 255`."
        )
    if x.size == 0:
        raise ValueError(f"`x` must hold at least one feature, got shape {x.shape}.")
    return jnp.asarray(x)


def label(logits_fn: LogitsFn, x: Array, y: Any) -> Array:
    """Return the label as an integer scalar that ``logits_fn(x)`` has an entry for."""
    y = y if hasattr(y, "dtype") else np.asarray(y)
    if not jnp.issubdtype(y.dtype, jnp.integer):
        raise TypeError(f"`label` must be an integer class index, got dtype {y.dtype}.")
    if y.shape != ():
        raise ValueError(
            f"`label` must be a single class index of one sample, got shape {y.shape}. For many samples lift"
            " the method with `jaxattr.over_samples(method, logits_fn)(xs, labels, key)` or `jax.vmap`."
        )
    classes = num_classes(logits_fn, x)
    if is_concrete(y) and not 0 <= int(y) < classes:
        raise ValueError(f"`label` must be between 0 and {classes - 1} ({classes} logits), got {int(y)}.")
    return jnp.asarray(y)


def of_class(outputs: Array, y: Array) -> Array:
    """``outputs[y]``, and NaN in value and all derivatives for a label that turns out not to be there.

    Indexing clamps a traced index; the result would silently be about another class.
    """
    exists = (y >= 0) & (y < outputs.shape[0])
    return outputs[y] * jnp.where(exists, 1, jnp.nan).astype(outputs.dtype)


def num_classes(logits_fn: LogitsFn, x: Any) -> int:
    """The number of logits of ``logits_fn(x)``, checked without computing them."""
    if not callable(logits_fn):
        raise TypeError(
            f"`logits_fn` must be callable on one input, got {type(logits_fn).__name__}. For a Flax module:"
            " `jax.tree_util.Partial(apply, variables)` or `lambda x: model.apply(variables, x[None])[0]`."
        )
    try:
        out = jax.eval_shape(logits_fn, x)
    except Exception as error:
        raise ValueError(
            f"`logits_fn` failed on ONE input of shape {x.shape}: {type(error).__name__}: {str(error).splitlines()[0]}"
            " Accepted is a function of one sample, without a batch axis; a Flax module becomes one by"
            " `jax.tree_util.Partial(apply, variables)` or `jaxattr.models.logits_fn(model, variables)`."
        ) from error
    if not hasattr(out, "shape") or len(out.shape) != 1:
        shape = getattr(out, "shape", type(out).__name__)
        raise ValueError(
            f"`logits_fn` must map ONE input of shape {x.shape} to a vector of logits (classes,), but it returned"
            f" {shape}. For a model of batches: `lambda x: model.apply(variables, x[None])[0]`."
        )
    return out.shape[0]


def attribution_map(value: Any, x: Array) -> Array:
    """Return an attribution, checked to be shaped like its input."""
    if not hasattr(value, "shape") or value.shape != x.shape:
        raise ValueError(
            f"the attribution must have the shape of its input {x.shape}, but it returned"
            f" {getattr(value, 'shape', type(value).__name__)}. An attribution is a function"
            " `attribute(logits_fn, x, label) -> map`."
        )
    return value
