"""Run per-sample functions over whole data sets, batch by batch, within a budget of memory.

:class:`Batches` is the common part of :func:`~jaxattr.over_samples` and :func:`~jaxattr.map_samples`: the size of a
batch, its program, its devices, and progress reports.
"""

import logging
import math
import sys
import weakref
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxattr import _xla, parallel

MAX_BATCH_SIZE = 128
# One function keeps at most this many programs, of different architectures, meshes, generators of random numbers.
MAX_PROGRAMS = 16
log = logging.getLogger(__name__)

Progress = bool | Callable[[int, int], None]


class Programs:
    """The most recently used compiled programs of one function.

    Those that may be kept live in an attribute of the function itself, and go when it goes. A cache beside it would
    have to hold on to the function, and with it to every array of a closure.
    """

    _ATTRIBUTE = "_jaxattr_programs"

    def __init__(self, owner: Any = None):
        self._owner = None if owner is None else weakref.ref(owner)
        self._found: OrderedDict[Hashable, tuple[Any, dict[Any, Any]]] = OrderedDict()

    @classmethod
    def of(cls, function: Any) -> "Programs":
        """Return the programs that ``function`` keeps, empty where it cannot keep any (as the method of an object)."""
        known = getattr(function, "__dict__", {}).get(cls._ATTRIBUTE)
        # `functools.wraps` and copies take attributes along: these programs are those of another function then.
        if known is not None and known._owner() is function:
            return known
        try:
            programs = cls(function)
            setattr(function, cls._ATTRIBUTE, programs)
        except (AttributeError, TypeError):
            return cls()
        return programs

    def get(self, key: Hashable, make: Callable[[], Any]) -> tuple[Any, dict[Any, Any]]:
        """Return the program of ``key``, made where there is none, and its executables by their shapes."""
        if key not in self._found:
            self._found[key] = (make(), {})
            while len(self._found) > MAX_PROGRAMS:
                self._found.popitem(last=False)
        self._found.move_to_end(key)
        return self._found[key]

    # The function, and with it this attribute, may be copied or sent to another process: compiled programs cannot.
    def __reduce__(self):
        return Programs, ()


class Batches:
    """A runner of ``(shared, *samples) -> result`` over data sets.

    Args:
      batch_size: samples at once over all devices, rounded up to a multiple of their number; ``None`` for as many as
        fit into ``memory``.
      memory: bytes per device for temporaries and results; ``None`` to compile without looking.
      progress: ``True``, or a function ``(done, total)``.
      devices: devices to use; all by default.
    """

    def __init__(self, *, batch_size: int | None, memory: float | None, progress: Progress, devices: Any):
        self._batch_size, self._progress = batch_size, progress
        self._memory = memory if batch_size is None else None
        self.mesh = parallel.mesh(devices)

    def run(
        self,
        one: Callable[..., Any],
        shared: Any,
        samples: tuple[Any, ...],
        start: int = 0,
        *,
        programs: Programs,
        key: Hashable = None,
    ) -> Iterator[tuple[slice, Any]]:
        """Run a function batch by batch.

        Args:
          one: the function; used where ``programs`` has no program of ``key``.
          shared: pytree of arrays that all samples share, such as weights.
          samples: pytrees of NumPy arrays with a common leading axis.
          start: first sample to run.
          programs: where compiled programs are kept.
          key: distinguishes programs there, beside the mesh and the shapes.

        Yields:
          ``(slice, result)``: which samples, and their results as NumPy arrays.
        """
        total = len(jax.tree.leaves(samples)[0])
        if isinstance(start, bool) or not isinstance(start, (int, np.integer)) or not 0 <= start <= total:
            raise ValueError(f"`start` must be an integer between 0 and {total}, the number of samples; got {start!r}.")
        shared = parallel.replicated(shared, self.mesh)
        program, compiled = programs.get((key, self.mesh), lambda: parallel.divided(one, self.mesh))

        def arguments(chosen: np.ndarray) -> tuple[Any, Any]:
            return shared, jax.tree.map(lambda leaf: parallel.sharded(leaf, chosen, self.mesh), samples)

        def executable(size: int) -> Any:
            if self._memory is None:
                return program
            given = arguments(np.zeros(size, int))
            signature = tuple((leaf.shape, leaf.dtype) for leaf in jax.tree.leaves(given))
            if signature not in compiled:
                compiled[signature] = program.lower(*given).compile()
            return compiled[signature]

        size = self._fit(total, executable)
        report = _reporter(self._progress, start, total)
        run = executable(size)
        for which, rows in full_batches(start, total, size):
            out = run(*arguments(rows))
            part = jax.tree.map(lambda leaf, n=which.stop - which.start: parallel.to_host(leaf)[:n], out)
            report(which.stop)
            yield which, part

    def _fit(self, total: int, executable: Callable[[int], Any]) -> int:
        """Return the batch size: as given, or as large as the memory budget allows."""
        devices = self.mesh.size

        def rounded(size: float) -> int:
            return max(1, math.floor(size / devices)) * devices

        if self._batch_size is not None:
            return math.ceil(self._batch_size / devices) * devices
        size = rounded(min(MAX_BATCH_SIZE * devices, math.ceil(total / devices) * devices))
        while self._memory is not None:
            needed = _xla.memory(executable(size)) or 0
            if needed <= self._memory:
                break
            if size == devices:
                log.warning(
                    "one sample per device needs %.2g GB, above the budget of %.2g GB", needed / 1e9, self._memory / 1e9
                )
                break
            # Shrink in proportion, and at least by half: each try is a compilation.
            size = rounded(min(size / 2, 0.9 * size * self._memory / needed))
        return size


def full_batches(start: int, total: int, size: int) -> Iterator[tuple[slice, np.ndarray]]:
    """Yield batches of one size: one shape takes one compilation.

    Args:
      start: the first sample.
      total: the number of samples.
      size: samples of a batch.

    Yields:
      ``(slice, rows)``: which samples the batch adds, and ``size`` rows to compute. The rows of the last batch are
      filled up with its first sample.

    Example:
      >>> [(which, rows.tolist()) for which, rows in full_batches(0, 5, 3)]
      [(slice(0, 3, None), [0, 1, 2]), (slice(3, 5, None), [3, 4, 3])]
    """
    for begin in range(start, total, size):
        end = min(begin + size, total)
        yield slice(begin, end), np.concatenate([np.arange(begin, end), np.full(size - (end - begin), begin)])


def host_arrays(tree: Any, name: str) -> Any:
    """Return arrays (or pytrees of them) as NumPy arrays in the types that JAX would give them.

    Raises:
      TypeError: if a leaf is no array of numbers.
    """

    def convert(leaf: Any) -> np.ndarray:
        if isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            raise TypeError(
                f"{name} holds random keys; accepted are numbers: pass `jax.random.key_data(keys)`, and take keys of"
                " them inside by `jax.random.wrap_key_data`."
            )
        array = np.asarray(leaf)
        if array.dtype.kind in "OSUV" and not jnp.issubdtype(array.dtype, jnp.number):
            raise TypeError(f"{name} must hold arrays of numbers, got {type(leaf).__name__} of dtype {array.dtype}.")
        # Without 64-bit mode, float64 becomes float32.
        return array.astype(jax.dtypes.canonicalize_dtype(array.dtype))

    return jax.tree.map(convert, tree)


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
