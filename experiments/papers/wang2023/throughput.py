"""Compute the cost of bounds and attacks: measured rates, and the hours of the preset ``paper`` at these rates."""

import polars as pl

from experiments import published
from experiments.config import Config, fill_in
from experiments.paper_record import Record
from experiments.presets import PRESETS

HEAD = ("run", "attribution", "norm", "device")
COLUMNS = (
    "bounds a second",
    "attacks a second",
    "preset paper: times as many gradients an attack",
    "preset paper: hours",
    "the paper's own attacks: hours",
)
LEGEND = (
    "Bounds and attacks per second of a device, without compilation: one attack is one start, of PGD, IFIA or ascent on"
    " average. Two processes of a run share the cores, so that a rate is of a half of them, and one of data sets whose"
    " runs had them alone may be twice as high. The last columns scale that by gradients of the network: how many times"
    " as many an average attack of our preset *paper* takes, the hours that this device would take for that preset and"
    " one norm (10,000 samples, seven models, three radii, 20 starts of each of three attacks), and for what the paper"
    " itself ran (20 starts of the norm's one attack, six models; of its three data sets that makes ten million attacks"
    " a norm), on a GeForce RTX 3090 in a time that it does not say. They are empty where Tables 2 to 5 do not have the"
    " data set. A run whose every model took one batch, in which compilation was, has no rate."
)


def costs(record: Record) -> list[list[str]]:
    """List measured rates, and the hours at these rates for the preset ``paper`` and for the paper's own attacks."""
    paper, config = fill_in(PRESETS["paper"][1], "paper"), record.config
    found = []
    for row in rates(record.lines).iter_rows(named=True):
        if None in (row["bounds_per_second"], row["attacks_per_second"]):
            continue
        # Three sets of attacks: measured, of the preset `paper`, and the paper's, PGD for l2 and IFIA for l-infinity.
        climb, push = (_gradients(kind, row["attribution"], paper) for kind in ("ifia", "pgd"))
        here, there = (_average(row["attribution"], each) for each in (config, paper))
        seconds = 1 / (here * row["attacks_per_second"])
        attacks = 10_000 * len(paper.defenses) * 3 * (2 * int(paper.ifia_restarts or 0) + paper.restarts)
        own = 10_000 * len(published.MODELS) * 3 * 20 * (push if row["norm"] == "l2" else climb)
        scaled = [f"{there / here:.0f}", *(f"{seconds * n / 3600:,.0f}" for n in (attacks * there, own))]
        measured = [f"{row[name]:.3g}" for name in ("bounds_per_second", "attacks_per_second")]
        names = [record.name, row["attribution"], row["norm"].replace("linf", "l-infinity"), row["device"]]
        found.append([*names, *measured, *(scaled if published.has(config.dataset) else [""] * 3)])
    return found


def _gradients(kind: str, attribution: str, config: Config) -> float:
    """Count gradients of the network for one attack; that of an attribution costs two for each point of its path."""
    points = config.ig_steps if attribution == "integrated_gradients" else 1
    return float(config.pgd_steps if kind == "pgd" else config.ifia_steps * points * 2)


def _average(attribution: str, config: Config) -> float:
    climbing = int(config.ifia_restarts or 0) + int(config.ascent_restarts or 0)
    push, climb = (_gradients(kind, attribution, config) for kind in ("pgd", "ifia"))
    return (climbing * climb + config.restarts * push) / (climbing + config.restarts)


def rates(ours: pl.DataFrame) -> pl.DataFrame:
    """Compute bounds and attacks per second by device, norm and attribution: inverse means over models and radii."""
    return (
        ours.group_by("device", "attribution", "norm")
        .agg(
            bounds_per_second=1 / pl.col("bound_seconds").mean(),
            attacks_per_second=1 / pl.col("attack_seconds").mean(),
        )
        .sort("device", "attribution", "norm")
    )
