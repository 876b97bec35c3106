"""Pool smoothly over windows of any size, stride, padding and dilation, as ``lax.reduce_window`` takes them."""

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from jaxattr._activations import larger


class Windows(NamedTuple):
    """The windows over an array; one number or pair per axis, as in ``lax.reduce_window``.

    Attributes:
      sizes: entries of a window.
      strides: steps between windows.
      padding: entries before and after the array, which count for nothing.
      base_dilation: steps between the entries of the array; what is between them counts for nothing, too.
      dilation: steps between the entries of a window.
    """

    sizes: Sequence[int]
    strides: Sequence[int]
    padding: Sequence[tuple[int, int]]
    base_dilation: Sequence[int]
    dilation: Sequence[int]

    @classmethod
    def of(cls, sizes: Sequence[int], strides: Sequence[int], padding: Any, shape: Sequence[int]) -> "Windows":
        """Build the windows over an array of ``shape``; ``padding`` may be "SAME" or "VALID"."""
        pairs = lax.padtype_to_pads(shape, sizes, strides, padding) if isinstance(padding, str) else padding
        ones = (1,) * len(shape)
        return cls(tuple(sizes), tuple(strides), tuple((before, after) for before, after in pairs), ones, ones)


def log_sum_exp(x: Array, windows: Windows) -> Array:
    """Compute ``log(sum(exp(x)))`` of each window, and ``-inf`` where a window lies in the padding.

    A sum over a window is a sum over one axis after the other, and each of them a tree of sums of two: values and
    derivatives of every order keep the relative accuracy of :func:`jaxattr._activations.larger`.
    """
    margins = [(*pair, base - 1) for pair, base in zip(windows.padding, windows.base_dilation, strict=True)]
    if any(map(any, margins)):
        x = lax.pad(x, jnp.asarray(-jnp.inf, x.dtype), margins)
    for axis, (size, stride, step) in enumerate(zip(windows.sizes, windows.strides, windows.dilation, strict=True)):
        span = (size - 1) * step + 1
        count = (x.shape[axis] - span) // stride + 1 if x.shape[axis] >= span else 0
        if count == 0:
            x = lax.slice_in_dim(x, 0, 0, axis=axis)
        elif size == 1 or step > 1 or (stride != size and count != 1):
            last = (count - 1) * stride + 1
            entries = [lax.slice_in_dim(x, k, k + last, stride, axis) for k in range(0, span, step)]
            while len(entries) > 1:
                entries = [functools.reduce(larger, entries[i : i + 2]) for i in range(0, len(entries), 2)]
            x = entries[0]
        else:
            x = lax.slice_in_dim(x, 0, count * size, axis=axis)
            x = log_sum_exp_along(x.reshape(*x.shape[:axis], count, size, *x.shape[axis + 1 :]), (axis + 1,))
    return x


def log_sum_exp_along(x: Array, axes: Sequence[int]) -> Array:
    """Compute ``log(sum(exp(x)))`` along axes, as accurately."""
    kept = [axis for axis in range(x.ndim) if axis not in axes]
    x = x.transpose(*axes, *kept).reshape(-1, *(x.shape[axis] for axis in kept))
    while len(x) > 1:
        half = len(x) // 2
        x = jnp.concatenate([larger(x[:half], x[half : 2 * half]), x[2 * half :]])
    return x[0]


def counts(shape: Sequence[int], windows: Windows) -> np.ndarray:
    """Count the entries of the array in each window, at least 1; axes of equal counts have length 1."""
    total = np.ones((1,) * len(shape))
    for axis, (length, size, stride, (before, after), base, step) in enumerate(zip(shape, *windows, strict=True)):
        there = np.zeros(max((length - 1) * base + 1, 0))
        there[::base] = 1
        there = np.pad(there[max(-before, 0) : len(there) - max(-after, 0)], (max(before, 0), max(after, 0)))
        span = (size - 1) * step + 1
        starts = range(0, len(there) - span + 1, stride)
        number = np.asarray([there[start : start + span : step].sum() for start in starts])
        if len(set(number)) == 1:
            number = number[:1]
        total = total * number.reshape([-1 if i == axis else 1 for i in range(len(shape))])
    return np.maximum(total, 1)


def mean(x: Array, windows: Windows) -> Array:
    """Compute the mean of each window, over entries of the array alone."""
    sums = lax.reduce_window(
        x,
        # Pass a NumPy zero: JAX does not recognize a traced zero as the start of a sum, which then has no derivative.
        np.zeros((), x.dtype),
        lax.add,
        windows.sizes,
        windows.strides,
        windows.padding,
        windows.base_dilation,
        windows.dilation,
    )
    return sums / counts(x.shape, windows).astype(x.dtype)
