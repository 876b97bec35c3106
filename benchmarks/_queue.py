"""Run a queue of jobs within a time budget: measurements in one worker process at a time, trainings in several.

Each job is a function of a :class:`Context` that returns a dictionary. ``OUTPUT/JOB.json`` stores it, and the next call
of the queue finds it there. A job that raises, crashes its process or takes too long is recorded there, and the others
go on in a new process.
"""

import dataclasses
import importlib
import json
import multiprocessing
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

_PARENT_CHECK = 2.0
_TICK = 0.2


@dataclasses.dataclass(frozen=True)
class Job:
    """A job of the queue.

    Attributes:
      name: name of the job and of its file of results; letters, digits, hyphens and underscores.
      function: ``"module:function"``, imported in the worker.
      seconds: time limit.
      least: seconds that must be left for it to start.
      alone: whether nothing else runs beside it.
      needs: packages that it cannot run without.
      options: keyword arguments of the function.
    """

    name: str
    function: str
    seconds: float
    least: float = 5.0
    alone: bool = True
    needs: tuple[str, ...] = ()
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass
class Context:
    """The settings and the time limit that a job receives.

    Attributes:
      folder: folder of all results.
      name: name of the job.
      size: ``"full"`` or ``"tiny"``.
      data_dir: folder of the data sets.
      seconds: time until it is stopped.
      share: seconds that it may plan for: more than ``seconds`` if another call of the queue will go on with it.
      before: result that an earlier call of the same job saved.
    """

    folder: Path
    name: str
    size: str
    data_dir: str | None
    seconds: float
    share: float
    before: dict[str, Any]
    started: float = dataclasses.field(default_factory=time.monotonic)

    @property
    def tiny(self) -> bool:
        """Whether the job should compute everything at its smallest size."""
        return self.size == "tiny"

    @property
    def left(self) -> float:
        """Seconds until the job is stopped."""
        return self.seconds - (time.monotonic() - self.started)

    def save(self, result: Mapping[str, Any]) -> None:
        """Store the result so far: a job that is stopped loses the rest alone."""
        _write(self.folder, self.name, {"status": "stopped", "result": dict(result)})


def read(folder: Path, name: str) -> dict[str, Any]:
    """Return the record of a job; empty if it is absent or damaged."""
    try:
        return json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


def _write(folder: Path, name: str, record: Mapping[str, Any]) -> None:
    path = folder / f"{name}.json"
    draft = folder / f".{name}.{os.getpid()}.tmp"
    draft.write_text(json.dumps({"job": name, **record}, indent=1, default=float) + "\n", encoding="utf-8")
    draft.replace(path)


class _Worker:
    """A process that does one job after the other."""

    def __init__(self, index: int, folder: Path, size: str, data_dir: str | None, environment: Mapping[str, str]):
        self.index, self.folder = index, folder
        self.job: Job | None = None
        self.deadline = self.began = 0.0
        context = multiprocessing.get_context("spawn")
        self._ours, theirs = context.Pipe()
        arguments = (theirs, os.getpid(), folder, size, data_dir, folder / f"worker-{index}.log", dict(environment))
        self._process = context.Process(target=_work, args=arguments, daemon=True)
        self._process.start()
        theirs.close()

    def begin(self, job: Job, seconds: float, share: float) -> None:
        """Start a job."""
        self.job, self.began, self.deadline = job, time.monotonic(), time.monotonic() + seconds
        self._ours.send((job, seconds, share))

    def outcome(self) -> tuple[str, Any] | None:
        """Return ``(status, result or words)`` of a job that has ended, None while it runs."""
        try:
            if self._ours.poll():
                return self._ours.recv()
        except (EOFError, OSError):
            self._process.join(5)
            return "failed", f"the process ended with status {self._process.exitcode}"
        if time.monotonic() > self.deadline:
            self.stop()
            return "stopped", f"stopped after {time.monotonic() - self.began:.0f} s"
        return None

    @property
    def alive(self) -> bool:
        """Whether the process takes more jobs."""
        return self._process.is_alive() and not self._ours.closed

    def stop(self) -> None:
        """End the process, whatever it does."""
        self._process.kill()
        self._process.join(10)
        self._ours.close()


def _work(
    connection: Any, parent: int, folder: Path, size: str, data_dir: str | None, log: Path, environment: dict[str, str]
) -> None:
    """Run the worker's main loop."""
    os.environ.update(environment)
    with log.open("a", encoding="utf-8") as stream:
        os.dup2(stream.fileno(), 1)
        os.dup2(stream.fileno(), 2)
    sys.stdout.reconfigure(line_buffering=True)  # pyright: ignore[reportAttributeAccessIssue]

    def watch() -> None:
        # A worker whose queue was killed must not go on writing to its folder.
        while os.getppid() == parent:
            time.sleep(_PARENT_CHECK)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
    while True:
        try:
            job, seconds, share = connection.recv()
        except EOFError:
            return
        print(f"--- {job.name}, {seconds:.0f} s", flush=True)
        record = read(folder, job.name)
        context = Context(folder, job.name, size, data_dir, seconds, share, record.get("result") or {})
        try:
            module, _, name = job.function.partition(":")
            function: Callable[..., Any] = getattr(importlib.import_module(module), name)
            outcome = "done", function(context, **job.options)
        except Exception as error:
            traceback.print_exc()
            outcome = "failed", f"{type(error).__name__}: {error}"[:2000]
        connection.send(outcome)


class Queue:
    """A queue that runs jobs in order of worth until the time is over.

    Args:
      jobs: the first is worth most.
      folder: folder of results.
      size: ``"full"`` or ``"tiny"``.
      data_dir: folder of the data sets.
      workers: number of processes that train at the same time.
      environment: variables of the workers.
      again: whether another call will finish the remaining jobs.
      after: function that is called after each job.
    """

    def __init__(
        self,
        jobs: Sequence[Job],
        folder: Path,
        *,
        size: str,
        data_dir: str | None,
        workers: int,
        environment: Mapping[str, str],
        again: bool = False,
        after: Callable[[], None] = lambda: None,
    ):
        self.jobs, self.folder, self.size, self.data_dir = jobs, folder, size, data_dir
        self.workers, self.environment, self.again, self.after = workers, environment, again, after

    def run(self, budget: float) -> dict[str, str]:
        """Run jobs until all are done or the budget, in seconds, is spent; return the status of each job by name."""
        end = time.monotonic() + budget
        status = {job.name: read(self.folder, job.name).get("status", "not started") for job in self.jobs}
        waiting = [job for job in self.jobs if status[job.name] != "done"]
        pool: list[_Worker] = []
        try:
            while waiting or any(worker.job for worker in pool):
                self._collect(pool, status)
                self._start(pool, waiting, status, end)
                if not any(worker.job for worker in pool):
                    break
                time.sleep(_TICK)
        finally:
            for worker in pool:
                worker.stop()
        return status

    def _start(self, pool: list[_Worker], waiting: list[Job], status: dict[str, str], end: float) -> None:
        while waiting:
            job, left = waiting[0], end - time.monotonic()
            busy = [worker for worker in pool if worker.job]
            if left < job.least:
                # A shorter job may still fit.
                waiting.pop(0)
                continue
            if busy and (job.alone or len(busy) >= self.workers or any(w.job and w.job.alone for w in busy)):
                return
            free = next((worker for worker in pool if not worker.job and worker.alive), None)
            if free is None:
                free = _Worker(len(pool), self.folder, self.size, self.data_dir, self.environment)
                pool.append(free)
            seconds = min(job.seconds, left)
            status[job.name] = "running"
            print(f"{job.name}: at most {seconds:.0f} s of {left:.0f}", flush=True)
            free.begin(waiting.pop(0), seconds, job.seconds if self.again else seconds)

    def _collect(self, pool: list[_Worker], status: dict[str, str]) -> None:
        for worker in pool:
            outcome = worker.outcome() if worker.job else None
            if outcome is None or worker.job is None:
                continue
            job, worker.job = worker.job, None
            status[job.name], what = outcome
            record: dict[str, Any] = {"status": outcome[0], "seconds": round(time.monotonic() - worker.began, 1)}
            if outcome[0] == "done":
                record["result"] = what
            else:
                # Keep the result that the job saved before.
                record |= {"error": what, "result": read(self.folder, job.name).get("result", {})}
            _write(self.folder, job.name, record)
            words = "" if outcome[0] == "done" else f": {what.splitlines()[0] if what else ''}"
            print(f"{job.name}: {outcome[0]}, {record['seconds']} s{words}", flush=True)
            self.after()
