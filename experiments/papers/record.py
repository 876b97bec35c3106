"""Store the results that the report of a paper keeps of a run, to rewrite and extend it without the rows.

    results/PAPER/tables/NAME.csv    one line per model, norm, radius and attribution
    results/PAPER/tables/NAME.json   configuration, what determines each cell, the models' cards, values of figures

Rows are large and stay on the machine that computed them. Another machine, or the same one later, adds cells (a model,
an attribution, a norm) to the stored ones; of a cell that both have, the one of more samples stays.
"""

import json
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl

from experiments.audits.config import Config
from experiments.audits.presets import PRESETS, preset
from experiments.papers.paper import Paper
from jaxattr._files import write_atomic
from jaxattr.audit import networks
from jaxattr.audit.run_directory import StoreError, as_dict, differences, from_dict, write_text
from jaxattr.audit.store import CELL, Store
from jaxattr.audit.summary import summarize

# The paths of a run on disk say nothing to others.
_HERE = ("output", "data_dir")
# Options that are said of each table, or that change no row.
_SAID = ("--dataset", "--preset", "--defenses", "--num-samples", "--output", "--data-dir", "--workers", "--batch-size")


class Record(NamedTuple):
    """The results of a run that the report keeps.

    Attributes:
      name: DATASET-PRESET.
      config: resolved configuration of the latest command.
      numerics: version of the computations.
      identities: what determines the rows of each ``ATTRIBUTION/NORM``, from :func:`jaxattr.audit.spec.identity`.
      arguments: of the command, beside data set, preset, models and samples.
      models: excerpts of the models' cards, by name.
      lines: from :func:`jaxattr.audit.summary.summarize`, with the data set and the device.
      values: what the paper keeps beside them, by name.
    """

    name: str
    config: Config
    numerics: int
    identities: Mapping[str, Mapping[str, Any]]
    arguments: tuple[str, ...]
    models: Mapping[str, Mapping[str, Any]]
    lines: pl.DataFrame
    values: Mapping[str, Mapping[str, Any]]

    @property
    def preset(self) -> str:
        """Name of the preset from which the run started."""
        return self.name.removeprefix(f"{self.config.dataset}-")


def collect(paper: Paper, store: Store, known: Record | None = None) -> Record | None:
    """Aggregate the rows of a run.

    Args:
      paper: whose run it is.
      store: the run.
      known: the report's record of it, to which a run without rows, of figures alone, adds the figures' values.

    Returns:
      The record; None for a run without rows that the report does not know.

    Raises:
      StoreError: if rows of different configurations or weights lie in one cell.
    """
    models = {name: _excerpt(card) for name, card in networks.cards(store.directory / "models").items()}
    identities: Mapping[str, Mapping[str, Any]] = {}
    if store.has_rows():
        device = store.run["environment"].get("device", "")
        lines = summarize(store.rows(), store.metrics()).with_columns(
            dataset=pl.lit(store.config.dataset), device=pl.lit(device)
        )
        identities = store.identities()
    elif known is not None:
        lines, identities = known.lines, known.identities
    else:
        return None
    return Record(
        store.directory.name,
        store.config,
        store.run["numerics"],
        identities,
        _arguments(store.command),
        models,
        lines,
        paper.keeps(paper, store),
    )


def merge(paper: Paper, old: Record | None, new: Record) -> Record:
    """Merge the cells of two records; of a cell that both have, the one of more samples stays.

    Raises:
      StoreError: if a cell of both has rows of different methods, or a model of both has different weights.
    """
    if old is None:
        return new
    there = f"the report of {paper.cite} has results of {old.name}"
    replace = (
        f"remove tables/{old.name}.* and figures/{old.name}-* from it to replace them, or write to another directory"
        " with `--output`."
    )
    for cell in sorted(old.identities.keys() & new.identities.keys()):
        changed = differences(old.identities[cell], new.identities[cell])
        if changed:
            raise StoreError(f"{there} of another configuration ({cell}: {'; '.join(changed)}); {replace}")
    for model in old.models.keys() & new.models.keys():
        if old.models[model]["weights"] != new.models[model]["weights"]:
            raise StoreError(f"{there} for other weights of {model} than those of the run at hand; {replace}")
    # Columns that came later are null in older lines.
    types = pl.Schema({name: kind for name, kind in new.lines.schema.items() if name in old.lines.columns})
    both = pl.concat([old.lines.cast(types), new.lines], how="diagonal")
    largest = both.filter(pl.col("n") == pl.col("n").max().over(CELL))
    # Of lines with equally many samples the later ones stay.
    lines = largest.unique([*CELL, "epsilon"], keep="last", maintain_order=True)
    lines = lines.sort("model", "norm", "epsilon", "attribution")
    models, identities = {**old.models, **new.models}, {**old.identities, **new.identities}
    values = {name: {**old.values.get(name, {}), **new.values.get(name, {})} for name in {**old.values, **new.values}}
    return new._replace(models=models, identities=identities, lines=lines, values=values)


def read(directory: Path) -> dict[str, Record]:
    """Read all records of a report, by name.

    Raises:
      StoreError: if one cannot be read, or a table lacks its JSON.
    """
    found = {}
    for path in sorted((directory / "tables").glob("*.csv")):
        try:
            about = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
            config = from_dict(Config, about["config"])
            lines = pl.read_csv(path, infer_schema_length=None)
            # Polars reads a column without a value as one of words.
            empty = [name for name in lines.columns if lines[name].null_count() == len(lines)]
            lines = lines.with_columns(pl.col(empty).cast(pl.Float64))
            found[path.stem] = Record(
                path.stem,
                config,
                about["numerics"],
                about["identities"],
                tuple(about["arguments"]),
                about["models"],
                lines,
                about["values"],
            )
        except (OSError, ValueError, TypeError, KeyError, pl.exceptions.PolarsError) as error:
            raise StoreError(
                f"{path} and its JSON are damaged, or of another version ({error!r}). Remove both and the figures of"
                " that name, or write to another directory with `--output`."
            ) from error
    return found


def write(record: Record, directory: Path) -> None:
    """Write a record as CSV and JSON."""
    path = directory / "tables" / f"{record.name}.csv"
    config = {**as_dict(record.config), **dict.fromkeys(_HERE)}
    about = {
        "config": config,
        "numerics": record.numerics,
        "identities": record.identities,
        "arguments": record.arguments,
        "models": record.models,
        "values": record.values,
    }
    write_text(path.with_suffix(".json"), json.dumps(about, indent=2) + "\n")
    write_atomic(path, record.lines.write_csv)


def commands(paper: Paper, record: Record, kind: str, name: str, lines: pl.DataFrame) -> list[str]:
    """List the commands that make a table or figure of a run: those of its record, for its models and samples.

    Args:
      paper: of the record.
      record: the run.
      kind: ``table`` or ``figure``.
      name: name of the table or figure.
      lines: lines of the run that it shows. Where their samples differ in number, each number has a command.
    """
    if not len(lines):
        return []
    config = record.config
    start = preset(record.preset, config.dataset) if record.preset in PRESETS else Config(dataset=config.dataset)
    said = ["--dataset", config.dataset, "--preset", record.preset, *record.arguments]
    words = ["python", "-m", "experiments", "paper", paper.name, kind, name, *said]
    # Values of a figure are of a few samples of their own, and a run of all samples has as many as each network gets
    # right.
    needs = (paper.tables if kind == "table" else paper.figures)[name].of
    own = kind == "figure" and paper.figures[name].compute is not None
    every = own or config.num_samples is None
    found = []
    for n in [None] if every else lines["n"].unique().sort(descending=True).drop_nulls().to_list():
        more = []
        models = set((lines if every else lines.filter(pl.col("n") == n))["model"].to_list())
        # A table of certain models shows those, whichever the run has.
        chosen = needs.models is not None and models <= set(start.defenses)
        if models != set(start.defenses) and not chosen:
            more += ["--defenses", *sorted(models)]
        if n != start.num_samples and not own:
            more += ["--num-samples", str(n)]
        found.append(shlex.join(words + more))
    return found


def _excerpt(card: Mapping[str, Any]) -> dict[str, Any]:
    network = {"name": card["model"]["name"]}
    network |= {name: card["model"]["options"].get(name) for name in ("beta", "width")}
    if "source" in card:
        return {"weights": card["weights"], "network": network, "trained": card["source"]}
    kept = {name: card[name] for name in ("weights", "accuracy", "pgd_accuracy", "pgd")}
    trained = f"preset {card['config']['training']['preset']}, {card['epochs']:g} epochs"
    measured = f"measured on {card['test_samples']:,} test samples"
    return {**kept, "network": network, "trained": f"{trained}; {measured}"}


def _arguments(command: str) -> tuple[str, ...]:
    """Return the options of a command that are said beside data set, preset, models and samples."""
    words = shlex.split(command)
    options = words[next((i for i, word in enumerate(words) if word.startswith("--")), len(words)) :]
    kept: list[str] = []
    keep = False
    for word in options:
        if word.startswith("--"):
            name = word.partition("=")[0].replace("_", "-")
            keep = name not in _SAID
        if keep:
            kept.append(word)
    return tuple(kept)
