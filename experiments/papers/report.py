"""Write one page of all results: ours, the paper's, orderings, claims, figures, and costs.

results/wang2023/index.html, report.md     the page, the same as Markdown
results/wang2023/figures/*.png             its figures
results/wang2023/tables/*                  aggregated numbers, which suffice to rewrite all but some figures
"""

import functools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from experiments import (
    claims,
    comparison,
    figures,
    paper_figures,
    paper_record,
    paper_words,
    published,
    sweeps,
    throughput,
)
from experiments.comparison import BEYOND, TABLES, Cell, Order
from experiments.paper_page import Block, markdown, page
from experiments.paper_record import Record
from experiments.record import StoreError, write_bytes, write_text
from experiments.report import CLAIM
from experiments.store import Store
from experiments.table import radius, with_ball

# Figures in the order of the page.
FIGURES = {
    "2": "Figure 2. Kendall under attack against the bound on the angle",
    "gaps": "Gaps between bound and attack (Appendix D)",
    "1b": "Figure 1b. The Jacobian of integrated gradients at one sample",
    "linearity": "How linear attributions are (Appendix B)",
    "beta": "The same weights with other softplus",
}
_VERDICTS = {True: "held", False: "not held", None: "undecided"}


def render(stores: Mapping[str, Store], directory: Path) -> str:
    """Write the page, its figures and tables.

    Args:
      stores: runs by name, from :func:`experiments.paper.stores`; the report keeps its results of others.
      directory: directory of the report.

    Returns:
      The page as Markdown.

    Raises:
      StoreError: if no run has rows, or results of different configurations or weights would lie in one cell.
    """
    records = paper_record.read(directory)
    images: dict[str, bytes] = {}
    for name, store in stores.items():
        collected = paper_record.collect(store, records.get(name))
        if collected is None:
            continue
        record = paper_record.merge(records.get(name), collected)
        paper_record.write(record, directory)
        records[name] = record
        for figure, (image, models) in _draw_sweeps(store).items():
            # A figure shows one machine's values; another that lacks some of the report's models does not replace it.
            drawn = (directory / "figures" / f"{name}-{figure}.png").exists()
            if not drawn or set(record.lines["model"]) <= set(models):
                images[f"{name}-{figure}"] = image
    if not records:
        raise StoreError("there is no run with rows yet: make one with `table 3 --dataset mnist --preset cpu`.")
    blocks: list[Block] = []
    records = dict(sorted(records.items(), key=lambda item: (paper_words.place(item[1].config.dataset), item[0])))
    for name, record in records.items():
        # These figures show all cells that the report has, also from other machines.
        images |= {f"{name}-{figure}": image for figure, image in _draw(record).items()}
        blocks += _of_run(record)
        blocks += _figures(record, directory, images)
    blocks = [
        *_head(records.values()),
        *blocks,
        *_costs(records.values()),
    ]
    for name, image in images.items():
        write_bytes(directory / "figures" / f"{name}.png", image)
    drawn = [block.figure for block in blocks if block.figure]
    shown = {figure: (directory / "figures" / f"{figure}.png").read_bytes() for figure in drawn}
    text = markdown(blocks)
    write_text(directory / "report.md", text)
    write_text(directory / "index.html", page(blocks, shown))
    return text


def table(number: str, store: Store) -> str:
    """Format one table of a run beside the paper's, as Markdown.

    Raises:
      StoreError: if the run has no rows.
    """
    record = paper_record.collect(store)
    if record is None:
        raise StoreError(f"{store.directory} holds no rows yet.")
    return markdown(_of_table(number, record))


def figure(name: str, store: Store) -> Path:
    """Draw one figure of a run, into its directory.

    Raises:
      StoreError: if the run has no data for it.
    """
    if name in sweeps.SWEEPS:
        image, _ = _draw_sweeps(store).get(name, (None, ()))
    else:
        record = paper_record.collect(store)
        image = None if record is None else _draw(record).get(name)
    if image is None:
        raise StoreError(f"{store.directory} has nothing to draw figure {name} from.")
    path = store.directory / "figures" / f"{store.directory.name}-{name}.png"
    write_bytes(path, image)
    return path


def _head(records: Iterable[Record]) -> list[Block]:
    verdicts = [["claim", "data", "n", "ours", ""]]
    for record in records:
        # The preset dense compares bounds on three images, too few to judge attacks.
        for claim in claims.claims(record.lines, record.dominant, attacked=record.preset != "dense"):
            verdicts.append([claim.text, _name(record), claim.n, claim.figure, _VERDICTS[claim.held]])
    return [
        Block(
            1,
            "A practical upper bound for the worst-case attribution deviations: the evaluation, run again",
            f"{paper_words.INTRO}\n{CLAIM} {paper_words.COMPARE}",
        ),
        Block(2, "Terms", _bullets(paper_words.TERMS)),
        Block(2, "The paper's claims", f"`python -m experiments report`\n{paper_words.CLAIMS}", verdicts, keys=3),
        Block(2, "Where the paper says more than holds", _bullets(paper_words.NOT_SO)),
    ]


def _bullets(lines: Iterable[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)


def _of_run(record: Record) -> list[Block]:
    config = record.config
    models = [["model", "accuracy, %", "under PGD, %", "trained by"]]
    for model, card in sorted(record.models.items(), key=lambda item: published.place(item[0])):
        accuracy = under = ""
        if "accuracy" in card:
            pgd = card["pgd"]
            accuracy = f"{100 * card['accuracy']:.1f}"
            under = f"{100 * card['pgd_accuracy']:.1f} (l-infinity {pgd['epsilon']:.3g}, {pgd['steps']} steps)"
        models.append([published.NAMES.get(model, model), accuracy, under, card["trained"]])
    text = (
        f"Preset {record.preset}: {paper_words.settings(config, record.lines, record.models.values())}"
        f" Configuration {record.hash}, on {', '.join(record.lines['device'].unique().sort())}."
    )
    blocks = [Block(2, f"{paper_words.title(config.dataset)}, preset {record.preset}", text, models)]
    for number in TABLES:
        blocks += _of_table(number, record)
    text, rows = comparison.violations(record.lines)
    # Table 5 needs every row of integrated gradients, Table 2 those of the others: together all of these attacks.
    others = record.lines.filter(pl.col("attribution") != "integrated_gradients")
    commands = [*_commands(record, "table", "5", _of_figures(record)), *_commands(record, "table", "2", others)]
    said = "\n".join([*commands, text])
    title = f"Attacks outside of the bounds, {_name(record)}"
    return [*blocks, Block(3, title, said, rows, keys=3)]


def _name(record: Record) -> str:
    """Return the name of a run in headings."""
    name = paper_words.short(record.config.dataset)
    return name if record.preset == "cpu" else f"{name}, preset {record.preset}"


def _of_table(number: str, record: Record) -> list[Block]:
    title, cells = TABLES[number]
    name = _name(record)
    # The preset dense adds three samples to what another run compares with the paper.
    lines = comparison.beside(number, record.lines, whole=record.preset != "dense")
    ran = lines.drop_nulls("n") if len(lines) else lines
    if not len(lines) or (number == "2" and len(ran) and ran["attribution"].n_unique() < 2):
        return []
    said = "\n".join([*_commands(record, "table", number, ran), paper_words.note(number, lines)]).strip()
    blocks = [Block(3, f"Table {number}, {name}. {title}", said, *_rows(lines, cells, 2 if number == "2" else 4))]
    orders = comparison.orderings(number, ran) if len(ran) else []
    if orders:
        title = f"Order of the defenses, Table {number}, {name}"
        blocks.append(Block(4, title, paper_words.ORDER, _order_rows(orders), keys=3))
    if number in BEYOND and len(ran):
        said = "What the paper does not print, from the same run."
        blocks.append(Block(4, f"Beyond Table {number}, {name}", said, *_rows(ran, BEYOND[number])))
    return blocks


def _commands(record: Record, kind: str, name: str, lines: pl.DataFrame) -> list[str]:
    return [f"`{command}`" for command in paper_record.commands(record, kind, name, lines)]


def _rows(lines: pl.DataFrame, cells: Sequence[Cell], decimals: int = 4) -> tuple[list[list[str]], int]:
    """Build a column for ours, and one for the paper's where it has any value, and count the key columns.

    The paper's numbers have its ``decimals`` (shares: two), so that they are found by searching for them.
    """
    keys = ["model", "ball", "attribution"] if lines["attribution"].n_unique() > 1 else ["model", "ball"]
    columns: list[tuple[str, Callable[[dict[str, Any]], str]]] = []
    for cell in cells:
        there = f"{cell.column}_published"
        # Hide columns without numbers or with zero counts alone; an angle says vacuous where all bounds are.
        shown = cell == comparison.BOUND_DEGREES and lines["n"].count() > 0
        shown |= lines[cell.column].count() > 0 and bool((lines[cell.column] != 0).any() or cell.digits > 0)
        if shown:
            columns.append((cell.title, functools.partial(_ours, cell)))
        if there in lines.columns and lines[there].count():
            # The paper's column is beside ours; it has a name of its own if ours is hidden.
            title = "(paper)" if shown else f"{cell.title} (paper)"
            columns.append((title, functools.partial(_theirs, there, cell.percent, decimals)))
    head = [*keys, *(title for title, _ in columns)]
    body = [
        [str(row[key]) for key in keys] + [form(row) for _, form in columns]
        for row in with_ball(comparison.named(lines)).iter_rows(named=True)
    ]
    return [head, *body], len(keys)


def _ours(cell: Cell, row: dict[str, Any]) -> str:
    value = row[cell.column]
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "vacuous" if cell == comparison.BOUND_DEGREES and row["vacuous"] == 1 else ""
    return f"{100 * value if cell.percent else value:z.{cell.digits}f}"


def _theirs(column: str, percent: bool, decimals: int, row: dict[str, Any]) -> str:
    value = row[column]
    if value is None:
        return ""
    return f"({100 * value:.2f})" if percent else f"({value:.{decimals}f})"


def _order_rows(orders: Sequence[Order]) -> list[list[str]]:
    rows = [["column", "norm", "epsilon", "defenses", "Spearman", "p", "the paper's order"]]
    for order in orders:
        place = [order.cell.title, order.norm.replace("linf", "l-infinity"), radius(order.epsilon), str(order.models)]
        if math.isnan(order.rho):
            rows.append([*place, "", "", "none: all are equal"])
        else:
            rows.append([*place, f"{order.rho:.2f}", f"{order.chance:.2g}", _VERDICTS[order.held]])
    return rows


def _of_figures(record: Record) -> pl.DataFrame:
    """Select the lines that figures show."""
    return record.lines.filter(pl.col("attribution") == "integrated_gradients")


def _figures(record: Record, directory: Path, images: Mapping[str, bytes]) -> list[Block]:
    """Build blocks for a run's figures: of its record, of sweeps (also those stored before), and the missing ones."""
    found, missing = [], []
    ig = _of_figures(record)
    for figure, title in FIGURES.items():
        name = f"{record.name}-{figure}"
        lines = ig.filter(pl.col("norm") == "linf") if figure == "2" else ig
        commands = _commands(record, "figure", figure, lines)
        # Figures of the record are drawn now, or not at all: an older picture shows other rows.
        if name in images or (figure in sweeps.SWEEPS and (directory / "figures" / f"{name}.png").exists()):
            said = "\n".join([*commands, paper_words.CAPTIONS[figure]])
            found.append(Block(3, f"{title}, {_name(record)}", said, figure=name))
        else:
            missing += commands
    # A reader looks for all figures of the paper's own data sets.
    if missing and published.has(record.config.dataset) and record.preset != "dense":
        found.append(Block(3, f"Figures not drawn, {_name(record)}", "\n".join([paper_words.NOT_DRAWN, *missing])))
    return found


def _draw(record: Record) -> dict[str, bytes]:
    """Draw the figures of rows from the lines that the record keeps."""
    lines = comparison.beside("4", record.lines, whole=record.preset != "dense")
    kendall = paper_figures.kendall_against_angle(lines) if len(lines) else None
    with_gaps = _of_figures(record).drop_nulls("gap_quantiles")
    drawn = {"2": kendall, "gaps": paper_figures.gaps(with_gaps) if len(with_gaps) else None}
    return {name: figures.png(figure) for name, figure in drawn.items() if figure is not None}


def _draw_sweeps(store: Store) -> dict[str, tuple[bytes, list[str]]]:
    """Draw the figures of the sweeps that a run has, each with its models."""
    found: dict[str, tuple[bytes, list[str]]] = {}
    draw: dict[str, Callable[[pl.DataFrame], Any]] = {
        "1b": paper_figures.jacobian,
        "linearity": functools.partial(paper_figures.linearity, radii=list(store.config.l2 or ())),
        "beta": functools.partial(paper_figures.sharpness, trained=store.config.beta),
    }
    for figure, function in draw.items():
        values = sweeps.read(figure, store)
        if values is not None:
            found[figure] = figures.png(function(values)), values["model"].unique().to_list()
    return found


def _costs(records: Iterable[Record]) -> list[Block]:
    rows = [row for record in records for row in throughput.costs(record)]
    head = [*throughput.HEAD, *throughput.COLUMNS]
    return [Block(2, "Throughput", throughput.LEGEND, [head, *rows], keys=len(throughput.HEAD))] if rows else []
