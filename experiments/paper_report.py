"""Everything that has results on one page: ours, the paper's, orderings, claims, figures, and what it cost.

results/paper-000/index.html, report.md     the page, the same as Markdown
results/paper-000/figures/*.png             its figures
results/paper-000/tables/*                  aggregated numbers, from which all but some figures is written again
"""

import base64
import functools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jinja2
import polars as pl

from experiments import comparison, figures, paper_figures, paper_record, paper_words, sweeps, throughput
from experiments.comparison import BEYOND, KEYS, TABLES, Cell
from experiments.paper_record import Record
from experiments.record import StoreError, write_atomic, write_text
from experiments.report import CLAIM
from experiments.store import Store
from experiments.summary import per_sample
from experiments.table import with_ball

# In the order of the page.
FIGURES = {
    "2": "Figure 2. Kendall under attack against the bound on the angle",
    "gaps": "Gaps between bound and strongest attack",
    "1b": "Figure 1b. The Jacobian of integrated gradients at one sample",
    "linearity": "How linear attributions are (Appendix B)",
    "beta": "The same weights with other softplus",
}


class Block(NamedTuple):
    """A piece of the page: a heading, words, a table (first row: the head) and a figure, each if there is one."""

    level: int
    title: str
    text: str = ""
    rows: Sequence[Sequence[str]] = ()
    keys: int = 1
    figure: str = ""


def render(stores: Mapping[str, Store], directory: Path) -> str:
    """Write the page, its figures and tables.

    Args:
      stores: runs by name, from :func:`experiments.paper.stores`; what the report has of others stays in it.
      directory: where to.

    Returns:
      The page as Markdown.

    Raises:
      StoreError: if no run has rows, or results of different configurations or weights would lie in one cell.
    """
    records = paper_record.read(directory)
    images: dict[str, bytes] = {}
    for name, store in stores.items():
        if not store.has_rows():
            continue
        collected = paper_record.collect(store)
        record = paper_record.merge(records.get(name), collected)
        paper_record.write(record, directory)
        records[name] = record
        for figure, image in _draw(store).items():
            # A figure is of one machine's rows: another one that lacks some of the report's does not replace it.
            drawn = (directory / "figures" / f"{name}-{figure}.png").exists()
            if not drawn or len(collected.lines) == len(record.lines):
                images[f"{name}-{figure}"] = image
    if not records:
        raise StoreError("there is no run with rows yet: make one with `table 3 --dataset mnist --preset cpu`.")
    blocks: list[Block] = []
    records = dict(sorted(records.items(), key=lambda item: (paper_words.place(item[1].config.dataset), item[0])))
    for name, record in records.items():
        # Of all cells that the report has, also from other machines.
        kendall = _kendall_against_angle(record)
        images |= {} if kendall is None else {f"{name}-2": kendall}
        blocks += _of_run(record)
        blocks += _figures(record, directory, images)
    blocks = [
        # The preset dense compares bounds on three images: nothing to judge a claim by.
        *_head([c for record in records.values() if record.preset != "dense" for c in comparison.claims(record.lines)]),
        *blocks,
        *_costs(records.values()),
    ]
    for name, image in images.items():
        write_atomic(directory / "figures" / f"{name}.png", functools.partial(_write, image))
    drawn = [block.figure for block in blocks if block.figure]
    shown = {figure: (directory / "figures" / f"{figure}.png").read_bytes() for figure in drawn}
    text = "\n".join(map(_markdown, blocks))
    write_text(directory / "report.md", text)
    write_text(directory / "index.html", _page(blocks, shown))
    return text


def table(number: str, store: Store) -> str:
    """One table of a run beside the paper's, as Markdown."""
    return "\n".join(map(_markdown, _of_table(number, paper_record.collect(store))))


def figure(name: str, store: Store) -> Path:
    """Draw one figure of a run, into its directory.

    Raises:
      StoreError: if the run has no data for it.
    """
    image = _kendall_against_angle(paper_record.collect(store)) if name == "2" else _draw(store).get(name)
    if image is None:
        raise StoreError(f"{store.directory} has nothing to draw figure {name} from.")
    path = store.directory / "figures" / f"{store.directory.name}-{name}.png"
    write_atomic(path, functools.partial(_write, image))
    return path


def _head(claims: Sequence[comparison.Claim]) -> list[Block]:
    verdicts = [["claim", "data", "ours", ""]]
    words = {True: "held", False: "not held", None: "undecided"}
    verdicts += [[claim.text, claim.dataset, claim.figure, words[claim.held]] for claim in claims]
    return [
        Block(
            1,
            "A practical upper bound for the worst-case attribution deviations: the evaluation, run again",
            f"{paper_words.INTRO}\n{CLAIM} Absolute values depend on how the networks were trained,"
            " which the paper does not say: compare orders, shares and ratios.",
        ),
        Block(2, "Terms", _bullets(paper_words.TERMS)),
        Block(2, "The paper's claims", paper_words.CLAIMS, verdicts, keys=2),
        Block(2, "Where the paper says more than holds", _bullets(paper_words.NOT_SO)),
    ]


def _bullets(lines: Iterable[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)


def _of_run(record: Record) -> list[Block]:
    config = record.config
    models = [["model", "accuracy, %", "under PGD, %", "trained by"]]
    for model, card in record.models.items():
        accuracy = under = ""
        if "accuracy" in card:
            pgd = card["pgd"]
            accuracy = f"{100 * card['accuracy']:.1f}"
            under = f"{100 * card['pgd_accuracy']:.1f} (l-infinity {pgd['epsilon']:.3g}, {pgd['steps']} steps)"
        models.append([model, accuracy, under, card["trained"]])
    text = (
        f"Preset {record.preset}: {paper_words.settings(config, record.lines)}"
        f" Configuration {record.hash}, on {', '.join(record.lines['device'].unique().sort())}."
    )
    blocks = [Block(2, f"{paper_words.title(config.dataset)}, preset {record.preset}", text, models)]
    for number in TABLES:
        blocks += _of_table(number, record)
    text, rows = comparison.violations(record.lines)
    return [*blocks, Block(3, f"Attacks outside of the bounds, {config.dataset}", text, rows, keys=3)]


def _of_table(number: str, record: Record) -> list[Block]:
    title, cells = TABLES[number]
    dataset = record.config.dataset
    lines = comparison.beside(number, record.lines)
    if not len(lines) or (number == "2" and lines["attribution"].n_unique() < 2):
        return []
    said = f"`{paper_record.command(record, 'table', number)}`\n{paper_words.note(number, lines)}".strip()
    blocks = [Block(3, f"Table {number}, {dataset}. {title}", said, _rows(lines, cells), keys=3)]
    orders = comparison.orderings(number, lines)
    if orders:
        said = "Spearman's correlation over the defenses of our column with the paper's: is their order the same?"
        blocks.append(Block(4, f"Order of the defenses, Table {number}, {dataset}", said, _order_rows(orders), keys=3))
    if number in BEYOND:
        said = "What the paper does not print, from the same run."
        blocks.append(Block(4, f"Beyond Table {number}, {dataset}", said, _rows(lines, BEYOND[number]), keys=3))
    return blocks


def _rows(lines: pl.DataFrame, cells: Sequence[Cell]) -> list[list[str]]:
    """A column for ours, and one for the paper's where it has any value."""
    columns: list[tuple[str, Callable[[dict[str, Any]], str]]] = []
    for cell in cells:
        there = f"{cell.column}_published"
        if lines[cell.column].count():
            columns.append((cell.title, functools.partial(_value, cell, cell.column)))
        if there in lines.columns and lines[there].count():
            # Beside ours; with a name of its own where ours has nothing to say, as an angle beyond all samples' bounds.
            title = "(paper)" if lines[cell.column].count() else f"{cell.title} (paper)"
            columns.append((title, functools.partial(_value, cell, there)))
    head = [*KEYS, *(title for title, _ in columns)]
    body = [
        [str(row[key]) for key in KEYS] + [form(row) for _, form in columns]
        for row in with_ball(lines).iter_rows(named=True)
    ]
    return [head, *body]


def _value(cell: Cell, column: str, row: dict[str, Any]) -> str:
    value = row[column]
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    text = f"{100 * value if cell.percent else value:z.{cell.digits}f}"
    return f"({text})" if column.endswith("_published") else text


def _order_rows(orders: Sequence[dict[str, Any]]) -> list[list[str]]:
    head = ["column", "norm", "epsilon", "defenses", "Spearman"]
    return [
        head,
        *([o["column"], o["norm"], f"{o['epsilon']:.3g}", str(o["models"]), f"{o['rho']:.2f}"] for o in orders),
    ]


def _figures(record: Record, directory: Path, images: Mapping[str, bytes]) -> list[Block]:
    """Figures of a run that are drawn now, or were when its rows were at hand."""
    found = []
    for figure, title in FIGURES.items():
        name = f"{record.name}-{figure}"
        if name in images or (directory / "figures" / f"{name}.png").exists():
            found.append(
                Block(
                    4,
                    f"{title}, {record.config.dataset}",
                    f"`{paper_record.command(record, 'figure', figure)}`",
                    figure=name,
                )
            )
    return found


def _kendall_against_angle(record: Record) -> bytes | None:
    lines = comparison.beside("4", record.lines)
    # Models whose every bound is vacuous have no place in it.
    placed = lines.drop_nulls(["bound_degrees", "kendall"]) if len(lines) else lines
    return figures.png(paper_figures.kendall_against_angle(lines)) if len(placed) > 1 else None


def _draw(store: Store) -> dict[str, bytes]:
    """Figures of a run that need more than what is kept of it, as far as there are data for them."""
    found: dict[str, bytes] = {}
    if store.has_rows():
        samples = per_sample(store.rows().filter(pl.col("attribution") == "integrated_gradients"))
        if len(samples):
            found["gaps"] = figures.png(figures.histogram(samples, "Relative gaps"))
    draw = {"1b": paper_figures.jacobian, "linearity": paper_figures.linearity, "beta": paper_figures.sharpness}
    for figure, function in draw.items():
        values = sweeps.read(figure, store)
        if values is not None:
            found[figure] = figures.png(function(values))
    return found


def _costs(records: Iterable[Record]) -> list[Block]:
    rows = [row for record in records for row in throughput.costs(record)]
    head = [*throughput.HEAD, *throughput.COLUMNS]
    return [Block(2, "Throughput", throughput.LEGEND, [head, *rows], keys=len(throughput.HEAD))] if rows else []


def _markdown(block: Block) -> str:
    parts = [f"{'#' * block.level} {block.title}", block.text]
    if block.rows:
        rule = ["---"] * block.keys + ["--:"] * (len(block.rows[0]) - block.keys)
        parts.append("\n".join("| " + " | ".join(row) + " |" for row in (block.rows[0], rule, *block.rows[1:])))
    if block.figure:
        parts.append(f"![{block.title}](figures/{block.figure}.png)")
    return "\n\n".join(part for part in parts if part) + "\n"


def _page(blocks: Sequence[Block], images: Mapping[str, bytes]) -> str:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=jinja2.StrictUndefined
    )
    encoded = {name: base64.b64encode(image).decode() for name, image in images.items()}
    return environment.get_template("paper.html.j2").render(blocks=blocks, images=encoded)


def _write(content: bytes, path: Path) -> None:
    path.write_bytes(content)
