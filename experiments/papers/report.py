"""Write the page of a paper: ours beside its numbers, orders, claims, figures.

results/PAPER/index.html, report.md     the page, the same as Markdown
results/PAPER/figures/*.png             its figures
results/PAPER/tables/*                  aggregated numbers, which suffice to rewrite all but some figures
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from experiments.papers import compare, record
from experiments.papers.compare import VERDICTS
from experiments.papers.paper import Paper, PaperTable
from experiments.papers.record import Record
from experiments.papers.run import read_values
from jaxattr.audit import figures
from jaxattr.audit.blocks import Block, markdown, of_table, page, words
from jaxattr.audit.columns import ATTRIBUTION, BALL, MODEL, Column, Table, tabulate, with_ball
from jaxattr.audit.run_directory import StoreError, write_bytes, write_text
from jaxattr.audit.store import Store


def render(paper: Paper, stores: Mapping[str, Store], directory: Path | None = None) -> str:
    """Write the page, its figures and tables.

    Args:
      paper: whose page it is.
      stores: runs by name, from :func:`experiments.papers.run.stores`; the report keeps its results of others.
      directory: of the report; the paper's own by default.

    Returns:
      The page as Markdown.

    Raises:
      StoreError: if no run has rows, or results of different configurations or weights would lie in one cell.
    """
    directory = paper.results if directory is None else directory
    records = record.read(directory)
    images: dict[str, bytes] = {}
    for name, store in stores.items():
        collected = record.collect(paper, store, records.get(name))
        if collected is None:
            continue
        merged = record.merge(paper, records.get(name), collected)
        record.write(merged, directory)
        records[name] = merged
        for figure, (image, models) in _draw_values(paper, store).items():
            # A figure shows one machine's values; another that lacks some of the report's models does not replace it.
            drawn = (directory / "figures" / f"{name}-{figure}.png").exists()
            if not drawn or set(merged.lines["model"]) <= set(models):
                images[f"{name}-{figure}"] = image
    if not records:
        first = next(iter(paper.tables), "NUMBER")
        raise StoreError(f"there is no run with rows yet: make one with `paper {paper.name} table {first}`.")
    places = {name: (paper.dataset_place(each.config.dataset), name) for name, each in records.items()}
    ordered = [records[name] for name in sorted(records, key=lambda name: places[name])]
    blocks: list[Block] = []
    for each in ordered:
        # These figures show all cells that the report has, also from other machines.
        images |= {f"{each.name}-{figure}": image for figure, image in _draw_lines(paper, each).items()}
        blocks += _of_run(paper, each)
        blocks += _figures(paper, each, directory, images)
    ends = [of_table(2, table) for table in paper.of_all(paper, ordered) if table.rows]
    blocks = [*_head(paper, ordered), *blocks, *ends]
    for name, image in images.items():
        write_bytes(directory / "figures" / f"{name}.png", image)
    drawn = [name for block in blocks for name in block.figures]
    shown = {figure: (directory / "figures" / f"{figure}.png").read_bytes() for figure in drawn}
    text = markdown(blocks)
    write_text(directory / "report.md", text)
    write_text(directory / "index.html", page(blocks, shown, f"jaxattr: {paper.cite}, run again"))
    return text


def table(paper: Paper, number: str, store: Store) -> str:
    """Format one table of a run beside the paper's, as Markdown.

    Raises:
      StoreError: if the run has no rows.
    """
    collected = record.collect(paper, store)
    if collected is None:
        raise StoreError(f"{store.directory} holds no rows yet.")
    return markdown(_of_table(paper, number, collected))


def figure(paper: Paper, name: str, store: Store) -> Path:
    """Draw one figure of a run, into its directory.

    Raises:
      StoreError: if the run has no data for it.
    """
    if paper.figures[name].compute is not None:
        image, _ = _draw_values(paper, store).get(name, (None, ()))
    else:
        collected = record.collect(paper, store)
        image = None if collected is None else _draw_lines(paper, collected).get(name)
    if image is None:
        raise StoreError(f"{store.directory} has nothing to draw figure {name} from.")
    path = store.directory / "figures" / f"{store.directory.name}-{name}.png"
    write_bytes(path, image)
    return path


def claims_table(paper: Paper, records: Iterable[Record]) -> Table:
    """Tabulate the verdicts on a paper's claims, run by run."""
    rows = [
        (claim.text, name_of(paper, each), claim.n, claim.figure, VERDICTS[claim.held])
        for each in records
        for claim in paper.claims(paper, each)
    ]
    return Table("The paper's claims", ("claim", "data", "n", "ours", "verdict"), tuple(rows), 3, paper.words("claims"))


def name_of(paper: Paper, of: Record) -> str:
    """Return the name of a run in headings."""
    name = paper.dataset_name(of.config.dataset)
    return name if of.preset == "cpu" else f"{name}, preset {of.preset}"


def commands(paper: Paper, of: Record, kind: str, name: str, lines: pl.DataFrame) -> str:
    """Return the commands that make a table or figure, a paragraph each."""
    return "\n\n".join(f"`{command}`" for command in record.commands(paper, of, kind, name, lines))


def _head(paper: Paper, records: Sequence[Record]) -> list[Block]:
    intro = _paragraphs(paper.words("intro", names=paper.models), words().claim(), paper.words("compare"))
    verdicts = claims_table(paper, records)
    report = f"`python -m experiments paper {paper.name} report`"
    found = [
        Block(1, paper.title, intro),
        Block(2, "Terms", paper.words("terms")),
        Block(2, verdicts.title, _paragraphs(report, verdicts.legend), verdicts),
        Block(2, "Where the paper says more than holds", paper.words("not_so")),
    ]
    return [block for block in found if block.text or block.table]


def _paragraphs(*parts: str) -> str:
    return "\n\n".join(filter(None, parts))


def _of_run(paper: Paper, of: Record) -> list[Block]:
    title = f"{paper.dataset_title(of.config.dataset)}, preset {of.preset}"
    models = [
        {
            "model": paper.model_name(model),
            "accuracy": card.get("accuracy"),
            "under": _under_attack(card),
            "trained": card["trained"],
        }
        for model, card in sorted(of.models.items(), key=lambda item: paper.place(item[0]))
    ]
    columns = (
        Column("accuracy", pl.col("accuracy"), 1, "%"),
        Column("under PGD", pl.col("under"), unit="%"),
        Column("trained by", pl.col("trained")),
    )
    legend = paper.words("settings", **paper.settings(paper, of))
    shown = tabulate(title, pl.DataFrame(models, schema_overrides={"accuracy": pl.Float64}), [MODEL], columns, legend)
    blocks = [of_table(2, shown)]
    for number in paper.tables:
        blocks += _of_table(paper, number, of)
    return blocks + paper.of_run(paper, of)


def _under_attack(card: Mapping[str, Any]) -> str:
    """Return the accuracy under PGD with the attack in brackets."""
    if "pgd" not in card:
        return ""
    pgd = card["pgd"]
    return f"{100 * card['pgd_accuracy']:.1f} (l-infinity {pgd['epsilon']:.3g}, {pgd['steps']} steps)"


def samples(lines: pl.DataFrame) -> str:
    """Return the number of samples behind the lines, in words."""
    few, many = lines["n"].min(), lines["n"].max()
    return f"{few}" if few == many else f"{few} to {many}"


def _of_table(paper: Paper, number: str, of: Record) -> list[Block]:
    spec, name = paper.tables[number], name_of(paper, of)
    # The preset dense adds three samples to what another run compares with the paper.
    lines = compare.join_published(paper, number, of.lines, whole=of.preset != "dense")
    ran = lines.drop_nulls("n") if len(lines) else lines
    several = len(spec.of.attributions)
    if not len(lines) or (several > 1 and len(ran) and ran["attribution"].n_unique() < 2):
        return []
    said = _paragraphs(commands(paper, of, "table", number, ran), _note(paper, number, lines))
    shown = beside_published(paper, f"Table {number}, {name}. {spec.title}", spec, lines)
    blocks = [Block(3, shown.title, said, shown)]
    orders = compare.orderings(paper, number, ran) if len(ran) else []
    if orders:
        title = f"Order of the defenses, Table {number}, {name}"
        blocks.append(of_table(4, compare.order_table(title, orders, paper.words("order"))))
    if spec.beyond and len(ran):
        title = f"Beyond Table {number}, {name}"
        beyond = [column for column in spec.beyond if _says_something(column, ran)]
        blocks.append(of_table(4, _tabulate(paper, title, ran, beyond, paper.words("beyond"))))
    return blocks


def _note(paper: Paper, number: str, lines: pl.DataFrame) -> str:
    values = [name for name in lines.columns if lines[name].count()]
    absent = ", ".join(paper.model_name(model) for model in lines["model"].unique(maintain_order=True))
    printed = any(name.endswith("_published") for name in values)
    return paper.words("note", number=number, printed=printed, ran="n" in values, models=absent, values=values)


def beside_published(paper: Paper, title: str, spec: PaperTable, lines: pl.DataFrame) -> Table:
    """Tabulate lines with a column for ours, and one for the paper's where it has any value."""
    columns: list[Column] = []
    for column in spec.columns:
        there = f"{column.name}_published"
        # An angle says vacuous where all bounds are.
        shown = (column.instead is not None and lines["n"].count() > 0) or _says_something(column, lines)
        if shown:
            columns.append(column)
        if there in lines.columns and lines[there].count():
            columns.append(compare.published_column(column, spec.decimals, alone=not shown))
    return _tabulate(paper, title, lines, columns)


def _says_something(column: Column, lines: pl.DataFrame) -> bool:
    """Whether a column has numbers, and not zero counts alone."""
    values = column.values(lines)
    return values.count() > 0 and bool(column.digits != 0 or (values != 0).any())


def _tabulate(paper: Paper, title: str, lines: pl.DataFrame, columns: Sequence[Column], legend: str = "") -> Table:
    keys = [MODEL, BALL, ATTRIBUTION] if lines["attribution"].n_unique() > 1 else [MODEL, BALL]
    return tabulate(title, with_ball(paper.named(lines)), keys, columns, legend)


def _figures(paper: Paper, of: Record, directory: Path, images: Mapping[str, bytes]) -> list[Block]:
    """Build blocks for a run's figures: of its record, of values (also those stored before), and the missing ones."""
    found, missing = [], []
    for name, spec in paper.figures.items():
        file = f"{of.name}-{name}"
        said = commands(paper, of, "figure", name, spec.of.select(of.lines))
        # Figures of the record are drawn now, or not at all: an older picture shows other rows.
        if file in images or (spec.compute is not None and (directory / "figures" / f"{file}.png").exists()):
            text = _paragraphs(said, paper.words("caption", name=name))
            found.append(Block(3, f"{spec.title}, {name_of(paper, of)}", text, figures=(file,)))
        elif said:
            missing.append(said)
    # A reader looks for all figures of the paper's own data sets.
    if missing and paper.has(of.config.dataset) and of.preset != "dense":
        text = _paragraphs(paper.words("not_drawn"), *missing)
        found.append(Block(3, f"Figures not drawn, {name_of(paper, of)}", text))
    return found


def _draw_lines(paper: Paper, of: Record) -> dict[str, bytes]:
    """Draw the figures of rows from the lines that the record keeps."""
    found = {}
    for name, spec in paper.figures.items():
        if spec.compute is None:
            drawn = spec.draw(paper, of)
            found |= {} if drawn is None else {name: figures.png(drawn)}
    return found


def _draw_values(paper: Paper, store: Store) -> dict[str, tuple[bytes, list[str]]]:
    """Draw the figures of values that a run has, each with its models."""
    found: dict[str, tuple[bytes, list[str]]] = {}
    for name, spec in paper.figures.items():
        values = None if spec.compute is None else read_values(name, store)
        drawn = None if values is None else spec.draw(paper, values, store.config)
        if values is not None and drawn is not None:
            found[name] = figures.png(drawn), values["model"].unique().to_list()
    return found
