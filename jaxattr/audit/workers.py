"""Run tasks on several processes: on CPU cores, a short run mostly traces and compiles, which use one core each.

Processes and not threads: XLA's CPU client shares one pool of threads among all programs of a process, and two
programs that run at the same time can wait for each other forever.
"""

import concurrent.futures
import contextlib
import logging
import multiprocessing
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from jaxattr.audit import plugins

log = logging.getLogger(__name__)

_stop: Any = None


def stopped() -> bool:
    """Whether this task should end at its next batch: another one failed, or the parent process is gone."""
    parent = multiprocessing.parent_process()
    return (_stop is not None and _stop.is_set()) or (parent is not None and not parent.is_alive())


def run_all(function: Callable[..., None], tasks: Iterable[Sequence[Any]], workers: int) -> None:
    """Call ``function(*task)`` for all tasks, on ``workers`` processes, or here if that is one.

    The first error ends the other tasks at their next batch, and is raised here.
    """
    tasks = list(tasks)
    workers = min(workers, len(tasks))
    if workers <= 1:
        for task in tasks:
            function(*task)
        return
    context = multiprocessing.get_context("spawn")
    stop = context.Event()
    with (
        _threads_each(workers),
        concurrent.futures.ProcessPoolExecutor(workers, context, _begin, (stop, _began())) as pool,
    ):
        futures = [pool.submit(function, *task) for task in tasks]
        try:
            for future in concurrent.futures.as_completed(futures):
                future.result()
        except BaseException:
            stop.set()
            pool.shutdown(cancel_futures=True)
            raise


@contextlib.contextmanager
def _threads_each(workers: int) -> Iterator[None]:
    """Give processes that are started meanwhile a share of the cores for LAPACK, unless the user has set one.

    OpenBLAS, which JAX takes from SciPy, starts a thread a core in every process, and those of one wait for those of
    another: with two processes on two cores the eigenvalues of 784 features took six times as long.
    """
    name = "OPENBLAS_NUM_THREADS"
    if name in os.environ:
        yield
        return
    os.environ[name] = str(max(1, (os.cpu_count() or 1) // workers))
    try:
        yield
    finally:
        del os.environ[name]


def log_to_stderr(began: float | None = None) -> None:
    """Show messages of audits and experiments with the seconds since ``began``, by default the start."""
    since = _began() if began is None else began

    class Elapsed(logging.Formatter):
        def format(self, record: logging.LogRecord) -> str:
            return f"[{record.created - since:6.1f} s] {record.getMessage()}"

    handler = logging.StreamHandler()
    handler.setFormatter(Elapsed())
    for name in ("jaxattr.audit", "experiments"):
        logger = logging.getLogger(name)
        for earlier in list(logger.handlers):
            logger.removeHandler(earlier)
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
        logger.propagate = False


def _began() -> float:
    """Return the time at which this process began to log."""
    record = logging.makeLogRecord({})
    return record.created - record.relativeCreated / 1000


def _begin(stop: Any, began: float) -> None:
    global _stop  # noqa: PLW0603
    _stop = stop
    log_to_stderr(began)
    plugins.load()
