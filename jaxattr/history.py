"""The history of a training run, in memory and as JSON Lines."""

import json
import math
import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax


class History:
    """What a training run writes down: rows in memory, JSON Lines, and a line on the screen.

    Args:
      rows: of the run that is continued, empty for a new one.
      log: the file, None for none. Process 0 writes it.
      total: steps of the run.
      per_epoch: steps of an epoch.
      progress: print every row on the standard error stream.
    """

    def __init__(
        self,
        rows: list[dict[str, Any]],
        log: str | os.PathLike | None,
        total: int,
        per_epoch: int,
        progress: bool,
    ):
        self.rows = rows
        self.log = Path(log) if log is not None and jax.process_index() == 0 else None
        self.total, self.per_epoch, self.progress = total, per_epoch, progress
        self.began = time.perf_counter()

    def open(self, resumable: bool) -> None:
        """Cut the log back to what the checkpoint knows; refuse a file that is no such log.

        Raises:
          FileExistsError: if there is a log and the run could not have been continued.
          ValueError: if the file of that name is something else.
        """
        if self.log is None:
            return
        if self.log.exists():
            if not resumable:
                raise FileExistsError(f"the log {self.log} exists; remove it or choose another.")
            # A killed run may have left half a line at the end.
            for line in self.log.read_text().split("\n")[:-1]:
                if not _is_row(line):
                    raise ValueError(f"{self.log} is no log of training: {line[:60]!r}.")
        self.log.parent.mkdir(parents=True, exist_ok=True)
        temporary = self.log.with_name(f".{self.log.name}.tmp")
        temporary.write_text("".join(map(_to_line, self.rows)))
        temporary.replace(self.log)

    def write(self, step: int, values: Mapping[str, Any]) -> None:
        """Add a row of numbers."""
        row = {"step": step, "epoch": round(step / self.per_epoch, 4)}
        row |= {name: float(value) for name, value in values.items()}
        row["seconds"] = round(time.perf_counter() - self.began, 3)
        self.rows.append(row)
        if self.log is not None:
            with self.log.open("a") as file:
                file.write(_to_line(row))
        if self.progress and jax.process_index() == 0:
            shown = "  ".join(f"{name} {value:.4g}" for name, value in list(row.items())[1:])
            print(f"step {step}/{self.total}  {shown}", file=sys.stderr, flush=True)


def _to_line(row: Mapping[str, Any]) -> str:
    # JSON has no NaN.
    return json.dumps({k: v if math.isfinite(v) else None for k, v in row.items()}) + "\n"


def _is_row(line: str) -> bool:
    try:
        row = json.loads(line)
    except ValueError:
        return False
    return isinstance(row, dict) and "step" in row
