"""Turn the rows of an audit into tables on the terminal, ``table.md``, ``index.html`` and its figures."""

import json
from collections.abc import Sequence
from typing import Any

import polars as pl

from jaxattr._files import write_atomic
from jaxattr.audit import figures, networks, spec
from jaxattr.audit.blocks import Block, markdown, of_table, page, words
from jaxattr.audit.columns import Column, Table, norm_in_words, tabulate
from jaxattr.audit.run_directory import deciding, write_bytes, write_text
from jaxattr.audit.spec import WORST_DIRECTION
from jaxattr.audit.store import Store
from jaxattr.audit.summary import per_sample, summarize
from jaxattr.audit.tables import tables


def render(store: Store, order: Sequence[str] = ()) -> str:
    """Write tables, figures and page of an audit.

    Args:
      store: of the run.
      order: of the models in tables and figures; others come after them, by name.

    Returns:
      The tables as Markdown, with where the page is.
    """
    rows = store.rows()
    summary = summarize(rows, store.metrics())
    shown = tables(summary, (*spec.attacks(store.config), WORST_DIRECTION), store.metrics())
    said = words()
    models = _models(store, order)
    warning = _not_smooth(store, order)
    drawn = _figures(store, per_sample(rows), order)
    for name, image in drawn.items():
        write_bytes(store.directory / "figures" / f"{name}.png", image)
    summary_path = store.directory / "summary.csv"
    write_atomic(summary_path, summary.write_csv)
    made_by = said.made_by(store.config.dataset, store.command)
    head = [
        Block(1, said.title(), "\n\n".join([made_by, said.claim()])),
        Block(2, models.title, warning, models),
    ]
    maps = tuple(name for name in drawn if name.startswith("maps-"))
    body = [
        *(of_table(2, table) for table in shown[:2]),
        Block(2, "Bound against attack, sample by sample", said.scatter(), figures=("bound-against-attack",)),
        Block(2, "How much room the bounds leave", figures=("gaps",)),
        *(of_table(2, table) for table in shown[2:]),
        *([Block(2, "Explanations before and after the worst attack", said.maps(), figures=maps)] if maps else []),
    ]
    path = store.directory / "index.html"
    write_text(store.directory / "table.md", markdown([*head, *(of_table(2, table) for table in shown)]))
    title = f"jaxattr: {store.config.dataset}"
    write_text(path, page([*head, *body, _settings(store, order)], drawn, title))
    where = f"Rows: {store.directory / 'rows'}\nTable: {store.directory / 'table.md'}\nPage: {path}"
    blocks = [Block(3, models.title, warning, models), *(of_table(3, table) for table in shown)]
    return f"{markdown(blocks)}\n{where}"


def _models(store: Store, order: Sequence[str]) -> Table:
    """Tabulate the models' accuracies from their cards, as far as measured."""
    lines = [
        {"model": name, **{key: card[key] for key in ("accuracy", "pgd_accuracy")}, "epsilon": card["pgd"]["epsilon"]}
        for name, card in networks.cards(store.directory / "models", order).items()
        if "accuracy" in card
    ]
    schema = {"model": pl.String, "accuracy": pl.Float64, "pgd_accuracy": pl.Float64, "epsilon": pl.Float64}
    columns = (
        Column("accuracy", pl.col("accuracy"), 1, "%"),
        Column("under PGD, l-infinity", pl.col("pgd_accuracy"), 1, "%"),
        Column("its epsilon", pl.col("epsilon")),
    )
    return tabulate("The models", pl.DataFrame(lines, schema), [Column("model", pl.col("model"))], columns)


def _not_smooth(store: Store, order: Sequence[str]) -> str:
    """Return a warning of networks whose kinks were allowed; empty where all are smooth."""
    directory = store.directory / "models"
    counts = {name: networks.count_kinks(directory / name) for name in networks.cards(directory, order)}
    rough = ", ".join(f"{name} ({count})" for name, count in counts.items() if count)
    return words().not_smooth(rough) if rough else ""


def _figures(store: Store, samples: pl.DataFrame, order: Sequence[str]) -> dict[str, bytes]:
    """Draw every figure, as PNGs by name."""
    found = {
        "bound-against-attack": figures.scatter(samples, "Bound against the strongest attack", order),
        "gaps": figures.histogram(samples, "Gap between bound and strongest attack", order),
    }
    cells = samples.select("model", "attribution", "norm").unique().sort("attribution", "norm", "model")
    for model, attribution, norm in cells.iter_rows():
        pictures = store.pictures(model, attribution, norm)
        if pictures:
            title = f"{attribution.replace('_', ' ')}, {model} model, {norm_in_words(norm)}"
            found[f"maps-{model}-{attribution}-{norm}"] = figures.heat_maps(pictures, title)
    return {name: figures.png(figure) for name, figure in found.items()}


def _settings(store: Store, order: Sequence[str]) -> Block:
    """List settings, versions and seconds; training as each model's card has it, and not as the command asked for."""
    cards = networks.cards(store.directory / "models", order)
    training = {name: card["config"]["training"] for name, card in cards.items() if "config" in card}
    path = store.directory / "timings.json"
    timings = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    measured = {
        name: value for name, value in store.run["config"].items() if name in spec.Measures.__dataclass_fields__
    }
    lines = [
        ("hash of the run", store.hash),
        *_flat({**deciding(store.config), **measured, "training": training}),
        *store.run["environment"].items(),
        *((f"seconds, {name}", value) for name, value in timings.items()),
    ]
    rows = tuple((str(name), str(value)) for name, value in lines)
    return Block(2, "Settings, versions, seconds", table=Table("Settings", ("setting", "value"), rows), folded=True)


def _flat(config: dict[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    found = []
    for name, value in config.items():
        if isinstance(value, dict):
            found += _flat(value, f"{prefix}{name}.")
        else:
            found.append((prefix + name, ", ".join(map(str, value)) if isinstance(value, list) else value))
    return found
