"""Check the arguments of metrics while tracing."""

import math
import operator
from typing import Any

import jax.numpy as jnp
from jax import Array


def one_map(values: Any, name: str = "a") -> Array:
    """Return the argument as an array of 32 bits or more, if it is a non-empty map of real floats.

    Sums and differences of 16-bit maps overflow (float16) or keep three digits (bfloat16).

    Raises:
      TypeError: if the dtype is not a floating one.
      ValueError: if the map has no entries.
    """
    values = jnp.asarray(values)
    if not jnp.issubdtype(values.dtype, jnp.floating):
        raise TypeError(
            f"`{name}` must be a map of floats, got dtype {values.dtype}; convert it with `{name}.astype(jnp.float32)`."
        )
    if values.size == 0:
        raise ValueError(f"`{name}` must have at least one entry, got shape {values.shape}.")
    return values.astype(jnp.promote_types(values.dtype, jnp.float32))


def two_maps(a: Any, b: Any) -> tuple[Array, Array]:
    """Return both arguments as arrays of a common dtype, if they are maps of one shape.

    Raises:
      TypeError: if a dtype is not a floating one.
      ValueError: if the shapes differ or the maps have no entries.
    """
    a, b = one_map(a, "a"), one_map(b, "b")
    if a.shape != b.shape:
        raise ValueError(
            f"`a` and `b` must be maps of one shape, got {a.shape} and {b.shape}; "
            "a metric compares two maps of one sample, use `jax.vmap` for a batch."
        )
    dtype = jnp.promote_types(a.dtype, b.dtype)
    return a.astype(dtype), b.astype(dtype)


def resolved(values: Array) -> Array:
    """Return whether a map is zero, or so large that entries below the smallest normal number do not matter.

    Those are flushed to zero, here or where the map was computed: in float32 everything below 1.2e-38. That moves an
    angle by at most a thousandth of a radian where this is true, that is where the largest of n entries is at least
    1.2e-35 sqrt(n).
    """
    largest = jnp.max(jnp.abs(values))
    enough = 1e3 * math.sqrt(values.size) * float(jnp.finfo(values.dtype).tiny)
    return (largest == 0) | (largest >= enough)


def number_of_entries(k: Any, size: int, of: str) -> int:
    """Return `k` as a Python integer, if it lies in 1 .. `size`.

    Raises:
      TypeError: if `k` is no concrete integer.
      ValueError: if `k` is out of range.
    """
    try:
        if isinstance(k, bool):
            raise TypeError
        k = operator.index(k)
    except TypeError as error:  # A traced integer raises TypeError, too
        raise TypeError(
            f"`k` must be a Python integer, got {k!r}; it sets a shape, so close over it or mark "
            "it as a static argument of `jax.jit`."
        ) from error
    if not 1 <= k <= size:
        raise ValueError(f"`k` must be between 1 and the {size} entries of {of}, got {k}.")
    return k
