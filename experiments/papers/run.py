"""Compute the rows that a table or a figure of a paper needs.

    python -m experiments paper wang2023 table 3 --dataset mnist --preset cpu
    python -m experiments paper wang2023 figure linearity --dataset mnist --preset cpu
    python -m experiments paper wang2023 report

All tables of a data set and preset share one run of ``audit`` in ``runs/PAPER/DATASET-PRESET``: each finds the rows
that another has computed. ``report`` renders every such run into one page.
"""

import dataclasses
from pathlib import Path

import polars as pl

from experiments.audits.config import Config, models
from experiments.audits.run import audit
from experiments.papers.paper import Needs, Paper
from jaxattr._files import write_atomic
from jaxattr.audit import networks, spec
from jaxattr.audit.run_directory import StoreError
from jaxattr.audit.store import Store

SAMPLES = 20
"""Number of samples of each model for figures that are computed on their own."""


def compute(paper: Paper, kind: str, name: str, config: Config, command: str | None = None) -> Store:
    """Compute the missing results of a table or figure.

    Args:
      paper: of the table.
      kind: ``table`` or ``figure``.
      name: number of the table, or name of the figure.
      config: resolved configuration of the run that all share.
      command: as it was written.

    Raises:
      ValueError: if there is none of this name, or the run lacks its model.
    """
    known = paper.tables if kind == "table" else paper.figures
    if name not in known:
        raise ValueError(f"the {kind} is {name!r}; {paper.cite} has {', '.join(known) or 'none'} here.")
    needs = known[name].of
    if kind == "figure" and paper.figures[name].compute is not None:
        config = spec.with_attributions(config, needs.attributions)
        store = audit(config, [], command)
        compute_values(paper, name, store, config)
        return store
    chosen = tuple(model for model in models(config) if needs.models is None or model in needs.models)
    if not chosen:
        raise ValueError(f"{kind} {name} is about {', '.join(needs.models or ())}: add it to `--defenses`.")
    radii = spec.norms(config)
    pairs = [(label, norm) for label in needs.attributions for norm in needs.norms if norm in radii]
    return audit(with_rows_of(config, needs, chosen), pairs, command)


def with_rows_of(config: Config, needs: Needs, chosen: tuple[str, ...]) -> Config:
    """Return the configuration with these models, and the attributions of a table where it has none of their label."""
    by_label = {label: text for text, label in zip(config.defenses, models(config), strict=True)}
    defenses = tuple(by_label[model] for model in chosen)
    return dataclasses.replace(spec.with_attributions(config, needs.attributions), defenses=defenses)


def stores(paper: Paper, root: Path | None = None, skip_damaged: bool = False) -> dict[str, Store]:
    """Return all runs of a paper, by name."""
    found = sorted(path.parent for path in (root or paper.runs).glob("*/run.json"))
    return {path.name: Store(path, Config, skip_damaged=skip_damaged) for path in found}


def compute_values(paper: Paper, name: str, store: Store, config: Config) -> None:
    """Compute the values of a figure, or those of the models that the run lacks in it.

    They are one CSV file in the directory of the run, to which models are added; a killed command loses the models in
    progress (minutes).
    """
    function = paper.figures[name].compute
    assert function is not None
    there = read_values(name, store)
    samples = min(SAMPLES, config.num_samples or SAMPLES)
    # Drop lines of too few samples, or of a command that asked for fewer.
    kept = None if there is None else there.filter(pl.col("n") >= samples)
    done = () if kept is None else kept["model"].unique().to_list()
    lacking = tuple(model for model in models(config) if model not in done)
    if lacking:
        made = pl.DataFrame(function(store, config, lacking))
        frame = made if kept is None else pl.concat([kept, made])
        write_atomic(store.directory / f"{name}.csv", frame.write_csv)


def read_values(name: str, store: Store) -> pl.DataFrame | None:
    """Read the values of a figure for the run's models, if any: one line per model and value, of n samples.

    Raises:
      StoreError: if they cannot be read.
    """
    path = store.directory / f"{name}.csv"
    if not path.exists():
        return None
    weights = {model: card["weights"] for model, card in networks.cards(store.directory / "models").items()}
    try:
        lines = pl.read_csv(path)
        # Lines of earlier weights say nothing about the current ones.
        current = pl.col("weights") == pl.col("model").replace_strict(weights, default=None, return_dtype=pl.String)
        lines = lines.filter(current & (pl.col("n") > 0))
    except pl.exceptions.PolarsError as error:
        raise StoreError(f"{path} is damaged, or of another version ({error}). Remove it to make it again.") from error
    return lines if len(lines) else None
