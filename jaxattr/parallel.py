"""Distribute work over many devices; no other module names meshes.

There is one 1-D mesh over all devices of all processes. In :func:`~jaxattr.over_samples` every device runs the ``vmap``
of a per-sample function over its own samples inside of ``shard_map``: no communication, and a data-dependent loop on
one device does not wait for another. In training, where samples meet in the mean of a batch, a plain ``jit`` takes the
divided batch.
"""

import logging
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

AXIS = "samples"
log = logging.getLogger(__name__)


def mesh(devices: Any = None) -> Mesh:
    """Return the library's mesh: one axis, ``"samples"``, over all devices of all processes (or over ``devices``)."""
    devices = jax.devices() if devices is None else devices
    # JAX's default became Explicit axes, under which ordinary indexing of a sharded batch fails.
    return jax.make_mesh((len(devices),), (AXIS,), (AxisType.Auto,), devices=devices)


def batch_mesh(batch_size: int, devices: Any = None) -> Mesh:
    """Return the mesh for a batch that is divided evenly, because its mean has to be a mean of equal parts.

    Without ``devices`` these are all, or, where ``batch_size`` cannot be divided among them and there is one process
    only, as many as divide it; a warning is logged then.

    Raises:
      ValueError: if the batch cannot be divided among ``devices``, or a process would have no part in it.
    """
    chosen = jax.devices() if devices is None else list(devices)
    if {device.process_index for device in chosen} != set(range(jax.process_count())):
        raise ValueError(f"`devices` needs at least one of every process, {jax.process_count()} in all, got {chosen}.")
    if batch_size % len(chosen) == 0:
        return mesh(chosen)
    if devices is not None or jax.process_count() > 1:
        raise ValueError(
            f"`batch_size` is {batch_size}, which {len(chosen)} devices cannot share evenly; accepted are multiples of"
            f" {len(chosen)}, such as {math.ceil(batch_size / len(chosen)) * len(chosen)}, or fewer `devices`."
        )
    used = max(n for n in range(1, len(chosen)) if batch_size % n == 0)
    log.warning(
        "%d of %d devices are used: a batch of %d samples can be divided evenly among no more",
        used,
        len(chosen),
        batch_size,
    )
    return mesh(chosen[:used])


def whole(on: Mesh) -> NamedSharding:
    """Return the sharding of arrays that every device holds whole, such as weights."""
    return NamedSharding(on, PartitionSpec())


def replicated(tree: Any, on: Mesh) -> Any:
    """Put copies of a pytree of arrays on all devices; every process passes the same values.

    Typed random keys have to be taken apart first (``jax.random.key_data``): they cannot be put on the devices of
    other processes.
    """
    return jax.tree.map(lambda leaf: jax.device_put(leaf, whole(on)), tree)


def sharded(values: np.ndarray, chosen: np.ndarray, on: Mesh) -> Array:
    """Divide the rows ``chosen`` of ``values`` among the devices; every process reads its own rows alone."""
    shape = (len(chosen), *values.shape[1:])

    def rows(index: Any) -> np.ndarray:
        return values[chosen[index[0]]]

    return jax.make_array_from_callback(shape, NamedSharding(on, PartitionSpec(AXIS)), rows)


def local(tree: Any, on: Mesh) -> Any:
    """Copy replicated arrays to one device of this process, where they go along with any other array."""
    with jax.default_device(on.local_devices[0]):
        # Copy twice: on a CPU the first copy is a view of the buffer. `device_put` would commit the copy to the device.
        return jax.tree.map(lambda leaf: jnp.array(np.asarray(leaf)), tree)


def divided(one: Callable[..., Any], on: Mesh) -> Callable[..., Any]:
    """Compile a per-sample function for a batch that is divided among the devices.

    Args:
      one: ``(shared, *samples) -> result`` of one sample.
      on: the mesh.

    Returns:
      ``(shared, samples) -> results``, where every device has a copy of ``shared`` and its part of ``samples``.
    """

    def batch(shared: Any, samples: tuple[Any, ...]) -> Any:
        return jax.vmap(one, in_axes=(None, *[0] * len(samples)))(shared, *samples)

    split, copied = PartitionSpec(AXIS), PartitionSpec()
    # The function has no collectives to check; the check would refuse loops whose first carry is a constant.
    return jax.jit(jax.shard_map(batch, mesh=on, in_specs=(copied, split), out_specs=split, check_vma=False))


def to_host(leaf: Array) -> np.ndarray:
    """Return a divided array as a NumPy array, whole on every process."""
    if leaf.is_fully_addressable:
        return np.asarray(leaf)
    return np.asarray(multihost_utils.process_allgather(leaf, tiled=True))


class GaveUp(RuntimeError):
    """Raised on the other processes where process 0 raised an error of its own."""


def on_first(function: Callable[[], int]) -> int:
    """Run a function on process 0 alone, and return its result on all processes.

    Args:
      function: returns a number of at least 0.

    Raises:
      Exception: that of the function, on process 0.
      GaveUp: on the others, so that none waits for a process that gave up.

    Example:
      >>> on_first(lambda: 3)
      3
    """
    error, value = None, -1
    if jax.process_index() == 0:
        try:
            value = function()
        except Exception as raised:
            error = raised
    if jax.process_count() > 1:
        value = int(multihost_utils.broadcast_one_to_all(np.asarray(value)))
    if error is not None:
        raise error
    if value < 0:
        raise GaveUp("process 0 gave up; its message says why.")
    return value
