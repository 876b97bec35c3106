"""What bounds and attacks cost: measured rates, and the hours that they make of the preset ``paper``."""

import polars as pl

from experiments import published
from experiments.config import Config, fill_in
from experiments.paper_record import Record
from experiments.presets import PRESETS

HEAD = ("run", "attribution", "norm", "device")
COLUMNS = ("bounds a second", "attacks a second", "gradients of `paper`", "hours of `paper`")
LEGEND = (
    "Bounds and attacks per second of a device, compilation left out, beside whatever else ran on it: one attack is"
    " one start, of PGD, IFIA or ascent on average. The last columns scale that to the preset `paper` (10,000"
    " samples, seven models, three radii, 20 starts of each attack): how many times as many gradients of the"
    " network its average attack takes, and the hours that this device would take for one norm; empty where the paper"
    " has no table of the data set."
)


def costs(record: Record) -> list[list[str]]:
    """Measured rates, and what they make of the preset ``paper``."""
    paper, config = fill_in(PRESETS["paper"][1], "paper"), record.config
    factor = _attack_steps(paper) / _attack_steps(config)
    found = []
    for row in rates(record.lines).iter_rows(named=True):
        if None in (row["bounds_per_second"], row["attacks_per_second"]):
            continue
        count = 10_000 * len(paper.defenses) * 3 * (2 * int(paper.ifia_restarts or 0) + paper.restarts)
        hours = count * factor / row["attacks_per_second"] / 3600
        measured = [f"{row[name]:.3g}" for name in ("bounds_per_second", "attacks_per_second")]
        scaled = [f"{factor:.0f}", f"{hours:,.0f}"] if published.has(config.dataset) else ["", ""]
        names = [record.name, row["attribution"], row["norm"], row["device"]]
        found.append([*names, *measured, *scaled])
    return found


def _attack_steps(config: Config) -> float:
    """Gradients of the network per average attack; that of an attribution costs two for each point of its path."""
    climbing = int(config.ifia_restarts or 0) + int(config.ascent_restarts or 0)
    gradients = climbing * config.ifia_steps * config.ig_steps * 2 + config.restarts * config.pgd_steps
    return gradients / (climbing + config.restarts)


def rates(ours: pl.DataFrame) -> pl.DataFrame:
    """Bounds and attacks per second, by device, norm and attribution: inverse means over models and radii."""
    return (
        ours.group_by("device", "attribution", "norm")
        .agg(
            bounds_per_second=1 / pl.col("bound_seconds").mean(),
            attacks_per_second=1 / pl.col("attack_seconds").mean(),
        )
        .sort("device", "attribution", "norm")
    )
