"""``python -m experiments take-in OUTPUT``: results of ``benchmarks.accelerator`` become tables and networks."""

import json
import logging
import shutil
import tarfile
import tempfile
from pathlib import Path
from typing import Any

import jaxattr as ja
from experiments.accelerator import tables
from experiments.training.publish import publish
from jaxattr.audit.networks import NAME
from jaxattr.audit.run_directory import StoreError, write_text

log = logging.getLogger(__name__)

RESULTS = Path("results/accelerator")
README = Path("benchmarks/README.md")
BEGIN, END = "<!-- accelerator: begin -->", "<!-- accelerator: end -->"
SUFFIX = "_paper"
"""Suffix of the names of networks that were trained with the papers' settings."""

_HEAD = """# On an accelerator

Measured by `make accelerator` and taken in by `python -m experiments take-in`; `results.json` has all numbers. Machines
are shared: read ratios within one run. Megabytes are the compiler's own count of temporaries and results.

"""


def take_in(
    output: Path,
    *,
    results: Path = RESULTS,
    readme: Path | None = README,
    zoo: Path | None = None,
    data_dir: str | None = None,
) -> list[str]:
    """Take in the results of a run.

    Args:
      output: folder of results, or of archives of them.
      results: directory of the records and their page.
      readme: README whose generated part is written anew; None for none.
      zoo: directory of networks; by default ``jaxattr/zoo`` of the package in use.
      data_dir: directory of data sets, to measure weights that have to be rounded.

    Returns:
      One line for everything that was done, or left out with the reason.

    Raises:
      StoreError: if the folder holds no results, or the README has no place for them. Nothing is written then.
    """
    with tempfile.TemporaryDirectory() as unpacked:
        folder = _unpack(output, Path(unpacked))
        records = read(folder)
        if not records:
            raise StoreError(f"{output} holds no results of `make accelerator`: no JOB.json, nor archives of them.")
        page = tables.page(records)
        text = None if readme is None else _with_part(readme, page)
        write_text(results / "results.json", json.dumps(records, indent=1) + "\n")
        write_text(results / "README.md", _HEAD + page.replace("### ", "## "))
        done = [f"{results}: {len(records)} jobs"]
        if readme is not None and text is not None:
            write_text(readme, text)
            done.append(f"{readme}: its generated part")
        for run in sorted((folder / "networks").glob("*-*")):
            done.append(_network(run, zoo, data_dir))
    return done


def read(folder: Path) -> dict[str, Any]:
    """Read the records of all jobs, those of the measurements first."""
    found = {}
    for path in folder.glob("*.json"):
        record = json.loads(path.read_text(encoding="utf-8"))
        if "job" in record and "status" in record:
            found[record.pop("job")] = record
    return dict(sorted(found.items(), key=lambda item: ("-" in item[0], item[0])))


def _unpack(output: Path, target: Path) -> Path:
    archives = sorted(output.glob("*.tar.gz"))
    if not archives:
        return output
    for archive in archives:
        with tarfile.open(archive) as tar:
            tar.extractall(target, filter="data")
    return target


def _with_part(readme: Path, page: str) -> str:
    text = readme.read_text(encoding="utf-8")
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise StoreError(f"{readme} has no part between {BEGIN} and {END}, where the tables go.")
    return f"{before}{BEGIN}\n\n{page}\n{END}{after}"


def _network(run: Path, zoo: Path | None, data_dir: str | None) -> str:
    """Publish a network if it is complete, fits, and is better than one of its name."""
    dataset, _, defense = run.name.partition("-")
    name = f"{dataset}/{defense}{SUFFIX}"
    if not all((run / f"{NAME}.{suffix}").exists() for suffix in ("npz", "json")):
        return f"{name}: left out, its training is not finished"
    card = ja.zoo.read_card(run / f"{NAME}.json")
    there = name in ja.zoo.names(zoo)
    if there and not better(card, ja.zoo.load(name, zoo).card):
        return f"{name}: left out, the one that is there is as good"
    with tempfile.TemporaryDirectory() as copy:
        # Copy the files that another command would find there, and no log of another machine.
        folder = Path(copy) / run.name
        folder.mkdir()
        for part in ("run.json", f"{NAME}.npz", f"{NAME}.json"):
            shutil.copy(run / part, folder / part)
        try:
            path = publish(folder, name, directory=zoo, data_dir=data_dir, overwrite=there)
        except (StoreError, ValueError, FileNotFoundError) as error:
            return f"{name}: left out, {error}"
    return f"{name}: {path.stat().st_size:,} bytes"


def better(card: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether a network is better by its card: more accurate on the mean of clean samples and attacked ones.

    Cards of different attacks or data are not compared, and the network that is there stays.

    Example:
      >>> card = {"pgd": {"epsilon": 0.1}, "accuracy": 0.9, "pgd_accuracy": 0.8}
      >>> better(card, card), better(card, {**card, "accuracy": 0.8})
      (False, True)
    """
    if card["pgd"] != other["pgd"] or card.get("test_samples") != other.get("test_samples"):
        return False
    score, existing = (each["accuracy"] + each["pgd_accuracy"] for each in (card, other))
    return score > existing
