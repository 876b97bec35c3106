"""Compute an audit: bound and attack every sample, and store one row per sample, radius, bound and attack.

A killed run goes on where it was: what is lost is at most the batch that each worker had in flight.
"""

import contextlib
import functools
import json
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

import jaxattr as ja
from jaxattr.audit import networks, spec
from jaxattr.audit.measure import attack_program, bounds_program, compare_program, rank_program
from jaxattr.audit.rows import batch_rows
from jaxattr.audit.run_directory import write_text
from jaxattr.audit.spec import Measures, norms
from jaxattr.audit.store import Cell, Store
from jaxattr.audit.workers import run_all, stopped
from jaxattr.parallel import on_first

log = logging.getLogger(__name__)

LoadData = Callable[[Any], Any]
"""``load_data(config) -> samples`` with ``x`` and ``label``: a function of a module, which workers can import."""


def compute(
    store: Store,
    models: Sequence[str],
    load_data: LoadData,
    pairs: Sequence[tuple[str, str]] | None = None,
) -> None:
    """Compute the rows of an audit, or the missing rest of them.

    Args:
      store: of the run, whose directory has the networks under ``models/NAME`` (:mod:`jaxattr.audit.networks`).
      models: names of the networks.
      load_data: from the configuration to the samples.
      pairs: pairs of attribution and norm whose rows are wanted; by default all of the configuration.

    Raises:
      ValueError: if a network has kinks and they are not allowed.
      jaxattr.audit.run_directory.StoreError: if a cell holds rows of something else.
    """
    config = store.config
    for model in models:
        networks.count_kinks(store.directory / "models" / model, config.kinks)
    if pairs is None:
        # Start with the most expensive pair, so that no process is left alone with it at the end.
        pairs = [(label, norm) for label in reversed(spec.attributions(config)) for norm in norms(config)]

    def take() -> int:
        for model in models:
            weights = networks.load(store.directory / "models" / model).weights
            for pair in pairs:
                store.cell(model, weights, *pair).open()
        return 0

    # Find rows of other methods now, and not after hours of the first cell.
    on_first(take)
    with stage(store.directory, "bounds and attacks"):
        tasks = [(store.directory, config, tuple(models), load_data, *pair) for pair in pairs]
        run_all(run_pair, tasks, processes(config))


def first_correct(network: networks.Network, data: Any, config: Measures) -> np.ndarray:
    """Return the indices of the first samples, in the data set's order, that the network classifies correctly.

    Raises:
      ValueError: if there are none.
    """
    correct = np.empty(0, int)
    at_once = min(128, len(data))
    # Rounding decides the class of samples near the border, and a run may go on where rounding is coarser.
    with jax.default_matmul_precision("highest"):
        for where, logits in ja.over_samples(_logits, network.logits_fn, batch_size=at_once).batches(
            data.x, data.label
        ):
            right = ja.accuracy.predicted(logits) == data.label[where]
            correct = np.append(correct, where.start + np.flatnonzero(right))
            if config.num_samples is not None and len(correct) >= config.num_samples:
                break
    correct = correct[: config.num_samples]
    if len(correct) == 0:
        raise ValueError(f"the network {network.name} classifies no test sample correctly; train it for longer.")
    if config.num_samples is not None and len(correct) < config.num_samples:
        log.warning("%s: only %d of %d samples are correct", network.name, len(correct), config.num_samples)
    return correct


class Programs(NamedTuple):
    """The programs of one attribution and norm, which all models share: weights are an argument."""

    bounds: Callable[..., Any]
    attacks: Callable[..., Any]
    ranks: Callable[..., Any]
    compare: ja.samples.ArrayMap

    @classmethod
    def of(cls, attribution: str, norm: str, config: Measures) -> "Programs":
        """Build the programs; they are compiled with their first batch."""
        given = attribution, norm, norms(config)[norm], config
        return cls(bounds_program(*given), attack_program(*given), rank_program(*given), _comparison(config))


def run_pair(
    directory: Path, config: Measures, models: Sequence[str], load_data: LoadData, attribution: str, norm: str
) -> None:
    """Compute one attribution under one norm for all models, until all are done or the run is stopped."""
    store = Store(directory, type(config), config)
    data = load_data(config)
    programs = Programs.of(attribution, norm, config)
    compiled = False
    for model in models:
        network = networks.load(store.directory / "models" / model)
        samples = first_correct(network, data, config)
        cell = store.cell(network.name, network.weights, attribution, norm)
        name = f"{attribution}, {norm}, {network.name}"
        began = time.perf_counter()
        for where, result in _results(cell, network, programs, data, samples, config):
            # The first batch includes minutes of compilation, and says nothing about the others.
            if not compiled:
                result["seconds"] = dict.fromkeys(result["seconds"], np.nan)
            compiled = True
            if jax.process_index() == 0:
                chosen = samples[where]
                _save_pictures(store, cell, where, data.x[chosen], result, config)
                given = cell.columns, norms(config)[norm], where, chosen, data.label[chosen], result, config
                cell.write(where, batch_rows(*given))
            log.info("%s: %d of %d samples, %.1f s", name, where.stop, len(samples), time.perf_counter() - began)
            if stopped():
                return


def _results(
    cell: Cell, network: networks.Network, programs: Programs, data: Any, samples: np.ndarray, config: Measures
) -> Iterator[tuple[slice, dict[str, Any]]]:
    """Yield the results of a cell's missing samples, batch by batch; the cell is locked meanwhile."""
    lifted = {
        kind: ja.over_samples(program, network.logits_fn, batch_size=config.batch_size)
        for kind, program in (("bounds", programs.bounds), ("attacks", programs.attacks))
    }
    # Guarantees take d^3 operations and d^2 numbers per sample: compute a few at a time.
    guaranteed = ja.over_samples(programs.ranks, network.logits_fn, batch_size=min(4, config.batch_size))
    xs, labels, key = data.x[samples], data.label[samples], jax.random.key(config.seed)
    # TF32 has relative errors of 1e-3, which changes which attacks seem to exceed a bound.
    with contextlib.ExitStack() as stack, jax.default_matmul_precision("highest"):
        gaps = _take(stack, cell, samples.tolist())
        done = len(samples) - sum(gap.stop - gap.start for gap in gaps)
        if done:
            log.info("%s: %d of %d samples were stored before, skipped", cell.directory, done, len(samples))
        for where, result, seconds in _batches(lifted, gaps, xs, labels, key):
            attacks = _metrics(programs.compare, result)
            ranks = _ranks(guaranteed, where, xs, labels, config)
            yield where, {**result, "attacks": attacks, "ranks": ranks, "size": xs[0].size, "seconds": seconds}


def _take(stack: contextlib.ExitStack, cell: Cell, samples: list[int]) -> list[slice]:
    """Lock a cell and find its missing samples on process 0, and return them on all processes."""
    gaps: list[slice] = []

    def take() -> int:
        stack.enter_context(cell.locked())
        gaps.extend(cell.missing(samples))
        return len(gaps)

    ends = range(on_first(take))
    begins, stops = ([on_first(lambda i=i, of=of: getattr(gaps[i], of)) for i in ends] for of in ("start", "stop"))
    return list(map(slice, begins, stops))


def _batches(
    lifted: Mapping[str, ja.samples.SampleMap], gaps: Sequence[slice], xs: np.ndarray, labels: np.ndarray, key: Any
) -> Iterator[tuple[slice, dict[str, Any], dict[str, float]]]:
    """Yield bounds and attacks of the missing samples, batch by batch, with each program's seconds per sample."""
    for gap in gaps:
        each = {
            kind: _timed(program.batches(xs[: gap.stop], labels[: gap.stop], key, start=gap.start))
            for kind, program in lifted.items()
        }
        for (where, bounds, bound_seconds), (_, attacks, attack_seconds) in zip(*each.values(), strict=True):
            yield where, _joined(bounds, attacks), {"bounds": bound_seconds, "attacks": attack_seconds}


def _timed(batches: Iterator[tuple[slice, Any]]) -> Iterator[tuple[slice, Any, float]]:
    """Yield batches with the seconds per sample that each took."""
    while True:
        began = time.perf_counter()
        try:
            where, result = next(batches)
        except StopIteration:
            return
        yield where, result, (time.perf_counter() - began) / (where.stop - where.start)


def _joined(bounds: dict[str, Any], attacks: dict[str, Any]) -> dict[str, Any]:
    """Join the results of two programs: the points that the bounds name become the last attacks."""
    points = bounds.pop("points")
    return {**bounds, **{name: np.concatenate([attacks[name], points[name]], axis=2) for name in attacks}}


def _ranks(
    lifted: ja.samples.SampleMap, where: slice, xs: np.ndarray, labels: np.ndarray, config: Measures
) -> dict[str, np.ndarray]:
    """Compute guaranteed ranks of a batch, (samples, radii): for the run's first samples, NaN for the others."""
    count = min(max(0, config.rank_samples - where.start), where.stop - where.start)
    if not count or xs[0].size > config.max_dense_features:
        return {}
    chosen = slice(where.start, where.start + count)
    found = lifted(xs[chosen], labels[chosen], jax.random.key(0))
    missing = where.stop - where.start - count
    return {name: np.pad(value, ((0, missing), (0, 0)), constant_values=np.nan) for name, value in found.items()}


def processes(config: Measures) -> int:
    """Return the number of processes on this machine: more than one only on CPU cores, which they can share."""
    if config.workers > 1 and jax.default_backend() != "cpu":
        log.info("one process, not %d: an accelerator is not shared", config.workers)
        return 1
    return config.workers if jax.process_count() == 1 else 1


@functools.lru_cache
def _comparison(config: Measures) -> ja.samples.ArrayMap:
    """Lift the metrics once for all attributions and norms of a run."""
    return ja.map_samples(compare_program(config), batch_size=config.batch_size)


def _metrics(compare: ja.samples.ArrayMap, result: dict[str, Any]) -> dict[str, np.ndarray]:
    """Compute the metrics of all maps of a batch, (samples, radii, attacks), and add the attacks' own reports."""
    maps, before = result["maps"], result["before"]
    n, radii, attacks = maps.shape[:3]
    # Two programs, which round differently, made the maps before and after: an input that did not move has no change.
    moved = (result["distance"] != 0).reshape(n, radii, attacks, *(1 for _ in before.shape[1:]))
    maps = np.where(moved, maps, before[:, None, None])
    stacked = np.concatenate([before[:, None], maps.reshape(n, radii * attacks, *before.shape[1:])], axis=1)
    values = compare(stacked)
    shaped = {name: value.reshape(n, radii, attacks) for name, value in values.items()}
    return {**shaped, "label_kept": result["label_kept"], "distance": result["distance"]}


def _save_pictures(store: Store, cell: Any, where: slice, xs: np.ndarray, result: Any, config: Measures) -> None:
    """Keep images and maps of the run's first samples, at the largest radius.

    Args:
      store: of the run.
      cell: the samples' cell.
      where: positions of the samples in the run.
      xs: the samples.
      result: of the batch.
      config: says how many.
    """
    count = min(config.pictures, where.stop) - where.start
    if count <= 0:
        return
    largest = int(np.argmax(norms(config)[cell.columns["norm"]]))
    deviation, kept = (result["attacks"][name][:count, largest] for name in ("euclidean", "label_kept"))
    # Show the strongest attack that keeps the label, or the strongest of all if none does.
    worst = np.where(kept | ~kept.any(axis=1, keepdims=True), deviation, -1).argmax(axis=1)
    rows = np.arange(count)
    arrays = {
        "image": xs[:count],
        "before": result["before"][:count],
        "perturbed": result["perturbed"][rows, largest, worst],
        "after": result["maps"][rows, largest, worst],
        "degrees": result["attacks"]["degrees"][rows, largest, worst],
        **{label: result["attacks"][label][rows, largest, worst] for label in spec.metrics(config)},
    }
    store.save_pictures(cell, where, arrays)


def _logits(logits_fn, x, _):
    return logits_fn(x)


@contextlib.contextmanager
def stage(directory: Path, name: str) -> Iterator[None]:
    """Log a stage, and add its seconds to those of earlier tries."""
    log.info("%s ...", name)
    began = time.perf_counter()
    try:
        yield
    finally:
        seconds = time.perf_counter() - began
        log.info("%s: %.1f s", name, seconds)
        if jax.process_index() == 0:
            path = directory / "timings.json"
            timings = json.loads(path.read_text()) if path.exists() else {}
            timings[name] = round(timings.get(name, 0) + seconds, 1)
            write_text(path, json.dumps(timings, indent=2) + "\n")
