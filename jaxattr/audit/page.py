"""Turn stored rows into tables on the terminal, ``table.md``, ``index.html`` and its figures."""

import base64
import json
from pathlib import Path
from typing import Any

import jinja2
import polars as pl

from experiments import figures, networks, table
from experiments.record import deciding, write_atomic, write_bytes, write_text
from experiments.store import Store
from experiments.summary import per_sample, summarize

CLAIM = (
    "Every bound here is proven for the linear model g(x + δ) = g(x) + Jδ of the attribution, as in Wang and Kong (CVPR"
    " 2023), and claims nothing beyond it. How good that model is at the radius stands beside it: the Taylor remainder"
    " along the bound's worst direction, the corrected bound T'_e, and every attack that went beyond a bound, counted."
    " Singular values found by Lanczos hold with the stated probability. Bounds hold for the whole ball, of which"
    " valid inputs are a part, unless one is said to be within the box."
)


def render(store: Store, command: str) -> str:
    """Write tables, figures and page of a run.

    Args:
      store: the run.
      command: command that made it, for the page.

    Returns:
      The tables as Markdown, with where the page is.
    """
    rows = store.rows()
    summary = summarize(rows, store.config.small_remainder)
    samples = per_sample(rows)
    tables = table.markdown(summary, store.config.small_remainder)
    head = f"# Bounds and attacks: {store.config.dataset}\n\nMade by `{command}`.\n\n{CLAIM}\n\n{_models(store)}\n"
    write_text(store.directory / "command.txt", command + "\n")
    write_text(store.directory / "table.md", f"{head}\n{tables}")
    summary_path = store.directory / "summary.csv"
    write_atomic(summary_path, summary.write_csv)
    drawn = _figures(store, samples)
    for name, _, image in drawn:
        write_bytes(store.directory / "figures" / f"{name}.png", image)
    page = store.directory / "index.html"
    write_text(page, _page(store, command, tables, drawn))
    where = f"Rows: {store.directory / 'rows'}\nTable: {store.directory / 'table.md'}\nPage: {page}"
    return f"{_models(store)}\n{tables}\n{where}"


def command_of(store: Store) -> str:
    """Return the recorded command that made a run."""
    path = store.directory / "command.txt"
    return path.read_text(encoding="utf-8").strip() if path.exists() else "python -m experiments evaluate"


def _models(store: Store) -> str:
    """Format the models' accuracies from their cards, as far as measured, and the kinks that were allowed."""
    lines = ["| model | accuracy | under PGD, l-infinity |", "| --- | --: | --: |"]
    lines += [
        f"| {name} | {100 * card['accuracy']:.1f} % | {100 * card['pgd_accuracy']:.1f} %"
        f" (epsilon {card['pgd']['epsilon']:.3g}) |"
        for name, card in networks.cards(store.directory / "models").items()
        if "accuracy" in card
    ]
    warning = _not_smooth(store)
    return "\n".join([*lines, "", f"**{warning}**", ""] if warning else [*lines, ""])


def _not_smooth(store: Store) -> str:
    """Return a warning of networks whose kinks were allowed; empty where all are smooth."""
    directory = store.directory / "models"
    counts = {name: networks.count_kinks(directory / name) for name in networks.cards(directory)}
    rough = ", ".join(f"{name} ({count})" for name, count in counts.items() if count)
    if not rough:
        return ""
    return (
        f"Not smooth: {rough}, in brackets how many operations are not twice differentiable in the input. Attributions"
        " of such networks jump: their bounds hold for their Jacobians alone, and for no perturbation."
    )


def _figures(store: Store, samples: pl.DataFrame) -> list[tuple[str, str, bytes]]:
    """Draw every figure as (name, kind, PNG)."""
    scatter = figures.scatter(samples, "Bound against the strongest attack")
    histogram = figures.histogram(samples, "Gap between bound and strongest attack")
    found = [
        ("bound-against-attack", "scatter", figures.png(scatter)),
        ("gaps", "histogram", figures.png(histogram)),
    ]
    cells = samples.select("model", "attribution", "norm").unique().sort("attribution", "norm", "model")
    for model, attribution, norm in cells.iter_rows():
        pictures = store.pictures(model, attribution, norm)
        if pictures:
            words = "l-infinity" if norm == "linf" else norm
            title = f"{attribution.replace('_', ' ')}, {model} model, {words}"
            image = figures.png(figures.heat_maps(pictures, title))
            found.append((f"maps-{model}-{attribution}-{norm}", "maps", image))
    return found


def _page(store: Store, command: str, tables: str, drawn: list[tuple[str, str, bytes]]) -> str:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=jinja2.StrictUndefined
    )
    timings = store.directory / "timings.json"
    # The page shows how each model was trained, instead of what the command line asked for.
    cards = networks.cards(store.directory / "models")
    training = {name: card["config"]["training"] for name, card in cards.items() if "config" in card}
    return environment.get_template("page.html.j2").render(
        config=store.config,
        environment=store.run["environment"],
        hash=store.hash,
        # These settings are those of the trained models, instead of those that the command line asked for.
        settings=_flat({**deciding(store.config), "training": training}),
        timings=json.loads(timings.read_text(encoding="utf-8")) if timings.exists() else {},
        command=command,
        claim=CLAIM,
        models=_parse(_models(store)),
        not_smooth=_not_smooth(store),
        sections=[_section(text) for text in tables.split("### ")[1:]],
        figures=[(name, kind, base64.b64encode(image).decode()) for name, kind, image in drawn],
    )


def _section(text: str) -> dict[str, Any]:
    title, legend, body = text.split("\n\n", 2)
    return {"title": title.strip(), "legend": legend.replace("*", ""), "table": _parse(body)}


def _parse(text: str) -> list[list[str]]:
    """Split a Markdown table into its cells, without its rule."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for i, line in enumerate(lines) if i != 1]


def _flat(config: dict[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    found = []
    for name, value in config.items():
        if isinstance(value, dict):
            found += _flat(value, f"{prefix}{name}.")
        else:
            found.append((prefix + name, ", ".join(map(str, value)) if isinstance(value, list) else value))
    return found
