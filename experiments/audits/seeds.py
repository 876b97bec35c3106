"""``python -m experiments seeds``: repeat a run with several seeds, and tell differences from chance.

    DIRECTORY/seed-0, seed-1, ...   a run of ``audit`` each, with training, attacks and bounds of that seed
    DIRECTORY/table.md, seeds.csv   means over the seeds with their standard errors

A killed command goes on where it was. Samples differ between models and seeds where a network errs on some of them.
"""

import dataclasses
import math
from pathlib import Path
from typing import Any

import polars as pl

from experiments.audits.config import Config
from experiments.audits.run import audit
from jaxattr._files import write_atomic
from jaxattr.audit import networks
from jaxattr.audit.columns import Column, Table, with_ball
from jaxattr.audit.run_directory import write_text
from jaxattr.audit.store import Store
from jaxattr.audit.summary import summarize

GROUP = ("attribution", "ball", "model")

COLUMNS = (
    Column("accuracy", pl.col("accuracy"), 1, "%"),
    Column("under PGD", pl.col("pgd_accuracy"), 1, "%"),
    Column("norm of the map", pl.col("attribution_norm"), 3),
    Column("bound T_e", pl.col("bound"), 4),
    Column("T_c (180 if vacuous)", pl.col("bound_degrees_all"), 1, "degrees"),
    Column("strongest attack", pl.col("strongest"), 4),
    Column("Kendall under IFIA", pl.col("kendall"), 3),
)
# The goals of a defense: the sign of an improvement in a column.
GOALS = {"bound": -1, "bound_degrees_all": -1, "kendall": 1}


def run(config: Config, seeds: int) -> str:
    """Run ``audit`` once per seed and write the tables.

    Args:
      config: resolved; its own seeds are replaced.
      seeds: number of seeds, from 0 on.

    Returns:
      The tables as Markdown.

    Raises:
      ValueError: if there are fewer than two seeds, which have no standard error.
      jaxattr.audit.run_directory.StoreError: if the directory holds something else.
    """
    if seeds < 2:
        raise ValueError(f"`seeds` must be at least 2, got {seeds}: one seed has no standard error.")
    directory = Path(str(config.output))
    summaries = []
    for seed in range(seeds):
        training = dataclasses.replace(config.training, seed=seed)
        one = dataclasses.replace(config, output=str(directory / f"seed-{seed}"), seed=seed, training=training)
        summaries.append(of_store(audit(one)).with_columns(seed=pl.lit(seed)))
    values = pl.concat(summaries)
    write_atomic(directory / "seeds.csv", values.write_csv)
    text = markdown(values)
    write_text(directory / "table.md", text)
    return text


def of_store(store: Store) -> pl.DataFrame:
    """Return one line per model, attribution and radius of a run, with the model's accuracies."""
    cards = [
        {"model": name, "accuracy": card["accuracy"], "pgd_accuracy": card["pgd_accuracy"]}
        for name, card in networks.cards(store.directory / "models").items()
    ]
    summary = with_ball(summarize(store.rows(), store.metrics()))
    lines = summary.join(pl.DataFrame(cards), on="model")
    values = [column.values(lines).cast(pl.Float64).alias(column.name) for column in COLUMNS]
    return lines.select(*GROUP, "n").with_columns(values)


def markdown(values: pl.DataFrame) -> str:
    """Format two tables per attribution and radius: the means, and each model against ``natural``, seed by seed.

    Args:
      values: lines of :func:`of_store`, with a column ``seed``.
    """
    count = values["seed"].n_unique()
    parts = [f"Means over {count} seeds, and their standard errors.\n"]
    for (attribution, ball), cell in _grouped(values, ["attribution", "ball"]):
        parts.append(f"### {str(attribution).replace('_', ' ')}, {ball}\n")
        models = _grouped(cell, ["model"])
        rows = tuple((str(name), *(_mean(column, part[column.name]) for column in COLUMNS)) for (name,), part in models)
        head = ("model", *(column.head for column in COLUMNS))
        parts.append(Table("Means", head, rows).markdown() + "\n")
        if "natural" in cell["model"]:
            parts.append("Minus the natural model of the same seed; *held*: better by more than two standard errors.\n")
            goals = [column for column in COLUMNS if column.name in GOALS]
            rows = tuple((str(name), *_against(part, cell, goals)) for (name,), part in models if name != "natural")
            parts.append(Table("Differences", ("model", *(goal.head for goal in goals)), rows).markdown() + "\n")
    return "\n".join(parts)


def _against(part: pl.DataFrame, cell: pl.DataFrame, goals: list[Column]) -> list[str]:
    natural = cell.filter(pl.col("model") == "natural")
    both = part.join(natural, on="seed", suffix="_natural")
    found = []
    for goal in goals:
        difference = both[goal.name] - both[f"{goal.name}_natural"]
        mean, error = _moments(difference)
        better = GOALS[goal.name] * mean
        verdict = "held" if better > 2 * error else "not held" if better < -2 * error else "undecided"
        found.append(f"{_mean(goal, difference)}, {verdict}")
    return found


def _moments(values: pl.Series) -> tuple[float, float]:
    numbers = values.drop_nulls().to_list()
    mean = sum(numbers) / len(numbers)
    variance = sum((x - mean) ** 2 for x in numbers) / max(1, len(numbers) - 1)
    return mean, math.sqrt(variance / len(numbers))


def _mean(column: Column, values: pl.Series) -> str:
    """Format a mean with its standard error in brackets, as the column formats numbers."""
    mean, error = _moments(values)
    scale = 100 if column.unit == "%" else 1
    return f"{scale * mean:.{column.digits}f} ({scale * error:.{column.digits}f})"


def _grouped(values: pl.DataFrame, by: list[str]) -> list[tuple[Any, pl.DataFrame]]:
    return sorted(values.partition_by(*by, as_dict=True, maintain_order=True).items())
