"""Compute the cost of bounds and attacks: measured rates, and the hours of the preset ``paper`` at these rates."""

from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl

import jaxattr as ja
from experiments.audits.config import Config, fill_in
from experiments.audits.presets import PRESETS
from experiments.papers.paper import Paper
from experiments.papers.record import Record
from experiments.papers.wang2023.claims import MODELS
from experiments.papers.wang2023.tables import OF
from jaxattr.audit import spec
from jaxattr.audit.columns import Table, norm_in_words
from jaxattr.audit.summary import PAPER_ATTACK

HEAD = (
    *("run", "attribution", "norm", "device", "bounds a second", "attacks a second"),
    "preset paper: times as many gradients an attack",
    "preset paper: hours",
    "the paper's own attacks: hours",
)
# Gradients of these methods do not depend on the number of features.
_ANY_SIZE = 1


def throughput(paper: Paper, records: Sequence[Record]) -> list[Table]:
    """Tabulate measured rates, and the hours at them for the preset ``paper`` and for the paper's own attacks."""
    rows = tuple(row for record in records for row in _costs(paper, record))
    return [Table("Throughput", HEAD, rows, 4, paper.words("throughput"))]


def _costs(paper: Paper, record: Record) -> list[tuple[str, ...]]:
    found = []
    for row in rates(OF.select(record.lines)).iter_rows(named=True):
        if None in (row["bounds_per_second"], row["attacks_per_second"]):
            continue
        measured = [f"{row[name]:.3g}" for name in ("bounds_per_second", "attacks_per_second")]
        names = [record.name, row["attribution"], norm_in_words(row["norm"]), row["device"]]
        scaled = _scaled(record.config, row) if paper.has(record.config.dataset) else ("", "", "")
        found.append((*names, *measured, *scaled))
    return found


def _scaled(config: Config, row: Mapping[str, Any]) -> tuple[str, ...]:
    """Scale a measured rate to the attacks of the preset ``paper`` and of the paper itself, PGD for l2, IFIA otherwise.

    All is empty where the gradients of one of the run's own attacks are not known, or all take none.
    """
    preset = fill_in(PRESETS["paper"][1], "paper")
    here, there = (_average(each, row["attribution"]) for each in (config, preset))
    if not here or not there:
        return "", "", ""
    seconds = 1 / (here * row["attacks_per_second"])
    attacks = 10_000 * len(preset.defenses) * 3 * sum(starts.count for starts in spec.attacks(preset).values())
    one = _gradients(preset, row["attribution"])[PAPER_ATTACK[row["norm"]]] or 0
    own = 10_000 * len(MODELS) * 3 * 20 * one
    return f"{there / here:.0f}", *(f"{seconds * n / 3600:,.0f}" for n in (attacks * there, own))


def _gradients(config: Config, attribution: str) -> dict[str, int | None]:
    """Count gradients of the network for one start of each attack; ``None`` where an attack does not say."""
    attribute: Any = spec.attribution(spec.with_attributions(config, [attribution]), attribution)
    ball = ja.LInf(0.1)
    built = {name: starts.call.build(ball=ball, attribute=attribute) for name, starts in spec.attacks(config).items()}
    return {name: getattr(attack, "gradients", _unknown)(_ANY_SIZE) for name, attack in built.items()}


def _unknown(_: int) -> None:
    return None


def _average(config: Config, attribution: str) -> float | None:
    """Average the gradients of an attack over all starts; ``None`` where one is not known."""
    counts = {name: starts.count for name, starts in spec.attacks(config).items()}
    each = _gradients(config, attribution)
    if None in each.values():
        return None
    return sum(counts[name] * (each[name] or 0) for name in counts) / sum(counts.values())


def rates(lines: pl.DataFrame) -> pl.DataFrame:
    """Compute bounds and attacks per second by device, norm and attribution: inverse means over models and radii."""
    return (
        lines.group_by("device", "attribution", "norm")
        .agg(
            bounds_per_second=1 / pl.col("bound_seconds").mean(),
            attacks_per_second=1 / pl.col("attack_seconds").mean(),
        )
        .sort("device", "attribution", "norm")
    )
