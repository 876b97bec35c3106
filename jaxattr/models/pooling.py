"""Average 2 x 2 pixels with derivatives of every order that are quick on CPUs, too.

Where XLA's CPU backend reduces a window, it computes all that it fuses into that (an activation and its derivatives)
number by number, without vector instructions: 8 times slower than the activation alone. A sum of four images is quick,
but JAX's transpose of it, four images padded with zeros, is not. Hence two primitives, each of which is transposed to
the other.
"""

import functools
import itertools

import jax
import jax.numpy as jnp
from jax.interpreters import ad
from jaxtyping import Array, Float

from jaxattr.models._primitives import primitive, shape_of


def window_mean(x: Float[Array, "n h w c"]) -> Float[Array, "n h//2 w//2 c"]:
    """Average each window of 2 x 2 pixels; an odd last row or column is dropped.

    Example:
      >>> window_mean(jnp.arange(4.0).reshape(1, 2, 2, 1)).item()
      1.5
    """
    if jax.default_backend() != "cpu":
        n, height, width, channels = x.shape
        even = x[:, : height // 2 * 2, : width // 2 * 2]
        return jnp.mean(even.reshape(n, height // 2, 2, width // 2, 2, channels), axis=(2, 4))
    return _sums.bind(x) / 4


def _sum(x: Array) -> Array:
    rows, columns = x.shape[1] // 2 * 2, x.shape[2] // 2 * 2
    first, *others = (x[:, i:rows:2, j:columns:2] for i, j in itertools.product(range(2), repeat=2))
    return functools.reduce(jnp.add, others, first)


def _spread(x: Array, *, size: tuple[int, int]) -> Array:
    """Repeat every pixel four times, and fill the rest with zeros."""
    n, rows, columns, channels = x.shape
    large = jnp.broadcast_to(x[:, :, None, :, None], (n, rows, 2, columns, 2, channels))
    margins = [(0, 0), *((0, count - 2 * half) for count, half in zip(size, (rows, columns), strict=True)), (0, 0)]
    return jnp.pad(large.reshape(n, 2 * rows, 2 * columns, channels), margins)


def _batched(made, operands, axes, options):
    """Merge the batch axis of ``vmap`` into the axis of images."""
    x = jnp.moveaxis(operands[0], axes[0], 0)
    result = made.bind(x.reshape(-1, *x.shape[2:]), **options)
    return result.reshape(*x.shape[:2], *result.shape[1:]), 0


_sums, _spreads = primitive("sum_windows", _sum, _batched), primitive("spread_windows", _spread, _batched)
ad.deflinear2(_sums, lambda ct, x: [_spreads.bind(ct, size=tuple(shape_of(x)[1:3]))])
ad.deflinear2(_spreads, lambda ct, x, *, size: [_sums.bind(ct)])  # noqa: ARG005
