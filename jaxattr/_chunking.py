"""Sum and map many evaluations of one function, with memory bounded by one knob, ``chunk``.

Everything in the library that expands (path points, columns of a Jacobian) calls these functions, so that ``chunk``
means the same everywhere: the number of evaluations held at once. ``None`` holds all of them.
"""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from jaxattr import _checks


def sum_over(
    function: Callable[..., Array], arguments: Any, chunk: int | None, *, rematerialize: bool = False
) -> Array:
    """Compute ``sum_j function(arguments[j])``, holding at most ``chunk`` evaluations at once.

    A ``scan`` carries the running sum, so that memory does not grow with the number of terms. The blocks are made
    equally long, and the last one is filled up by terms that are multiplied by zero.

    Args:
      function: from one slice of ``arguments`` to an array.
      arguments: pytree of arrays with a common leading axis.
      chunk: evaluations held at once; ``None`` for all.
      rematerialize: in reverse mode, which would keep what every block has computed, compute each block again.
    """
    total = jax.tree.leaves(arguments)[0].shape[0]
    chunk = total if chunk is None else min(_checks.positive_int("chunk", chunk), total)
    blocks = math.ceil(total / chunk)
    if blocks == 1:
        return jnp.sum(jax.vmap(function)(arguments), axis=0)
    length = math.ceil(total / blocks)
    padding = blocks * length - total

    def block_of(leaf: Array) -> Array:
        filled = jnp.concatenate([leaf, jnp.repeat(leaf[-1:], padding, axis=0)]) if padding else leaf
        return filled.reshape(blocks, length, *leaf.shape[1:])

    counted = (jnp.arange(blocks * length) < total).reshape(blocks, length)
    stacked = (jax.tree.map(block_of, arguments), counted)

    def term(argument, counts):
        value = function(argument)
        return jnp.where(counts, value, jnp.zeros_like(value)) if padding else value

    def block_sum(block):
        return jnp.sum(jax.vmap(term)(*block), axis=0)

    if rematerialize:
        # Inside of a scan, XLA cannot merge across iterations, so that the barriers against it are not needed.
        block_sum = jax.checkpoint(block_sum, prevent_cse=False)

    def step(running, block):
        return running + block_sum(block), None

    shape = jax.eval_shape(function, jax.tree.map(lambda leaf: leaf[0], arguments))
    return jax.lax.scan(step, jnp.zeros(shape.shape, shape.dtype), stacked)[0]


def map_over(function: Callable[..., Any], arguments: Any, chunk: int | None) -> Any:
    """Compute ``[function(arguments[j]) for all j]``, stacked, evaluating at most ``chunk`` at once."""
    total = jax.tree.leaves(arguments)[0].shape[0]
    if chunk is None or _checks.positive_int("chunk", chunk) >= total:
        return jax.vmap(function)(arguments)
    return jax.lax.map(function, arguments, batch_size=chunk)
