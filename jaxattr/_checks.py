"""Check arguments once, where they enter the library, while shapes are known.

Each function raises ``ValueError`` or ``TypeError`` that says what was given, what is accepted and what to do.
Values that are still abstract (inside ``jit``, ``vmap``, ``grad``) pass: inside compiled code a failure is data.
"""

import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.core
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxattr._given import attack, attribution, bound, method, network  # noqa: F401 (all checks under one name)
from jaxattr.types import LogitsFn


def is_concrete(value: Any) -> bool:
    """Return whether ``value`` is known while tracing."""
    return not isinstance(value, jax.core.Tracer)


def positive_int(name: str, value: Any) -> int:
    """Return ``value`` if it is an integer of at least one."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise TypeError(f"`{name}` must be an integer of at least 1, got {value!r}.")
    if value < 1:
        raise ValueError(f"`{name}` must be at least 1, got {value}.")
    return int(value)


def positive(name: str, value: Any, hint: str = "") -> Any:
    """Return ``value`` if it is a finite number above zero, or not known yet; ``hint`` says what to do."""
    if is_concrete(value) and not (_is_number(value) and 0 < float(value) < math.inf):
        raise ValueError(f"`{name}` must be a finite number above 0, got {value!r}{hint and f': {hint}'}.")
    return value


def _is_number(value: Any) -> bool:
    return np.ndim(value) == 0 and np.issubdtype(np.asarray(value).dtype, np.number)


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
    """Return one input (or a batch) as an array of floating-point numbers of at least 32 bits.

    Sixteen bits become float32: decompositions have no such type, and a slope computed in it is off by 0.4 %, which no
    bound accounts for. The network may compute in any type of its own.
    """
    if not hasattr(x, "dtype"):
        if isinstance(x, Mapping) or callable(x):
            raise TypeError(f"`x` must be an array of floating-point numbers, got {type(x).__name__}.")
        x = np.asarray(x)
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise TypeError(
            f"`x` must be an array of floating-point numbers, got dtype {x.dtype}.{_cure_of_dtype(x.dtype)}"
        )
    if x.size == 0:
        raise ValueError(f"`x` must hold at least one feature, got shape {x.shape}.")
    # NumPy's wide types become the types of JAX's mode.
    x = jnp.asarray(x)
    return x.astype(jnp.float32) if jnp.finfo(x.dtype).bits < 32 else x


def _cure_of_dtype(dtype: Any) -> str:
    if jnp.issubdtype(dtype, jnp.bool_) or jnp.issubdtype(dtype, jnp.integer):
        return (
            " Images of integers in [0, 255] become valid inputs by `x.astype('float32') / 255`; tokens by their"
            " embedding, with a network that takes embeddings."
        )
    if jnp.issubdtype(dtype, jnp.complexfloating):
        return " A complex signal becomes one by its parts, `jnp.stack([x.real, x.imag])`."
    return ""


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


def key(value: Any) -> Any:
    """Return ``value`` if it is one random key, typed or as plain numbers."""
    dtype, shape = getattr(value, "dtype", None), np.shape(value) if hasattr(value, "shape") else None
    typed = dtype is not None and jnp.issubdtype(dtype, jax.dtypes.prng_key)
    if not typed and dtype != np.uint32:
        raise TypeError(f"`key` must be a random key, `jax.random.key(0)`, got {type(value).__name__}.")
    if shape != () if typed else len(shape or ()) != 1:
        raise ValueError(
            f"`key` must be ONE random key, got an array of shape {shape}. Every sample gets its own of it inside of"
            " `jaxattr.over_samples`; several keys for one sample are a `jax.vmap`."
        )
    return value


def of_class(outputs: Array, y: Array | int) -> Array:
    """Return ``outputs[y]``; NaN in value and all derivatives for a traced label without an output.

    Indexing clamps a traced index; the result would silently be about another class.
    """
    exists = (y >= 0) & (y < outputs.shape[0])
    return outputs[y] * jnp.where(exists, 1, jnp.nan).astype(outputs.dtype)


def num_classes(logits_fn: LogitsFn, x: Any) -> int:
    """Return the number of logits of ``logits_fn(x)``, checked without computing them."""
    network(logits_fn)
    try:
        out = jax.eval_shape(logits_fn, x)
    except Exception as error:
        first = next(iter(str(error).splitlines()), "")
        raise ValueError(
            f"`logits_fn` failed on ONE input of shape {x.shape}: {type(error).__name__}: {first} "
            f"{_cure(logits_fn, x, error)}"
        ) from error
    if not hasattr(out, "shape") or len(out.shape) != 1:
        shape = getattr(out, "shape", type(out).__name__)
        raise ValueError(
            f"`logits_fn` must map ONE input of shape {x.shape} to a vector of logits (classes,), but it returned"
            f" {shape}. {_cure(logits_fn, x, None)}"
        )
    return out.shape[0]


def _cure(logits_fn: LogitsFn, x: Any, error: Exception | None) -> str:
    """Advise how to mend a network that does not map one input to logits: one advice for each cause."""
    cause = type(error).__name__
    training = cause in ("TraceContextError", "ModifyScopeVariableError", "InvalidRngError")
    if training or (error is not None and "non-deterministic mode" in str(error)):
        return (
            "The network is in training mode (dropout or running statistics are on); attributions are of one function:"
            " `model.eval()` for NNX, `equinox.nn.inference_mode(model)`, `train=False` or `deterministic=True` for"
            " Flax linen."
        )
    if isinstance(error, (jax.errors.JAXTypeError, jax.errors.JAXIndexError)):
        return "It has to be a function that JAX can trace: `jax.numpy` in place of NumPy, no `if` on values of x."
    if _is_vector(lambda z: logits_fn(z[None])[0], x):
        return (
            "It takes a batch; a function of one sample, without a batch axis, is made of it by"
            " `jax.tree_util.Partial(lambda f, x: f(x[None])[0], logits_fn)` where it is a pytree, by"
            " `lambda x: logits_fn(x[None])[0]` otherwise."
        )
    if x.ndim and _is_vector(logits_fn, jax.ShapeDtypeStruct(x.shape[1:], x.dtype)):
        return (
            f"It takes one of the {x.shape[0]} rows of `x`: for a batch of samples lift the method by"
            " `jaxattr.over_samples(method, logits_fn)(xs, labels, key)` or `jax.vmap`."
        )
    if error is None:
        return "For a model of batches: `lambda x: model.apply(variables, x[None])[0]`."
    return "Accepted is a function of one sample, without a batch axis: check that `logits_fn(x)` runs by itself."


def _is_vector(function: Any, x: Any) -> bool:
    try:
        out = jax.eval_shape(function, x)
    # Any other exception means that this was not the cause.
    except Exception:
        return False
    return hasattr(out, "shape") and len(out.shape) == 1


def attribution_map(value: Any, x: Array) -> Array:
    """Return an attribution, checked to be shaped like its input."""
    if not hasattr(value, "shape") or value.shape != x.shape:
        raise ValueError(
            f"the attribution must have the shape of its input {x.shape}, but it returned"
            f" {getattr(value, 'shape', type(value).__name__)}. An attribution is a function"
            " `attribute(logits_fn, x, label) -> map`."
        )
    return value
