"""Store rows on disk as Parquet parts per cell, under one configuration, so that a killed run can go on.

    DIRECTORY/run.json                                  the resolved configuration, its hash, versions, device
    DIRECTORY/rows/MODEL/ATTRIBUTION/NORM/BEGIN-END.parquet   one part per batch
    DIRECTORY/pictures/MODEL-ATTRIBUTION-NORM-BEGIN.npz   images and maps of the first samples

A part appears under its name only when it is complete. Nothing that is not the run's own is overwritten. The next
command computes the gaps between parts; a cell is locked while its rows are computed.
"""

import contextlib
import dataclasses
import itertools
import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import filelock
import numpy as np
import polars as pl

from experiments.config import Config
from experiments.record import StoreError, from_dict, on_first, open_run, write_atomic
from experiments.rows import REQUIRED, SCHEMA

log = logging.getLogger(__name__)

_PART = re.compile(r"(\d{6})-(\d{6})\.parquet")
_LOCK = ".lock"
_TEMPORARY = re.compile(r"\..*\.\d+\.tmp")


@dataclasses.dataclass(frozen=True)
class Cell:
    """The rows of one model, attribution and norm."""

    directory: Path
    columns: Mapping[str, str]
    skip_damaged: bool = False

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Lock the cell against other processes, by a lock of the operating system, which ends with the process.

        Raises:
          StoreError: if another process has it.
        """
        self.directory.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(self.directory / _LOCK)
        try:
            lock.acquire(blocking=False)
        except filelock.Timeout as error:
            raise StoreError(
                f"another process computes the rows of {self.directory}. Wait for it or stop it, or choose another"
                " directory with `--output`."
            ) from error
        except (OSError, NotImplementedError) as error:
            log.warning("%s cannot be locked (%s): let no other process compute its rows", self.directory, error)
        try:
            yield
        finally:
            lock.release()

    def missing(self, samples: Sequence[int]) -> list[slice]:
        """Return the positions that are not stored, after a check of every part.

        Args:
          samples: their indices in the test split, of all positions of the run.

        Raises:
          StoreError: if a part is damaged, foreign, of other weights or samples, or overlaps another.
        """
        end, gaps = 0, []
        for path in sorted(self.directory.iterdir()) if self.directory.exists() else []:
            if path.name == _LOCK:
                continue
            if _TEMPORARY.fullmatch(path.name):
                path.unlink()  # of a run that was killed while it wrote
                continue
            begin, end_of_part = _span(path)
            if begin < end:
                raise StoreError(f"{path} begins at sample {begin}, and another part ends at {end}. {_ADVICE}")
            gaps.append(slice(end, min(begin, len(samples))))
            end = end_of_part
            rows = read_part(path, self.skip_damaged)
            if rows is None:
                continue
            for name, value in self.columns.items():
                if rows[name].n_unique() != 1 or rows[name][0] != value:
                    raise StoreError(
                        f"{path} has rows of {name} {rows[name].unique().to_list()}, and this run is of {value}."
                        f" {_ADVICE}"
                    )
            held = dict(rows.select("position", "sample").unique().iter_rows())
            # Positions beyond `samples` are those of an earlier command that asked for more.
            if sorted(held) != list(range(begin, end_of_part)) or any(
                samples[position] != sample for position, sample in held.items() if position < len(samples)
            ):
                raise StoreError(f"{path} does not hold the samples that its name says. {_ADVICE}")
        gaps.append(slice(end, len(samples)))
        return [gap for gap in gaps if gap.start < gap.stop]

    def write(self, where: slice, rows: pl.DataFrame) -> None:
        """Store a batch."""
        path = self.directory / f"{where.start:06d}-{where.stop:06d}.parquet"
        if path.exists():
            raise StoreError(f"{path} is there already. {_ADVICE}")
        write_atomic(path, rows.write_parquet)


_ADVICE = "Remove it to compute its samples again, or choose another directory with `--output`."
_DAMAGED = f"{_ADVICE} To go on without its samples, pass `--skip-damaged`."


def read_part(path: Path, skip_damaged: bool = False) -> pl.DataFrame | None:
    """Read the rows of a part; ``None`` for one that cannot be read, if such parts are skipped.

    Raises:
      StoreError: if it cannot be read, lacks a key column, or has columns of other types.
    """
    try:
        rows = pl.read_parquet(path)
    # Damage shows as nearly any type of exception, depending on the byte.
    except Exception as error:
        if skip_damaged:
            log.warning("%s is damaged: going on without its samples", path)
            return None
        raise StoreError(f"{path} is damaged, or no Parquet file ({error}). {_DAMAGED}") from error
    other = [name for name in rows.columns if name in SCHEMA and rows.schema[name] != SCHEMA[name]]
    absent = [name for name in REQUIRED if name not in rows.columns]
    if other or absent or rows.is_empty():
        found = f"columns {absent} are absent" if absent else f"{other} are of other types" if other else "it is empty"
        raise StoreError(f"{path} does not hold rows of a run: {found}. {_ADVICE}")
    # Columns that came later are null in earlier parts; columns that are not known any more are left alone.
    return rows.with_columns(pl.lit(None, SCHEMA[name]).alias(name) for name in SCHEMA if name not in rows.columns)


class Store:
    """The directory of one run.

    Args:
      directory: made if absent.
      config: resolved configuration. ``None`` to take over that of the directory (``report``).
      environment: versions and devices, for a new run.
      skip_damaged: whether to leave out the parts that cannot be read, if no configuration is given.

    Raises:
      StoreError: if the directory belongs to another configuration, or is not a run's.
    """

    def __init__(
        self,
        directory: str | Path,
        config: Config | None,
        environment: Mapping[str, Any] | None = None,
        *,
        skip_damaged: bool = False,
    ):
        self.directory = Path(directory)
        self.skip_damaged = skip_damaged if config is None else config.skip_damaged

        def take() -> int:
            open_run(self.directory, Config, config, environment)
            return 0

        on_first(take)
        self.run = open_run(self.directory, Config, config)
        self.config = from_dict(Config, self.run["config"]) if config is None else config
        self.hash: str = self.run["hash"]

    def cell(self, model: str, weights: str, attribution: str, norm: str) -> Cell:
        """Return the cell of one model, attribution and norm."""
        columns = {"config": self.hash, "weights": weights, "model": model, "attribution": attribution, "norm": norm}
        return Cell(self.directory / "rows" / model / attribution / norm, columns, self.skip_damaged)

    def has_rows(self) -> bool:
        """Whether any file of rows is there."""
        return any((self.directory / "rows").rglob("*.parquet"))

    def rows(self) -> pl.DataFrame:
        """Read all rows that are stored.

        Raises:
          StoreError: if there are none, a part is damaged, two overlap, or rows of different hashes lie in one cell.
        """
        parts = sorted((self.directory / "rows").rglob("*.parquet"))
        if not parts:
            raise StoreError(f"{self.directory} holds no rows yet; run `evaluate` first.")
        for before, path in itertools.pairwise(parts):
            if before.parent == path.parent and _span(path)[0] < _span(before)[1]:
                raise StoreError(f"{before} and {path.name} have samples in common. Remove one of them.")
        read = [read_part(path, self.skip_damaged) for path in parts]
        whole = [part for part in read if part is not None]
        if not whole:
            raise StoreError(f"{self.directory} holds no rows that can be read: all of its files are damaged.")
        rows = pl.concat(whole, how="diagonal")
        mixed = rows.group_by("model", "attribution", "norm").agg(pl.col("config", "weights").n_unique())
        mixed = mixed.filter((pl.col("config") > 1) | (pl.col("weights") > 1))
        if len(mixed) or rows["config"].unique().to_list() != [self.hash]:
            raise StoreError(f"{self.directory / 'rows'} mixes rows of different runs or weights; make the run again.")
        return rows

    def save_pictures(self, cell: Cell, where: slice, arrays: Mapping[str, np.ndarray]) -> None:
        """Store images and maps of a batch's samples."""
        name = "-".join(cell.columns[key] for key in ("model", "attribution", "norm"))
        path = self.directory / "pictures" / f"{name}-{where.start:06d}.npz"

        def write(temporary: Path) -> None:
            with temporary.open("wb") as file:
                np.savez_compressed(file, allow_pickle=False, **arrays)

        write_atomic(path, write)

    def pictures(self, model: str, attribution: str, norm: str) -> dict[str, np.ndarray]:
        """Load images and maps of a cell's first samples, stacked; empty where there are none."""
        found: dict[str, list[np.ndarray]] = {}
        for path in sorted((self.directory / "pictures").glob(f"{model}-{attribution}-{norm}-*.npz")):
            with np.load(path, allow_pickle=False) as archive:
                for name in archive.files:
                    found.setdefault(name, []).append(archive[name])
        return {name: np.concatenate(parts) for name, parts in found.items()}


def _span(path: Path) -> tuple[int, int]:
    match = _PART.fullmatch(path.name)
    if match is None:
        raise StoreError(f"{path} is no part of this run. Move it away, or choose another directory with `--output`.")
    return int(match[1]), int(match[2])
