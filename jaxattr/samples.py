"""Lift methods and metrics of one sample to data sets, on all devices of all processes."""

import functools
import weakref
from collections.abc import Callable, Iterator
from typing import Any, Generic, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxattr import _checks, _values, networks
from jaxattr.batches import Batches, Programs, Progress, host_arrays
from jaxattr.method import Calling
from jaxattr.types import LogitsFn

R = TypeVar("R")


class ArrayMap(Generic[R]):
    """A function of one sample lifted to data sets; see :func:`map_samples`."""

    def __init__(self, function: Callable[..., R], batches: Batches):
        self._function, self._batches = function, batches
        self._programs = Programs.of(function)

    def __call__(self, *arrays: Any) -> R:
        """Run over all samples.

        Args:
          *arrays: arrays, or pytrees of arrays, (n, ...): one entry per sample.

        Returns:
          The function's result with a leading axis of n in every leaf, as NumPy arrays on every process.
        """
        return _joined(self.batches(*arrays))

    def batches(self, *arrays: Any, start: int = 0) -> Iterator[tuple[slice, R]]:
        """Run batch by batch, so that a caller can store each before the next begins.

        Args:
          *arrays: arrays, or pytrees of arrays, (n, ...).
          start: first sample to run.

        Yields:
          ``(slice, result)``: which samples, and their results as NumPy arrays.
        """
        samples = tuple(host_arrays(one, f"argument {i}") for i, one in enumerate(arrays))
        shapes = [np.shape(leaf) for leaf in jax.tree.leaves(samples)]
        lengths = {shape[0] if shape else None for shape in shapes}
        if not shapes or len(lengths) != 1 or lengths & {None, 0}:
            raise ValueError(
                "`map_samples(function)(*arrays)` wants arrays with one entry per sample, (n, ...) with the same n of"
                f" at least 1; got shapes {', '.join(map(str, shapes)) or 'of no array'}."
            )
        one = _weakly(self._function, lambda function, _, *sample: function(*sample))
        structure = jax.tree.structure(samples)
        yield from self._batches.run(one, (), samples, start, programs=self._programs, key=structure)


class SampleMap(Generic[R]):
    """A per-sample method lifted to data sets; see :func:`over_samples`."""

    def __init__(self, method: Callable[..., R], logits_fn: LogitsFn, batches: Batches):
        self._method, self._batches = method, batches
        self._calling = Calling(method)
        self._logits_fn = networks.as_pytree(logits_fn)
        # Keep programs of closures, which hold their weights, only as long as this object.
        self._own = Programs()

    def __call__(self, xs: Any, labels: Any, key: Array | None = None) -> R:
        """Run over all samples.

        Args:
          xs: inputs, (n, *shape).
          labels: classes, (n,).
          key: for methods that need one; the others ignore it.

        Returns:
          The method's result with a leading axis of n in every leaf, as NumPy arrays on every process.

        Raises:
          TypeError: if the method needs a key and gets none, labels are not integers, or inputs not floating-point.
          ValueError: if there are no samples, the numbers of inputs and labels differ, an input lies outside of the
            method's box or a label has no logit.
        """
        return _joined(self.batches(xs, labels, key))

    def batches(self, xs: Any, labels: Any, key: Array | None = None, start: int = 0) -> Iterator[tuple[slice, R]]:
        """Run batch by batch, so that a caller can store each before the next begins.

        Args:
          xs: inputs, (n, *shape).
          labels: classes, (n,).
          key: for methods that need one.
          start: first sample to run; a sample's key depends on its index alone, so that a run can be resumed.

        Yields:
          ``(slice, result)``: which samples, and their results as NumPy arrays.
        """
        key = self._calling.require_key(key)
        xs, labels = self._check(xs, labels)
        impl = None if key is None else jax.random.key_impl(key)
        # Convert the key to numbers, for the devices of other processes.
        key_data = np.zeros(0, np.uint32) if key is None else np.asarray(jax.random.key_data(key))
        shared = _Shared.of(self._method)
        is_pytree = networks.is_callable_pytree(self._logits_fn)
        arrays, static = networks.split(self._logits_fn) if is_pytree else ([], None)
        network = _of_weights(self._logits_fn, static)
        kept = static is not None and not static.holds_arrays()
        calling, rebuilt = self._calling, shared.rebuilt

        def call(known: Callable[..., R] | None, arrays: Any, x: Array, label: Array, index: Array) -> R:
            of_method, weights, key_data = arrays
            method = rebuilt(of_method) if known is None else known
            logits_fn = network(weights)
            if impl is None:
                return calling.call(method, logits_fn, x, label, None)
            # Derive one key per sample, whatever the batch: results do not depend on how samples were chunked or
            # sharded.
            key = jax.random.wrap_key_data(key_data, impl=impl)
            return calling.call(method, logits_fn, x, label, jax.random.fold_in(key, index))

        yield from self._batches.run(
            functools.partial(call, None) if shared.static else _weakly(self._method, call),
            (shared.arrays, arrays, key_data),
            (xs, labels, np.arange(len(xs), dtype=np.int32)),
            start,
            programs=Programs.of(shared.owner) if kept else self._own,
            key=(shared.static, static, impl),
        )

    def _check(self, xs: Any, labels: Any) -> tuple[np.ndarray, np.ndarray]:
        """Return samples and labels as arrays, and refuse invalid ones here, where values are known."""
        xs, labels = xs if hasattr(xs, "dtype") else np.asarray(xs), np.asarray(labels)
        if xs.ndim < 1 or len(xs) == 0 or labels.shape != (len(xs),):
            raise ValueError(
                "`xs` and `labels` must hold one entry per sample, (n, *shape) and (n,), got shapes"
                f" {xs.shape} and {labels.shape}."
            )
        # Convert as JAX would: without 64-bit mode, float64 inputs become float32; 16 bits become 32.
        xs = np.asarray(_checks.sample(xs))
        if not jnp.issubdtype(labels.dtype, jnp.integer):
            raise TypeError(f"`labels` must be integer class indices, got dtype {labels.dtype}.")
        ball = getattr(self._method, "ball", None)
        if ball is not None:
            ball.check_input(xs)
        classes = _checks.num_classes(self._logits_fn, xs[0])
        wrong = labels[(labels < 0) | (labels >= classes)]
        if wrong.size:
            raise ValueError(f"`labels` must be between 0 and {classes - 1} ({classes} logits), got {wrong[0]}.")
        return xs, labels.astype(np.int32)


# Errors of code that wants the value of an array which is not known while tracing.
_LOOKED_AT = (
    jax.errors.ConcretizationTypeError,
    jax.errors.TracerArrayConversionError,
    jax.errors.TracerIntegerConversionError,
)


class _Shared(NamedTuple):
    """What methods have in common that differ in their arrays alone: the program, which takes the arrays.

    Attributes:
      owner: the object that keeps the programs: the method, or the constructor of methods with arrays.
      arrays: of the method, arguments of the program.
      static: the rest of a method with arrays; ``None`` for others, which are a part of the program.
    """

    owner: Any
    arrays: list[Any]
    static: networks.Static | None = None

    @classmethod
    def of(cls, method: Any) -> "_Shared":
        """Take a method apart, if it has arrays and its constructor does with traced ones."""
        structure = _values.structure_of(method)
        if structure is None or not structure.shared:
            return cls(method, [])
        shared = cls(structure.build, *networks.split(method))
        try:
            jax.eval_shape(lambda arrays: [shared.rebuilt(arrays), 0][1], shared.arrays)
        # A constructor that looks at values: they are constants then.
        except _LOOKED_AT:
            return cls(method, [])
        return shared

    @property
    def rebuilt(self) -> Callable[[list[Any]], Any]:
        """Return the function from arrays, which may be traced, to the method; it holds no arrays itself."""
        return functools.partial(networks.merge, static=self.static)  # pyright: ignore[reportArgumentType]


def over_samples(
    method: Callable[..., R],
    logits_fn: LogitsFn,
    *,
    batch_size: int | None = None,
    memory: float | None = 2e9,
    progress: Progress = False,
    devices: Any = None,
) -> SampleMap[R]:
    """Lift a per-sample method to data sets: chunked to a memory budget, sharded over all devices of all processes.

    The call is the same for every kind of method: ``over_samples(method, logits_fn)(xs, labels, key)``. Sample i gets
    the key ``fold_in(key, i)``: the numbers do not depend on batch size, devices or processes (up to the rounding of
    differently batched products). Each process passes all samples and gets all results; it computes its share.

    A callable pytree (a ``jax.tree_util.Partial``, an Equinox module, an NNX module after ``eval()``, a registered
    dataclass, a bound linen module) passes its arrays as arguments of the compiled program, so that all checkpoints of
    an architecture share one compilation as long as the method lives; weights inside of a closure are compiled in, and
    freed with what this function returns. Arrays and random keys of a method are arguments, too, so that methods that
    differ in them alone, as in a sweep over baselines or keys of noise, share one compilation.

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
      A function ``(xs, labels, key=None) -> results`` with a method ``batches`` that yields batch by batch. A method
      that needs no key, such as an attribution, ignores one.

    Raises:
      TypeError: if one of the two is no function of the wanted kind, or they are swapped.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> import jaxattr as ja
      >>> saliency = ja.over_samples(ja.attributions.saliency(), lambda x: jnp.stack([x @ x, 0.0]))
      >>> saliency(jnp.full((3, 2), 0.5), jnp.zeros(3, int)).tolist()
      [[1.0, 1.0], [1.0, 1.0], [1.0, 1.0]]
    """
    _checks.method(method)
    _checks.network(logits_fn)
    return SampleMap(method, logits_fn, _batches(batch_size, memory, progress, devices))


def map_samples(
    function: Callable[..., R],
    *,
    batch_size: int | None = None,
    memory: float | None = 2e9,
    progress: Progress = False,
    devices: Any = None,
) -> ArrayMap[R]:
    """Lift a function of arrays, such as a metric, to data sets, as :func:`over_samples` lifts a method.

    It evaluates results of methods: metrics of two maps, radii of bounds, any function of the entries of one sample.

    Args:
      function: of one sample, ``(*arrays) -> pytree``; arguments may be pytrees, such as the results of a bound.
      batch_size: samples at once over all devices; by default as many as the memory budget allows, at most 128 a
        device.
      memory: budget per device in bytes for the temporaries and results of a batch; ``None`` to compile without
        looking.
      progress: ``True``, or a function ``(done, total)``.
      devices: devices to use; all by default.

    Returns:
      A function ``(*arrays) -> results`` of arrays (or pytrees of arrays) with a leading axis of n, with a method
      ``batches(*arrays, start=0)`` that yields batch by batch.

    Raises:
      TypeError: if ``function`` is none.
      ValueError: on call, if arrays differ in their numbers of samples, or there are none.

    Example:
      >>> import jax.numpy as jnp
      >>> import jaxattr as ja
      >>> before, after = jnp.array([[1.0, 2.0, 3.0], [3.0, 1.0, 2.0]]), jnp.array([[2.0, 4.0, 6.0], [1.0, 2.0, 3.0]])
      >>> ja.map_samples(ja.metrics.spearman)(before, after).round(3).tolist()
      [1.0, -0.5]
    """
    if not callable(function):
        raise TypeError(
            "`function` must be a function of the arrays of one sample, such as `jaxattr.metrics.kendall_tau`, got"
            f" {type(function).__name__}."
        )
    return ArrayMap(function, _batches(batch_size, memory, progress, devices))


def _batches(batch_size: int | None, memory: float | None, progress: Progress, devices: Any) -> Batches:
    if batch_size is not None:
        _checks.positive_int("batch_size", batch_size)
    if memory is not None:
        _checks.positive("memory", memory)
    return Batches(batch_size=batch_size, memory=memory, progress=progress, devices=devices)


def _of_weights(logits_fn: LogitsFn, static: networks.Static | None) -> Callable[[list[Any]], LogitsFn]:
    """Return the function from arrays to the network, which lets a cached program hold no weights of its network."""
    if static is None:
        return lambda _: logits_fn
    return functools.partial(networks.merge, static=static)


def _weakly(function: Callable[..., R], call: Callable[..., R]) -> Callable[..., R]:
    """Build ``call(function, ...)`` without keeping ``function`` alive: a program that it keeps would keep itself."""
    # The method of an object is made anew on every access, and dies at once.
    if getattr(function, "__self__", None) is not None:
        return lambda *arguments: call(function, *arguments)
    try:
        reference = weakref.ref(function)
    except TypeError:
        return lambda *arguments: call(function, *arguments)
    return lambda *arguments: call(reference(), *arguments)


def _joined(batches: Iterator[tuple[slice, R]]) -> R:
    parts = [part for _, part in batches]
    return jax.tree.map(lambda *leaves: np.concatenate(leaves), *parts)
