"""Store rows on disk as Parquet parts per cell, so that a killed run can go on, and a later one can add cells.

    DIRECTORY/run.json                                   the latest configuration and command, versions, device
    DIRECTORY/rows/model=M/attribution=A/norm=N/cell.json           what determines the cell's rows, and their metrics
    DIRECTORY/rows/model=M/attribution=A/norm=N/BEGIN-END.parquet   one part per batch
    DIRECTORY/pictures/M-A-N-BEGIN.npz                   images and maps of the first samples

A part appears under its name only when it is complete. Nothing that is not the run's own is overwritten. The next
command computes the gaps between parts; a cell is locked while its rows are computed.
"""

import contextlib
import dataclasses
import itertools
import json
import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import filelock
import numpy as np
import polars as pl

from jaxattr._files import write_atomic
from jaxattr.audit import spec
from jaxattr.audit.rows import KEYS, columns
from jaxattr.audit.run_directory import StoreError, differences, from_dict, open_run, write_text
from jaxattr.audit.spec import Measures
from jaxattr.parallel import on_first

log = logging.getLogger(__name__)

_PART = re.compile(r"(\d{6})-(\d{6})\.parquet")
_LOCK = ".lock"
_CELL = "cell.json"
CELL = ("model", "attribution", "norm")
"""Key columns that a cell's rows have in common, and the names of its directories."""
# Name of a column, beside those of the rows, with the file that each is from.
_FILE = "file of the rows"
_TEMPORARY = re.compile(r"\..*\.\d+\.tmp")


@dataclasses.dataclass(frozen=True)
class Cell:
    """The rows of one model, attribution and norm.

    Attributes:
      directory: of its parts.
      columns: the columns that are the same in every row.
      identity: what determines the rows, from :func:`jaxattr.audit.spec.identity`.
      metrics: canonical texts of the metrics by label.
      skip_damaged: whether to leave out parts that cannot be read.
    """

    directory: Path
    columns: Mapping[str, str]
    identity: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    metrics: Mapping[str, str] = dataclasses.field(default_factory=dict)
    skip_damaged: bool = False

    def open(self) -> None:
        """Take the cell for these rows, or find that it holds the same ones.

        A cell that a command took, and that was stopped before its first batch, is taken by the next one.

        Raises:
          StoreError: if it holds rows of other methods, radii or samples, or another process is about to write such.
            Nothing is written then.
        """
        path = self.directory / _CELL
        about = {"identity": dict(self.identity), "metrics": dict(self.metrics)}
        if path.exists():
            there = _about(path)
            changed = differences(there["identity"], about["identity"])
            metrics = {name: text for name, text in there["metrics"].items() if self.metrics.get(name, text) != text}
            changed += differences(metrics, {name: self.metrics[name] for name in metrics}, "metrics.")
            if changed and self._has_rows():
                raise StoreError(
                    f"{self.directory} holds rows of another configuration ({'; '.join(changed)}), and results of two"
                    " configurations are never mixed. Give these methods labels of their own, or this run a directory"
                    " of its own with `--output DIRECTORY`, or delete that one."
                )
            if changed:
                with self.locked():
                    write_text(path, json.dumps(about, indent=2) + "\n")
                return
            about["metrics"] = {**there["metrics"], **self.metrics}
            if about == there:
                return
        elif self._has_rows():
            raise StoreError(f"{self.directory} has rows and no {_CELL}: another version wrote them. {_ADVICE}")
        write_text(path, json.dumps(about, indent=2) + "\n")

    def _has_rows(self) -> bool:
        return any(self.directory.glob("*.parquet"))

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
            if path.name in (_LOCK, _CELL):
                continue
            if _TEMPORARY.fullmatch(path.name):
                path.unlink()  # of a run that was killed while it wrote
                continue
            begin, end_of_part = _span(path)
            if begin < end:
                raise StoreError(f"{path} begins at sample {begin}, and another part ends at {end}. {_ADVICE}")
            gaps.append(slice(end, min(begin, len(samples))))
            end = end_of_part
            rows = read_part(path, self.skip_damaged, tuple(self.metrics))
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


def read_part(path: Path, skip_damaged: bool = False, metrics: Sequence[str] = ()) -> pl.DataFrame | None:
    """Read the rows of a part; ``None`` for one that cannot be read, if such parts are skipped.

    Raises:
      StoreError: if it cannot be read, lacks a key column, or has columns of other types.
    """
    schema = columns(metrics)
    try:
        rows = pl.read_parquet(path, hive_partitioning=False)
    # Damage shows as nearly any type of exception, depending on the byte.
    except Exception as error:
        if skip_damaged:
            log.warning("%s is damaged: going on without its samples", path)
            return None
        raise StoreError(f"{path} is damaged, or no Parquet file ({error}). {_DAMAGED}") from error
    other = [name for name in rows.columns if name in schema and rows.schema[name] != schema[name]]
    absent = [name for name in KEYS if name not in rows.columns]
    if other or absent or rows.is_empty():
        found = f"columns {absent} are absent" if absent else f"{other} are of other types" if other else "it is empty"
        raise StoreError(f"{path} does not hold rows of a run: {found}. {_ADVICE}")
    # Columns that came later are null in earlier parts; columns that are not known any more are left alone.
    return rows.with_columns(pl.lit(None, schema[name]).alias(name) for name in schema if name not in rows.columns)


class Store:
    """The directory of one run.

    Args:
      directory: made if absent.
      kind: class of the configuration, a :class:`jaxattr.audit.spec.Measures` with ``COMMAND`` and ``NOT_HASHED``.
      config: resolved configuration. ``None`` to take over that of the directory.
      about: versions and devices, for a new run.
      command: as it was written.
      skip_damaged: whether to leave out the parts that cannot be read, if no configuration is given.

    Raises:
      StoreError: if the directory belongs to another run, or is not a run's.
    """

    def __init__(
        self,
        directory: str | Path,
        kind: Any,
        config: Any = None,
        about: Mapping[str, Any] | None = None,
        command: str | None = None,
        *,
        skip_damaged: bool = False,
    ):
        self.directory = Path(directory)
        self.skip_damaged = skip_damaged if config is None else config.skip_damaged

        def take() -> int:
            open_run(self.directory, kind, config, about, command)
            return 0

        on_first(take)
        self.run = open_run(self.directory, kind, config)
        self.config: Any = from_dict(kind, self.run["config"]) if config is None else config
        self.hash: str = self.run["hash"]

    @property
    def command(self) -> str:
        """The command that made the run, or added to it last."""
        return self.run.get("written", "")

    def cell(self, model: str, weights: str, attribution: str, norm: str) -> Cell:
        """Return the cell of one model, attribution and norm."""
        measures: Measures = self.config
        identity = spec.identity(measures, attribution, norm)
        key = {"model": model, "attribution": attribution, "norm": norm}
        directory = self.directory.joinpath("rows", *_folders(key))
        same = {"config": spec.identity_hash(identity), "weights": weights, **key}
        metrics = {label: str(call) for label, call in spec.metrics(measures).items()}
        return Cell(directory, same, identity, metrics, self.skip_damaged)

    def identities(self) -> dict[str, dict[str, Any]]:
        """Return what determines the rows of each ``ATTRIBUTION/NORM``, which is the same for all models.

        Raises:
          StoreError: if it differs between models.
        """
        found: dict[str, dict[str, Any]] = {}
        for path in self._cells():
            identity = _about(path)["identity"]
            attribution, norm = (part.name.partition("=")[2] for part in (path.parent.parent, path.parent))
            changed = differences(found.setdefault(f"{attribution}/{norm}", identity), identity)
            if changed:
                raise StoreError(f"{path.parent} has other rows than those of other models ({'; '.join(changed)}).")
        return found

    def has_rows(self) -> bool:
        """Whether any file of rows is there."""
        return any((self.directory / "rows").rglob("*.parquet"))

    def metrics(self) -> tuple[str, ...]:
        """Return the labels of the metrics that any cell has, in the order of the configuration."""
        there = [name for path in self._cells() for name in _about(path)["metrics"]]
        return tuple(dict.fromkeys([*(label for label in spec.metrics(self.config) if label in there), *there]))

    def scan(self) -> pl.LazyFrame:
        """Scan all rows lazily, by directories named ``model=...``: a filter on these reads the parts that it needs.

        Columns that came later are null in earlier parts.
        """
        return self._scan(hive_partitioning=True, hive_schema=dict.fromkeys(CELL, pl.String))

    def _scan(self, **options: Any) -> pl.LazyFrame:
        return pl.scan_parquet(
            self.directory / "rows" / "**" / "*.parquet",
            schema=columns(self.metrics()),
            missing_columns="insert",
            extra_columns="ignore",
            **options,
        )

    def rows(self) -> pl.DataFrame:
        """Read all rows that are stored.

        Raises:
          StoreError: if there are none, a part is damaged or in the directory of another cell, two overlap, or rows of
            different hashes lie in one cell.
        """
        parts = sorted((self.directory / "rows").rglob("*.parquet"))
        if not parts:
            raise StoreError(f"{self.directory} holds no rows yet; compute some first.")
        for before, path in itertools.pairwise(parts):
            if before.parent == path.parent and _span(path)[0] < _span(before)[1]:
                raise StoreError(f"{before} and {path.name} have samples in common. Remove one of them.")
        metrics = self.metrics()
        try:
            # What a part says about itself is compared with where it lies: names of directories replace no column.
            rows = self._scan(hive_partitioning=False, include_file_paths=_FILE).collect()
        except Exception:
            # Read part by part, which names the one that is damaged, or leaves it out.
            read = {path: read_part(path, self.skip_damaged, metrics) for path in parts}
            whole = [
                part.select(*columns(metrics), pl.lit(str(path)).alias(_FILE))
                for path, part in read.items()
                if part is not None
            ]
            if not whole:
                raise StoreError(
                    f"{self.directory} holds no rows that can be read: all of its files are damaged."
                ) from None
            rows = pl.concat(whole)
        if rows.is_empty():
            raise StoreError(f"{self.directory} holds no rows.")
        for path, *key in rows.select(_FILE, *CELL).unique().sort(_FILE).iter_rows():
            if Path(path).parent.parts[-len(CELL) :] != _folders(dict(zip(CELL, key, strict=True))):
                raise StoreError(f"{path} has rows of {', '.join(key)}, and lies in the directory of others. {_ADVICE}")
        mixed = rows.group_by(CELL).agg(pl.col("config", "weights").n_unique())
        mixed = mixed.filter((pl.col("config") > 1) | (pl.col("weights") > 1))
        if len(mixed):
            raise StoreError(f"{self.directory / 'rows'} mixes rows of different runs or weights; make the run again.")
        return rows.drop(_FILE)

    def _cells(self) -> list[Path]:
        return sorted((self.directory / "rows").glob(f"*/*/*/{_CELL}"))

    def save_pictures(self, cell: Cell, where: slice, arrays: Mapping[str, np.ndarray]) -> None:
        """Store images and maps of a batch's samples."""
        name = "-".join(cell.columns[key] for key in CELL)
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


def _folders(key: Mapping[str, str]) -> tuple[str, ...]:
    """Return the names of a cell's directories, from the key of its rows."""
    return tuple(f"{name}={value}" for name, value in key.items())


def _span(path: Path) -> tuple[int, int]:
    match = _PART.fullmatch(path.name)
    if match is None:
        raise StoreError(f"{path} is no part of this run. Move it away, or choose another directory with `--output`.")
    return int(match[1]), int(match[2])


def _about(path: Path) -> dict[str, Any]:
    try:
        about = json.loads(path.read_text(encoding="utf-8"))
        return {"identity": dict(about["identity"]), "metrics": dict(about["metrics"])}
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise StoreError(f"{path} is damaged ({error}). {_ADVICE}") from error
