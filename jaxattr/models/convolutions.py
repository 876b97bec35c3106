"""Convolve images with derivatives of every order that are quick on CPUs, too.

A convolution is linear in its images and in its kernel. Its transpose with respect to the images is a convolution, too,
with the kernel turned round and strides and dilation exchanged; so is that with respect to the kernel, with samples and
channels exchanged. All derivatives are made of these two. XLA's CPU backend is quick at both as they are written here;
the transposes that JAX makes are up to 100 times slower inside of a loop (``benchmarks/convolutions.py``), and
everything here that attacks, bounds or explains runs in one. Hence two primitives, each of which is transposed to the
other.
"""

import functools
import itertools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.interpreters import ad
from jaxtyping import Array, Float

from jaxattr.models._primitives import primitive, shape_of

_LAYOUT = ("NHWC", "HWIO", "NHWC")


def convolution(lhs: Float[Array, "n h w i"], rhs: Float[Array, "a b j o"], strides, padding, **options) -> Array:
    """Convolve a batch of images; takes what :func:`jax.lax.conv_general_dilated` does, and gives the same.

    On a CPU its derivatives are quicker (``benchmarks/convolutions.py``). Elsewhere, and for dilated or grouped
    convolutions, it is :func:`jax.lax.conv_general_dilated`. For networks of your own:
    ``flax.linen.Conv(..., conv_general_dilated=jaxattr.models.convolution)``.

    Args:
      lhs: images.
      rhs: kernel.
      strides: one per spatial axis.
      padding: ``"SAME"``, ``"VALID"`` or a pair per spatial axis.
      **options: of :func:`jax.lax.conv_general_dilated`.

    Returns:
      Images, (n, h', w', o).

    Example:
      >>> images, kernel = jnp.ones((1, 3, 3, 1)), jnp.ones((3, 3, 1, 2))
      >>> convolution(images, kernel, (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")).tolist()
      [[[[9.0, 9.0]]]]
    """
    plain = _not_dilated(options) and options.get("feature_group_count", 1) == 1 and lhs.dtype == rhs.dtype
    if jax.default_backend() != "cpu" or not plain or lhs.ndim != 4:
        return jax.lax.conv_general_dilated(lhs, rhs, strides, padding, **options)
    pads = _pads(padding, lhs.shape[1:3], rhs.shape[:2], strides)
    window = {"strides": tuple(strides), "pads": pads, "dilation": (1, 1), "precision": options.get("precision")}
    return _to_images.bind(*_varying_alike(lhs, rhs), **window)


def depthwise_convolution(
    lhs: Float[Array, "n h w c"], rhs: Float[Array, "a b 1 c"], strides, padding, **options
) -> Array:
    """Convolve every channel by itself, quickly also in second derivatives on a CPU.

    Use: ``flax.linen.Conv(channels, ..., feature_group_count=channels, conv_general_dilated=depthwise_convolution)``.
    On a CPU it is a sum over the kernel of shifted images times weights, since XLA's CPU backend is 5 to 50 times
    slower at grouped convolutions and their transposes. The shifts are along one axis, of all rows behind each other:
    what a gradient pads again is then checked once per pixel and not in two dimensions, which is 2 to 15 times
    quicker. Elsewhere, and for dilated kernels or several outputs per channel, it is
    :func:`jax.lax.conv_general_dilated`.

    Args:
      lhs: images.
      rhs: kernel.
      strides: one per spatial axis.
      padding: ``"SAME"``, ``"VALID"`` or a pair per spatial axis.
      **options: of :func:`jax.lax.conv_general_dilated`, with ``feature_group_count=c``.

    Returns:
      Images, (n, h', w', c).
    """
    if jax.default_backend() != "cpu" or not _not_dilated(options) or rhs.shape[2:] != (1, lhs.shape[-1]):
        return jax.lax.conv_general_dilated(lhs, rhs, strides, padding, **options)
    (n, *sizes, channels), kernel = lhs.shape, rhs.shape[:2]
    padding = _pads(padding, sizes, kernel, strides)
    # Compute per axis the outputs, and the pixels in units of strides; one more row than needed allows for the shift
    # beyond it.
    rows, columns = (
        (size + sum(pair) - width) // stride + 1
        for size, pair, width, stride in zip(sizes, padding, kernel, strides, strict=True)
    )
    tall, wide = rows - (-kernel[0] // strides[0]), columns - (-kernel[1] // strides[1]) - 1
    ends = (tall * strides[0] - sizes[0] - padding[0][0], wide * strides[1] - sizes[1] - padding[1][0])
    margins = [(0, 0, 0), *((pair[0], end, 0) for pair, end in zip(padding, ends, strict=True)), (0, 0, 0)]
    images = jax.lax.pad(lhs, jnp.zeros((), lhs.dtype), margins).reshape(
        n, tall, strides[0], wide, strides[1], channels
    )
    phases = images.transpose(2, 4, 0, 1, 3, 5).reshape(*strides, n, tall * wide, channels)
    # The barrier keeps the compiler from computing the preceding activation once per position of the kernel.
    phases = jax.lax.optimization_barrier(phases)
    total = jnp.zeros((), lhs.dtype)
    for i, j in itertools.product(*map(range, kernel)):
        begin = i // strides[0] * wide + j // strides[1]
        shifted = phases[i % strides[0], j % strides[1], :, begin : begin + rows * wide]
        total += shifted * rhs[i, j, 0]
    return total.reshape(n, rows, wide, channels)[:, :, :columns]


def _not_dilated(options: dict[str, Any]) -> bool:
    return all(set(options.get(name) or (1,)) == {1} for name in ("lhs_dilation", "rhs_dilation"))


def _pads(padding, sizes: Sequence[int], kernel: Sequence[int], strides: Sequence[int]) -> tuple:
    if isinstance(padding, str):
        padding = jax.lax.padtype_to_pads(sizes, kernel, strides, padding)
    return tuple((int(low), int(high)) for low, high in padding)


def _varying_alike(*arrays: Array) -> list[Array]:
    """Let operands vary over the same axes of the mesh inside of ``shard_map``, as primitives require."""

    def axes(array):
        aval = jax.typeof(array)
        # JAX 0.10 renamed `vma` to `mat`.
        return aval.mat.varying if hasattr(aval, "mat") else getattr(aval, "vma", frozenset())

    everywhere = frozenset().union(*map(axes, arrays))
    missing = [tuple(everywhere - axes(array)) for array in arrays]
    return [jax.lax.pcast(a, names, to="varying") if names else a for a, names in zip(arrays, missing, strict=True)]


# Define the two maps. `dilation` puts zeros between the pixels of the images before they are padded.


def _images(images, kernel, *, strides, pads, dilation, precision):
    """Convolve images."""
    return jax.lax.conv_general_dilated(
        images, kernel, strides, pads, lhs_dilation=dilation, dimension_numbers=_LAYOUT, precision=precision
    )


def _kernel(images, outputs, *, strides, pads, dilation, precision, size):
    """Apply the transpose with respect to a kernel of height and width ``size``, which strides leave open.

    It is a convolution, with channels for samples and samples for channels: of the images by the outputs; or of the
    outputs by the images, which gives the kernel turned round, where that needs less padding. (Padding costs XLA's CPU
    backend up to 20 times the time.)
    """
    turned = 2 * sum(low for low, _ in pads) > sum(width - 1 for width in size)
    lows = [width - 1 - low if turned else low for width, (low, _) in zip(size, pads, strict=True)]
    if turned:
        images, outputs, strides, dilation = outputs, images, dilation, strides
    margins = []
    for low, width, stride, step, count, pixels in zip(
        lows, size, strides, dilation, outputs.shape[1:3], images.shape[1:3], strict=True
    ):
        margins.append((low, (count - 1) * stride + width - low - ((pixels - 1) * step + 1)))
    # The barrier transposes the arrays here: the compiler would convolve in an order of axes that has no quick loop.
    by_channel, window = jax.lax.optimization_barrier((images.transpose(3, 1, 2, 0), outputs.transpose(1, 2, 0, 3)))
    options = {"lhs_dilation": dilation, "rhs_dilation": strides, "dimension_numbers": _LAYOUT, "precision": precision}
    kernel = jax.lax.conv_general_dilated(by_channel, window, (1, 1), margins, **options)
    return jnp.flip(kernel, (1, 2)).transpose(1, 2, 3, 0) if turned else kernel.transpose(1, 2, 0, 3)


def _folded(array, axis: int, into: int):
    """Merge a batch axis into another one, of which it becomes the leading part."""
    array = jnp.moveaxis(array, axis, into)
    return array.reshape(*array.shape[:into], -1, *array.shape[into + 2 :])


def _unfolded(array, axis: int, count: int):
    """Undo :func:`_folded`; the batch axis is ``axis``."""
    return array.reshape(*array.shape[:axis], count, -1, *array.shape[axis + 1 :]), axis


def _fold(function, first: tuple[int, int], second: tuple[int, int]):
    """Build a batching rule for one batched operand: its axis is merged into another one, of operand and result."""

    def rule(made, operands, axes, window):
        if None not in axes:
            # A kernel per image is rare, and XLA has no quick convolution for it.
            return jax.vmap(functools.partial(function, **window), axes)(*operands), 0
        which = 0 if axes[1] is None else 1
        into, out = (first, second)[which]
        operands = list(operands)
        count = operands[which].shape[axes[which]]
        operands[which] = _folded(operands[which], axes[which], into)
        return _unfolded(made.bind(*operands, **window), out, count)

    return rule


_to_images = primitive("convolve", _images, _fold(_images, (0, 0), (3, 3)))
_to_kernel = primitive("convolve_to_kernel", _kernel, _fold(_kernel, (3, 2), (3, 3)))


def _back_to_images(outputs, kernel, images, *, strides, pads, dilation, precision):
    """Apply the transpose with respect to the images, whose shape is needed."""
    margins = []
    for (low, _), width, stride, step, count, pixels in zip(
        pads, kernel.shape[:2], strides, dilation, outputs.shape[1:3], shape_of(images)[1:3], strict=True
    ):
        margins.append((width - 1 - low, (pixels - 1) * step - (count - 1) * stride + low))
    # Flipping is an operation of its own: where the kernel is constant, linearizing takes it out of every loop.
    turned = jnp.flip(kernel, (0, 1)).swapaxes(2, 3)
    window = {"strides": dilation, "pads": tuple(margins), "dilation": strides, "precision": precision}
    return _to_images.bind(outputs, turned, **window)


ad.defbilinear(
    _to_images,
    lambda ct, images, kernel, **window: _back_to_images(ct, kernel, images, **window),
    lambda ct, images, kernel, **window: _to_kernel.bind(images, ct, **window, size=tuple(shape_of(kernel)[:2])),
)
ad.defbilinear(
    _to_kernel,
    lambda ct, images, outputs, *, size, **window: _back_to_images(outputs, ct, images, **window),  # noqa: ARG005
    lambda ct, images, _, *, size, **window: _to_images.bind(images, ct, **window),  # noqa: ARG005
)
