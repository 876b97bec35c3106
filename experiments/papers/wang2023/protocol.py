"""Compute the rows that each table and figure of Wang and Kong 2023 needs.

    python -m experiments table 3 --dataset mnist --preset cpu
    python -m experiments figure linearity --dataset mnist --preset cpu
    python -m experiments report

All tables of a data set and preset share one run of ``evaluate`` in ``runs/wang2023/DATASET-PRESET``: each finds the
rows that another has computed. ``report`` renders every such run into one page.
"""

import dataclasses
from pathlib import Path
from typing import NamedTuple

from experiments import sweeps
from experiments.config import Config, norms
from experiments.evaluate import evaluate
from experiments.store import Store

RUNS = Path("runs/wang2023")
REPORT = Path("results/wang2023")
_ALL = ("saliency", "input_x_gradient", "integrated_gradients")
_IG = "integrated_gradients"


class Needs(NamedTuple):
    """Rows that a table needs: attributions, norms, and models (None for all of the run)."""

    attributions: tuple[str, ...]
    norms: tuple[str, ...]
    models: tuple[str, ...] | None = None


TABLES: dict[str, Needs] = {
    "2": Needs(_ALL, ("l2", "linf"), ("trades_igr",)),
    "3": Needs((_IG,), ("l2",)),
    "4": Needs((_IG,), ("linf",)),
    "5": Needs((_IG,), ("l2", "linf")),
}
# Figures are drawn from rows, too, or from what `sweeps` computes for them.
FIGURES: dict[str, Needs | None] = {
    "2": TABLES["4"],
    "gaps": TABLES["5"],
    **dict.fromkeys(sweeps.SWEEPS),
}


def directory(dataset: str, preset: str) -> Path:
    """Return the directory of the run that all tables of a data set and preset share."""
    return RUNS / f"{dataset}-{preset}"


def compute(kind: str, name: str, config: Config) -> Store:
    """Compute the missing results of a table or figure.

    Args:
      kind: ``table`` or ``figure``.
      name: name of the table or figure.
      config: resolved configuration of the run that all share.

    Raises:
      ValueError: if there is none of this name, or the run lacks its model.
    """
    known = TABLES if kind == "table" else FIGURES
    if name not in known:
        raise ValueError(f"the {kind} is {name!r}; accepted are {', '.join(known)}.")
    needs = known[name]
    if needs is None:
        store = evaluate(config, [])
        sweeps.compute(name, store, config)
        return store
    models = [model for model in config.defenses if needs.models is None or model in needs.models]
    if not models:
        raise ValueError(f"{kind} {name} is about {', '.join(needs.models or ())}: add it to `--defenses`.")
    pairs = [(attribute, norm) for attribute in needs.attributions for norm in needs.norms if norm in norms(config)]
    return evaluate(dataclasses.replace(config, defenses=tuple(models), attributions=needs.attributions), pairs)


def stores(root: Path = RUNS, skip_damaged: bool = False) -> dict[str, Store]:
    """Return all runs below a directory, by name."""
    found = sorted(path.parent for path in root.glob("*/run.json"))
    return {path.name: Store(path, None, skip_damaged=skip_damaged) for path in found}
