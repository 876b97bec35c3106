"""Write the values of a training run as it goes: as JSON Lines, for TensorBoard, on the screen."""

import json
import math
import os
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from jaxattr._files import write_atomic


class Run(NamedTuple):
    """The run that a writer is opened for.

    Attributes:
      step: updates made before, 0 for a new run.
      total: updates of the whole run.
      resumable: whether the run keeps checkpoints, so that a file that is there can be its own.
      rows: the rows written before, of which a file may have more: those that a killed process wrote after its last
        checkpoint are written again.
    """

    step: int
    total: int
    resumable: bool
    rows: Sequence[Mapping[str, Any]]


class Writer(Protocol):
    """The interface of a writer, which receives the values of a training run as it goes.

    :func:`fit` calls ``open`` once, then ``write`` for every row of the history, and ``close`` at the end, after an
    error, too. With several processes, process 0 alone calls them. A subclass needs ``write`` alone. One for Weights &
    Biases::

        class WandB(ja.training.Writer):
            def open(self, run):
                self.run = wandb.init(project="robust", resume="allow")

            def write(self, step, values):
                self.run.log(dict(values), step=step)

    Example:
      >>> class Losses(Writer):
      ...     def __init__(self):
      ...         self.found = []
      ...
      ...     def write(self, step, values):
      ...         self.found.append((step, values["loss"]))
      >>> losses = Losses()
      >>> losses.write(50, {"epoch": 1.0, "loss": 0.5, "seconds": 3.0})
      >>> losses.found
      [(50, 0.5)]
    """

    def open(self, run: Run) -> None:
        """Begin, or continue where ``run.step`` updates were made before.

        Raises:
          FileExistsError: if something would be overwritten.
        """
        del run

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Write what was measured after ``step`` updates: ``epoch``, the numbers, ``seconds`` of this process."""
        raise NotImplementedError

    def close(self) -> None:
        """End."""
        return


class JsonLines(Writer):
    """A log of one JSON object per line: ``step``, ``epoch``, the numbers, ``seconds``.

    JSON has no NaN, so that null stands for numbers that are not finite. Where a run is continued, its lines after the
    checkpoint are dropped: the log then is that of a run that was never interrupted.

    Args:
      path: the file; its folder is made if absent.

    Raises:
      FileExistsError: by ``open``, if there is a file and the run keeps no checkpoints to continue from.
      ValueError: by ``open``, if the file is no such log.
    """

    def __init__(self, path: str | os.PathLike):
        self.path = Path(path)

    def open(self, run: Run) -> None:
        """Cut the log back to the rows of the checkpoint; refuse a file that is no such log."""
        if self.path.exists():
            if not run.resumable:
                raise FileExistsError(f"the log {self.path} exists; remove it or choose another.")
            # A killed run may have left half a line at the end.
            for line in self.path.read_text().split("\n")[:-1]:
                if not _is_row(line):
                    raise ValueError(f"{self.path} is no log of training: {line[:60]!r}.")
        write_atomic(self.path, lambda temporary: temporary.write_text("".join(map(_to_line, run.rows))))

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Append a line; the log is complete after every line."""
        with self.path.open("a") as file:
            file.write(_to_line({"step": step, **values}))


class TensorBoard(Writer):
    """Curves of everything that is logged, for TensorBoard.

    Args:
      directory: made if absent.

    Raises:
      ImportError: if tensorboardX is not installed.
      FileExistsError: by ``open``, if there are curves and the run keeps no checkpoints to continue from.
    """

    def __init__(self, directory: str | os.PathLike):
        self.directory = Path(directory)
        self._summary_writer = _summary_writer()
        self._summaries: Any = None

    def open(self, run: Run) -> None:
        """Begin curves, or hide those that a killed run drew beyond its last checkpoint."""
        drawn = len(list(self.directory.glob("events.out.tfevents.*")))
        if drawn and not run.resumable:
            raise FileExistsError(f"{self.directory} holds the curves of a run; remove it or choose another.")
        purge = run.step + 1 if drawn else None
        # The package names its files by the second: without a number of its own, a run that goes on within that second
        # would overwrite its beginning.
        self._summaries = self._summary_writer(str(self.directory), purge_step=purge, filename_suffix=f".{drawn}")

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Add a point to each curve; a step has its epoch and its time already."""
        for name, value in values.items():
            if name not in ("epoch", "seconds"):
                self._summaries.add_scalar(name, value, step)
        self._summaries.flush()

    def close(self) -> None:
        """Close the files."""
        if self._summaries is not None:
            self._summaries.close()


class Progress(Writer):
    """A line on the standard error stream for everything that is logged."""

    def __init__(self):
        self._total = 0

    def open(self, run: Run) -> None:
        """Note the length of the run."""
        self._total = run.total

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Print a line."""
        shown = "  ".join(f"{name} {value:.4g}" for name, value in values.items())
        print(f"step {step}/{self._total}  {shown}", file=sys.stderr, flush=True)


class History:
    """The rows of a run, which are handed on to its writers.

    Args:
      rows: the rows of the run that is continued, empty for a new one.
      writers: opened already.
      per_epoch: steps of an epoch.
    """

    def __init__(self, rows: list[dict[str, Any]], writers: Sequence[Writer], per_epoch: int):
        self.rows = rows
        self._writers = writers
        self._per_epoch = per_epoch
        self._began = time.perf_counter()

    def write(self, step: int, values: Mapping[str, Any]) -> None:
        """Add a row of numbers."""
        numbers = {name: float(value) for name, value in values.items()}
        seconds = round(time.perf_counter() - self._began, 3)
        values = {"epoch": round(step / self._per_epoch, 4), **numbers, "seconds": seconds}
        self.rows.append({"step": step, **values})
        for writer in self._writers:
            writer.write(step, values)


def _summary_writer() -> Any:
    try:
        from tensorboardX import SummaryWriter  # noqa: PLC0415  (an option)  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise ImportError(
            "`TensorBoard` needs the package tensorboardX (no TensorFlow), which is not installed: "
            "pip install tensorboardX, or leave this writer out."
        ) from error
    return SummaryWriter


def _to_line(row: Mapping[str, Any]) -> str:
    return json.dumps({k: v if math.isfinite(v) else None for k, v in row.items()}) + "\n"


def _is_row(line: str) -> bool:
    try:
        row = json.loads(line)
    except ValueError:
        return False
    return isinstance(row, dict) and "step" in row
