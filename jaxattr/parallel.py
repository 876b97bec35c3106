"""Many samples, many devices: the only file that names meshes.

One 1-D mesh over all devices of all processes. In :func:`over_samples` every device runs the ``vmap`` of a per-sample
method over its own samples inside of ``shard_map``: no communication, and a data-dependent loop on one device does not
wait for another. In training, where samples meet in the mean of a batch, a plain ``jit`` takes the divided batch.
"""

import functools
import logging
import math
import sys
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jax.tree_util import Partial

from jaxattr import _checks, _xla
from jaxattr.types import LogitsFn

AXIS = "samples"
MAX_BATCH_SIZE = 128
log = logging.getLogger(__name__)

Progress = bool | Callable[[int, int], None]


def mesh(devices: Any = None) -> Mesh:
    """The library's mesh: one axis, ``"samples"``, over all devices of all processes (or over ``devices``)."""
    devices = jax.devices() if devices is None else devices
    # JAX's default became Explicit axes, under which ordinary indexing of a sharded batch fails.
    return jax.make_mesh((len(devices),), (AXIS,), (AxisType.Auto,), devices=devices)


def batch_mesh(batch_size: int, devices: Any = None) -> Mesh:
    """The mesh of a batch that is divided evenly, because its mean has to be a mean of equal parts.

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
    """The sharding of what every device has a copy of, such as weights."""
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
        # Twice: on a CPU the first is a view of the buffer. Not committed to the device, as `device_put`'s would be.
        return jax.tree.map(lambda leaf: jnp.array(np.asarray(leaf)), tree)


@functools.lru_cache(maxsize=64)
def _program(method: Callable[..., Any], on: Mesh, key_impl: Any, closed: Any) -> Callable[..., Any]:
    """The compiled form of a method over a batch; the same for all weights of an architecture.

    Args:
      method: what is run.
      on: the mesh.
      key_impl: the key's generator; ``None`` for a method without a key.
      closed: the logits function where it is no pytree.
    """

    def one(logits_fn, x, label, key_data, index):
        logits_fn = closed if closed is not None else logits_fn
        if key_impl is None:
            return method(logits_fn, x, label)
        # A key per sample, whatever the batch: results do not depend on how samples were chunked or sharded.
        key = jax.random.wrap_key_data(key_data, impl=key_impl)
        return method(logits_fn, x, label, jax.random.fold_in(key, index))

    def batch(logits_fn, xs, labels, key_data, indices):
        return jax.vmap(one, in_axes=(None, 0, 0, None, 0))(logits_fn, xs, labels, key_data, indices)

    split, copied = PartitionSpec(AXIS), PartitionSpec()
    specs = (copied, split, split, copied, split)
    # No collectives, so nothing to check; the check would refuse loops whose first carry is a constant.
    return jax.jit(jax.shard_map(batch, mesh=on, in_specs=specs, out_specs=split, check_vma=False))


class SampleMap:
    """A per-sample method lifted to data sets; see :func:`over_samples`."""

    def __init__(self, method, logits_fn, *, batch_size, memory, progress, devices):
        self._method, self._progress, self._batch_size = method, progress, batch_size
        self._memory, self._mesh = memory, mesh(devices)
        # Weights inside of a Partial are an argument of the compiled program; those of a closure are a part of it.
        self._logits_fn = logits_fn
        is_pytree = isinstance(logits_fn, Partial)
        self._weights, self._closed = (logits_fn, None) if is_pytree else (None, logits_fn)
        self._compiled: dict[Any, Any] = {}

    def __call__(self, xs: Any, labels: Any, key: Array | None = None) -> Any:
        """Run over all samples.

        Args:
          xs: inputs, (n, *shape).
          labels: classes, (n,).
          key: for methods that take one; attributions do not.

        Returns:
          The method's result with a leading axis of n in every leaf, as NumPy arrays on every process.
        """
        parts = [part for _, part in self.batches(xs, labels, key)]
        return jax.tree.map(lambda *leaves: np.concatenate(leaves), *parts)

    def batches(self, xs: Any, labels: Any, key: Array | None = None, start: int = 0) -> Iterator[tuple[slice, Any]]:
        """Run batch by batch, so that a caller can store each before the next begins.

        Args:
          xs: inputs, (n, *shape).
          labels: classes, (n,).
          key: for methods that take one.
          start: first sample to run; a sample's key depends on its index alone, so that a run can be resumed.

        Yields:
          ``(slice, result)``: which samples, and their results as NumPy arrays.
        """
        xs, labels = self._check(xs, labels)
        total = len(xs)
        if isinstance(start, bool) or not isinstance(start, (int, np.integer)) or not 0 <= start <= total:
            raise ValueError(f"`start` must be an integer between 0 and {total}, the number of samples; got {start!r}.")
        batch_size = self._fit(xs, labels, key)
        report = _reporter(self._progress, start, total)
        for begin in range(start, total, batch_size):
            end = min(begin + batch_size, total)
            # The last batch is filled up with its first sample: one shape, one compilation.
            chosen = np.concatenate([np.arange(begin, end), np.full(batch_size - (end - begin), begin)])
            out = self._executable(batch_size, xs, labels, key)(*self._arguments(xs, labels, key, chosen))
            part = jax.tree.map(lambda leaf, n=end - begin: _to_host(leaf)[:n], out)
            report(end)
            yield slice(begin, end), part

    def _check(self, xs: Any, labels: Any) -> tuple[np.ndarray, np.ndarray]:
        """Samples and labels as arrays; what is wrong with them is said here, where values are known."""
        xs, labels = np.asarray(xs), np.asarray(labels)
        if xs.ndim < 1 or len(xs) == 0 or labels.shape != (len(xs),):
            raise ValueError(
                "`xs` and `labels` must hold one entry per sample, (n, *shape) and (n,), got shapes"
                f" {xs.shape} and {labels.shape}."
            )
        _checks.sample(xs)
        if not jnp.issubdtype(labels.dtype, jnp.integer):
            raise TypeError(f"`labels` must be integer class indices, got dtype {labels.dtype}.")
        # As JAX would take them: without 64-bit mode, float64 inputs become float32.
        xs = xs.astype(jax.dtypes.canonicalize_dtype(xs.dtype))
        ball = getattr(self._method, "ball", None)
        if ball is not None:
            ball.check_input(xs)
        classes = _checks.num_classes(self._logits_fn, xs[0])
        wrong = labels[(labels < 0) | (labels >= classes)]
        if wrong.size:
            raise ValueError(f"`labels` must be between 0 and {classes - 1} ({classes} logits), got {wrong[0]}.")
        return xs, labels.astype(np.int32)

    def _arguments(self, xs, labels, key, chosen: np.ndarray) -> tuple:
        # As plain numbers, for the devices of other processes.
        key_data = np.zeros(0, np.uint32) if key is None else np.asarray(jax.random.key_data(key))
        return (
            replicated(self._weights, self._mesh),
            sharded(xs, chosen, self._mesh),
            sharded(labels, chosen, self._mesh),
            replicated(key_data, self._mesh),
            sharded(np.arange(len(xs), dtype=np.int32), chosen, self._mesh),
        )

    def _executable(self, batch_size, xs, labels, key):
        impl = None if key is None else jax.random.key_impl(key)
        signature = (batch_size, xs.shape[1:], xs.dtype, labels.dtype, impl)
        if signature not in self._compiled:
            program = _program(self._method, self._mesh, impl, self._closed)
            arguments = self._arguments(xs, labels, key, np.zeros(batch_size, int))
            self._compiled[signature] = program if self._memory is None else program.lower(*arguments).compile()
        return self._compiled[signature]

    def _fit(self, xs, labels, key) -> int:
        """The batch size: as asked for, or as large as the memory budget allows."""
        devices = self._mesh.size

        def rounded(size: float) -> int:
            return max(1, math.floor(size / devices)) * devices

        if self._batch_size is not None:
            return math.ceil(self._batch_size / devices) * devices
        size = rounded(min(MAX_BATCH_SIZE * devices, math.ceil(len(xs) / devices) * devices))
        while self._memory is not None:
            needed = _xla.memory(self._executable(size, xs, labels, key)) or 0
            if needed <= self._memory:
                break
            if size == devices:
                log.warning(
                    "one sample per device needs %.2g GB, above the budget of %.2g GB", needed / 1e9, self._memory / 1e9
                )
                break
            # Proportionally down, and at least by half: each try is a compilation.
            size = rounded(min(size / 2, 0.9 * size * self._memory / needed))
        return size


def over_samples(
    method: Callable[..., Any],
    logits_fn: LogitsFn,
    *,
    batch_size: int | None = None,
    memory: float | None = 2e9,
    progress: Progress = False,
    devices: Any = None,
) -> SampleMap:
    """Lift a per-sample method to data sets: chunked to a memory budget, sharded over all devices of all processes.

    Sample i gets the key ``fold_in(key, i)``: the numbers do not depend on batch size, devices or processes (up to the
    rounding of differently batched products). Each process passes all samples and gets all results; it computes its
    share. A ``jax.tree_util.Partial`` passes its weights as an argument, so that all checkpoints of an architecture
    share one compilation; weights inside of a closure are compiled in.

    Args:
      method: an attribution, bound or attack: ``(logits_fn, x, label[, key]) -> pytree``.
      logits_fn: classifier of one input.
      batch_size: samples at once over all devices; rounded up to a multiple of their number. By default as many as
        the memory budget allows, at most 128 a device.
      memory: budget per device in bytes for the temporaries and results of a batch, from the compiler's own analysis;
        ``None`` to compile without looking.
      progress: ``True`` for a counter on a terminal (a log line every ten percent elsewhere), or a function
        ``(done, total)``. Process 0 alone reports.
      devices: devices to use; all by default.

    Returns:
      A function ``(xs, labels, key=None) -> results`` with a method ``batches`` that yields batch by batch.
      Attributions are called without a key, everything else with one.

    Raises:
      ValueError: on call, if there are no samples or the numbers of inputs and labels differ.
      TypeError: on call, if labels are not integers or inputs not floating-point.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> import jaxattr as ja
      >>> saliency = ja.over_samples(ja.attributions.saliency(), lambda x: jnp.stack([x @ x, 0.0]))
      >>> saliency(jnp.full((3, 2), 0.5), jnp.zeros(3, int)).tolist()
      [[1.0, 1.0], [1.0, 1.0], [1.0, 1.0]]
    """
    if not callable(method):
        raise TypeError(f"`method` must be an attribution, a bound or an attack, got {type(method).__name__}.")
    if batch_size is not None:
        _checks.positive_int("batch_size", batch_size)
    if memory is not None:
        _checks.positive("memory", memory)
    return SampleMap(
        method,
        logits_fn,
        batch_size=batch_size,
        memory=memory if batch_size is None else None,
        progress=progress,
        devices=devices,
    )


def _to_host(leaf: Array) -> np.ndarray:
    if leaf.is_fully_addressable:
        return np.asarray(leaf)
    return np.asarray(multihost_utils.process_allgather(leaf, tiled=True))


def _reporter(progress: Progress, start: int, total: int) -> Callable[[int], None]:
    if progress is False or jax.process_index() != 0:
        return lambda _: None
    if callable(progress):
        return lambda done: progress(done, total)
    last = start

    def report(done: int) -> None:
        nonlocal last
        if sys.stderr.isatty():
            print(f"\r{done} of {total} samples", end="\n" if done == total else "", file=sys.stderr, flush=True)
        elif done * 10 // total > last * 10 // total:
            log.info("%d of %d samples", done, total)
        last = done

    return report
