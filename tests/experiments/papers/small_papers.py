"""What tests of papers share: the options of a small run, and records as runs of Wang and Kong 2023 would have them."""

import itertools
from pathlib import Path

import polars as pl

from experiments.audits.config import Config, fill_in
from experiments.papers import wang2023
from experiments.papers.record import Record
from experiments.papers.wang2023.claims import MODELS
from jaxattr.audit.store import Store

PAPER = wang2023.PAPER
RESULTS = Path(__file__).resolve().parents[3] / "results"
"""Where the pages and records of papers are kept."""
BOUNDS = ("norm_relaxation(tolerance=0.0)", "entrywise", "semidefinite")
BOUNDS += ("semidefinite_box=semidefinite(within_box=True)",)
SMALL = ["--preset", "smoke", "--dataset", "digits", "--source", "zoo", "--defenses", "natural", "trades_igr"]
SMALL += ["--num-samples", "8", "--batch-size", "8", "--attributions", "integrated_gradients(num_steps=2)"]
SMALL += ["--rank-samples", "3", "--bounds", *BOUNDS, "--l2", "--pictures", "0"]


def stored(directory):
    """The run in a directory."""
    return Store(directory, Config)


def lines(**columns):
    """Lines of MNIST as three models of a run have them; what is not given does not matter."""
    values = {
        "model": list(MODELS[:3]) * 2,
        "norm": ["l2"] * 3 + ["linf"] * 3,
        "epsilon": [0.05] * 6,
        "attribution": ["integrated_gradients"] * 6,
        "dataset": ["mnist"] * 6,
        "device": ["one core"] * 6,
    }
    shown = itertools.chain.from_iterable(table.columns for table in PAPER.tables.values())
    others = ["paper_outside_corrected", "theorem_2_active", "kendall_nonzero", "theorem_2"]
    others += [f"{name}_bounded" for name in ("kendall", "kendall_nonzero", "paper_degrees")]
    given = {name: [0.5] * 6 for name in [*(column.name for column in shown), *others]}
    counts = {"n": [7] * 6, "attacks_not_finite": [0] * 6, "outside_count": [0] * 6, "attacks": [9] * 6}
    return pl.DataFrame({**given, **counts, **values, **columns})


def record(of=None, preset="cpu", **values):
    """A record of these lines."""
    of = lines() if of is None else of
    dataset = of["dataset"][0]
    config = fill_in(Config(dataset=dataset), preset)
    return Record(f"{dataset}-{preset}", config, 1, {}, (), {}, of, values)
