"""``python -m experiments seeds``: repeat a run with several seeds, and tell differences from chance.

    DIRECTORY/seed-0, seed-1, ...   a run of ``evaluate`` each, with training, attacks and bounds of that seed
    DIRECTORY/table.md, seeds.csv   means over the seeds with their standard errors

A killed command goes on where it was. Samples differ between models and seeds where a network errs on some of them.
"""

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl

from experiments import networks
from experiments.config import Config
from experiments.evaluate import evaluate
from experiments.record import write_atomic, write_text
from experiments.store import Store
from experiments.summary import summarize
from experiments.table import with_ball

GROUP = ("attribution", "ball", "model")

# The goals of a defense: column, sign of an improvement, and title.
EXPECTED = (("bound", -1, "bound T_e"), ("bound_degrees_all", -1, "angle T_c"), ("kendall", 1, "Kendall"))

_COLUMNS = {
    "accuracy": ("accuracy, %", 100, 1),
    "pgd_accuracy": ("under PGD, %", 100, 1),
    "attribution_norm": ("norm of the map", 1, 3),
    "bound": ("bound T_e", 1, 4),
    "bound_degrees_all": ("T_c, degrees (180 if vacuous)", 1, 1),
    "strongest": ("strongest attack", 1, 4),
    "kendall": ("Kendall under IFIA", 1, 3),
}


def run(config: Config, seeds: int) -> str:
    """Run ``evaluate`` once per seed and write the tables.

    Args:
      config: resolved; its own seeds are replaced.
      seeds: number of seeds, from 0 on.

    Returns:
      The tables as Markdown.

    Raises:
      ValueError: if there are fewer than two seeds, which have no standard error.
      experiments.record.StoreError: if the directory holds something else.
    """
    if seeds < 2:
        raise ValueError(f"`seeds` must be at least 2, got {seeds}: one seed has no standard error.")
    directory = Path(str(config.output))
    summaries = []
    for seed in range(seeds):
        training = dataclasses.replace(config.training, seed=seed)
        one = dataclasses.replace(config, output=str(directory / f"seed-{seed}"), seed=seed, training=training)
        summaries.append(of_store(evaluate(one)).with_columns(seed=pl.lit(seed)))
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
    summary = with_ball(summarize(store.rows(), store.config.small_remainder))
    return summary.join(pl.DataFrame(cards), on="model").select(*GROUP, "n", *_COLUMNS)


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
        rows = [
            [name, *(_mean(part[column], *form) for column, (_, *form) in _COLUMNS.items())] for (name,), part in models
        ]
        parts.append(_table(["model", *(title for title, *_ in _COLUMNS.values())], rows))
        if "natural" in cell["model"]:
            parts.append("Minus the natural model of the same seed; *held*: better by more than two standard errors.\n")
            rows = [[name, *_against(part, cell)] for (name,), part in models if name != "natural"]
            parts.append(_table(["model", *(title for _, _, title in EXPECTED)], rows))
    return "\n".join(parts)


def _against(part: pl.DataFrame, cell: pl.DataFrame) -> list[str]:
    natural = cell.filter(pl.col("model") == "natural")
    both = part.join(natural, on="seed", suffix="_natural")
    found = []
    for column, sign, _ in EXPECTED:
        difference = both[column] - both[f"{column}_natural"]
        mean, error = _moments(difference)
        better = sign * mean
        verdict = "held" if better > 2 * error else "not held" if better < -2 * error else "undecided"
        found.append(f"{_mean(difference, *_COLUMNS[column][1:])}, {verdict}")
    return found


def _moments(values: pl.Series) -> tuple[float, float]:
    numbers = values.drop_nulls().to_list()
    mean = sum(numbers) / len(numbers)
    variance = sum((x - mean) ** 2 for x in numbers) / max(1, len(numbers) - 1)
    return mean, math.sqrt(variance / len(numbers))


def _mean(values: pl.Series, scale: float, digits: int) -> str:
    mean, error = _moments(values)
    return f"{scale * mean:.{digits}f} ({scale * error:.{digits}f})"


def _grouped(values: pl.DataFrame, by: list[str]) -> list[tuple[Any, pl.DataFrame]]:
    return sorted(values.partition_by(*by, as_dict=True, maintain_order=True).items())


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    rule = ["---", *["--:"] * (len(head) - 1)]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (head, rule, *rows)) + "\n"
