"""Record the history of a training run: in memory, as JSON Lines, and for TensorBoard."""

import json
import math
import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax

from jaxattr._files import write_atomic


class History:
    """A recorder of a training run: rows in memory, JSON Lines, TensorBoard, and a line on the screen.

    All processes keep the rows, and process 0 alone writes them.

    Args:
      rows: rows of the run that is continued, empty for a new one.
      log: the file, None for none.
      tensorboard: the directory, None for none.
      total: steps of the run.
      per_epoch: steps of an epoch.
      progress: print every row on the standard error stream.

    Raises:
      ImportError: if ``tensorboard`` is asked for and tensorboardX is not installed.
    """

    def __init__(
        self,
        rows: list[dict[str, Any]],
        log: str | os.PathLike | None,
        tensorboard: str | os.PathLike | None,
        total: int,
        per_epoch: int,
        progress: bool,
    ):
        self.rows = rows
        self.writes = jax.process_index() == 0
        self.log = Path(log) if log is not None and self.writes else None
        self.tensorboard = Path(tensorboard) if tensorboard is not None and self.writes else None
        self._summary_writer = None if tensorboard is None else _summary_writer()
        self._summaries: Any = None
        self.total, self.per_epoch, self.progress = total, per_epoch, progress
        self.began = time.perf_counter()

    def open(self, start: int, resumable: bool) -> None:
        """Cut the log back to the steps of the checkpoint; refuse a file that is no such log.

        Args:
          start: steps that the checkpoint has, 0 for none.
          resumable: whether there are checkpoints, so that an existing log can be that of this run.

        Raises:
          FileExistsError: if there is a log, or curves, and the run could not have been continued.
          ValueError: if the file of that name is something else.
        """
        if self.log is not None:
            self._open_log(self.log, resumable)
        if self.tensorboard is not None and self._summary_writer is not None:
            drawn = len(list(self.tensorboard.glob("events.out.tfevents.*")))
            if drawn and not resumable:
                raise FileExistsError(f"{self.tensorboard} holds the curves of a run; remove it or choose another.")
            # Curves that a killed run drew beyond its last checkpoint are hidden. The package names its files by the
            # second: without a number of its own, a run that goes on within that second would overwrite its beginning.
            purge = start + 1 if drawn else None
            suffix = f".{drawn}"
            self._summaries = self._summary_writer(str(self.tensorboard), purge_step=purge, filename_suffix=suffix)

    def _open_log(self, log: Path, resumable: bool) -> None:
        if log.exists():
            if not resumable:
                raise FileExistsError(f"the log {log} exists; remove it or choose another.")
            # A killed run may have left half a line at the end.
            for line in log.read_text().split("\n")[:-1]:
                if not _is_row(line):
                    raise ValueError(f"{log} is no log of training: {line[:60]!r}.")
        write_atomic(log, lambda temporary: temporary.write_text("".join(map(_to_line, self.rows))))

    def close(self) -> None:
        """Finish the curves; the log is complete after every line."""
        if self._summaries is not None:
            self._summaries.close()

    def __enter__(self) -> "History":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def write(self, step: int, values: Mapping[str, Any]) -> None:
        """Add a row of numbers."""
        numbers = {name: float(value) for name, value in values.items()}
        row = {"step": step, "epoch": round(step / self.per_epoch, 4)} | numbers
        row["seconds"] = round(time.perf_counter() - self.began, 3)
        self.rows.append(row)
        if self.log is not None:
            with self.log.open("a") as file:
                file.write(_to_line(row))
        if self._summaries is not None:
            for name, value in numbers.items():
                self._summaries.add_scalar(name, value, step)
            self._summaries.flush()
        if self.progress and self.writes:
            shown = "  ".join(f"{name} {value:.4g}" for name, value in list(row.items())[1:])
            print(f"step {step}/{self.total}  {shown}", file=sys.stderr, flush=True)


def _summary_writer() -> Any:
    try:
        from tensorboardX import SummaryWriter  # noqa: PLC0415  (an option)  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise ImportError(
            "`tensorboard` needs the package tensorboardX (no TensorFlow), which is not installed: "
            "pip install tensorboardX, or leave the option out."
        ) from error
    return SummaryWriter


def _to_line(row: Mapping[str, Any]) -> str:
    # JSON has no NaN, so that null stands for numbers that are not finite.
    return json.dumps({k: v if math.isfinite(v) else None for k, v in row.items()}) + "\n"


def _is_row(line: str) -> bool:
    try:
        row = json.loads(line)
    except ValueError:
        return False
    return isinstance(row, dict) and "step" in row
