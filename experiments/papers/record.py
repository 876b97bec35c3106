"""Store the results that the report of Wang and Kong 2023 keeps of a run, to rewrite and extend it without the rows.

    results/wang2023/tables/NAME.csv    one line per model, norm, radius and attribution
    results/wang2023/tables/NAME.json   configuration and its hash, the models' cards, and their dominance of Figure 1b

Rows are large and stay on the machine that computed them. Another machine, or the same one later, adds cells (a model,
an attribution, a norm) to the stored ones; of a cell that both have, the one of more samples stays.
"""

import json
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl

from experiments import comparison, networks, sweeps
from experiments.config import Config, fill_in
from experiments.presets import PRESETS, preset
from experiments.record import StoreError, as_dict, deciding, from_dict, write_atomic, write_text
from experiments.store import Store

CELL = ("model", "attribution", "norm")
# The paths of a run on disk say nothing to others.
_HERE = ("output", "data_dir")


class Record(NamedTuple):
    """The results of a run that the report keeps.

    Attributes:
      name: DATASET-PRESET.
      hash: hash of the configuration.
      config: resolved configuration.
      models: excerpts of the models' cards, by name.
      lines: from :func:`experiments.comparison.summary`.
      dominant: from :func:`experiments.sweeps.dominance`.
    """

    name: str
    hash: str
    config: Config
    models: Mapping[str, Mapping[str, Any]]
    lines: pl.DataFrame
    dominant: Mapping[str, Mapping[str, float]]

    @property
    def preset(self) -> str:
        """Name of the preset from which the run started."""
        return self.name.removeprefix(f"{self.config.dataset}-")


def collect(store: Store, known: Record | None = None) -> Record | None:
    """Aggregate the rows of a run.

    Args:
      store: the run.
      known: the report's record of it, to which a run without rows, of figures alone, adds the figures' values.

    Returns:
      The record; None for a run without rows that the report does not know.

    Raises:
      StoreError: if rows of different configurations or weights lie in one cell.
    """
    models = {name: _excerpt(card) for name, card in networks.cards(store.directory / "models").items()}
    if store.has_rows():
        lines = comparison.summary(store, store.rows())
    elif known is not None:
        lines = known.lines
    else:
        return None
    return Record(store.directory.name, store.hash, store.config, models, lines, sweeps.dominance(store))


def merge(old: Record | None, new: Record) -> Record:
    """Merge the cells of two records; of a cell that both have, the one of more samples stays.

    Raises:
      StoreError: if they have different configurations, or a model of both has different weights.
    """
    if old is None:
        return new
    there = f"the report has results of {old.name}"
    replace = (
        f"remove tables/{old.name}.* and figures/{old.name}-* from it to replace them, or write to another directory"
        " with `--output`."
    )
    if old.hash != new.hash:
        raise StoreError(f"{there} of another configuration ({old.hash}, and the run at hand is {new.hash}); {replace}")
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
    models, dominant = {**old.models, **new.models}, {**old.dominant, **new.dominant}
    return new._replace(models=models, lines=lines, dominant=dominant)


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
            found[path.stem] = Record(path.stem, about["hash"], config, about["models"], lines, about["dominant"])
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
    about = {"hash": record.hash, "config": config, "models": record.models, "dominant": record.dominant}
    write_text(path.with_suffix(".json"), json.dumps(about, indent=2) + "\n")
    write_atomic(path, record.lines.write_csv)


def commands(record: Record, kind: str, name: str, lines: pl.DataFrame) -> list[str]:
    """List the commands that make a table or figure of a run: the preset, and every option that differs from it.

    Args:
      record: the run.
      kind: ``table`` or ``figure``.
      name: name of the table or figure.
      lines: lines of the run that it shows. Where their samples differ in number, each number has a command.
    """
    config = record.config
    start = preset(record.preset, config.dataset) if record.preset in PRESETS else Config(dataset=config.dataset)
    words = ["python", "-m", "experiments", kind, name, "--dataset", config.dataset, "--preset", record.preset]
    words += _options(_flat(deciding(fill_in(start, record.preset))), _flat(deciding(config)))
    if not len(lines):
        return []
    # Sweeps take a few samples of their own, and a run of all samples has as many as each network gets right.
    own = name in sweeps.SWEEPS
    every = own or config.num_samples is None
    found = []
    for n in [None] if every else lines["n"].unique().sort(descending=True).drop_nulls().to_list():
        more = []
        models = set((lines if every else lines.filter(pl.col("n") == n))["model"].to_list())
        # Table 2 shows one model, whichever the run has.
        if models != set(start.defenses) and not (name == "2" and kind == "table" and models <= set(start.defenses)):
            more += ["--defenses", *sorted(models)]
        if n != start.num_samples and not own:
            more += ["--num-samples", str(n)]
        found.append(shlex.join(words + more))
    return found


def _options(preset: Mapping[str, Any], config: Mapping[str, Any]) -> list[str]:
    words = []
    for name, value in config.items():
        if preset.get(name) == value or value is None:
            continue
        option = f"--{name.replace('_', '-')}"
        if isinstance(value, bool):
            words.append(option if value else option.replace("--", "--no-", 1))
        else:
            words += [option, *map(str, value if isinstance(value, list) else [value])]
    return words


def _flat(config: Mapping[str, Any]) -> dict[str, Any]:
    """Flatten a configuration to ``training.steps`` and so on, as the command line has them."""
    flat = {}
    for name, value in config.items():
        flat |= {f"{name}.{key}": v for key, v in value.items()} if isinstance(value, Mapping) else {name: value}
    return flat


def _excerpt(card: Mapping[str, Any]) -> dict[str, Any]:
    network = {"name": card["model"]["name"]}
    network |= {name: card["model"]["options"].get(name) for name in ("beta", "width")}
    if "source" in card:
        return {"weights": card["weights"], "network": network, "trained": card["source"]}
    kept = {name: card[name] for name in ("weights", "accuracy", "pgd_accuracy", "pgd")}
    trained = f"preset {card['config']['training']['preset']}, {card['epochs']:g} epochs"
    measured = f"measured on {card['test_samples']:,} test samples"
    return {**kept, "network": network, "trained": f"{trained}; {measured}"}
