"""Count attacks of all kinds that exceeded a bound, and say whether the linear model was to blame."""

import polars as pl

from experiments.papers import report
from experiments.papers.paper import Needs, Paper
from experiments.papers.record import Record
from experiments.papers.wang2023.claims import OF_OTHERS
from experiments.papers.wang2023.tables import BOTH, IG, OF
from jaxattr.audit.blocks import Block, of_table
from jaxattr.audit.columns import ATTRIBUTION, BALL, MODEL, Column, tabulate, with_ball

COLUMNS = (
    Column("outside T_e", pl.format("{} of {}", "outside_count", "attacks")),
    Column("samples", pl.format("{} of {}", "outside_samples", "n")),
    Column("by at most", pl.col("outside_excess"), unit="%", significant=2),
    Column("their remainder", pl.col("outside_remainder"), unit="%", significant=2),
    Column("that of all", pl.col("remainder_median"), unit="%", significant=2),
    Column("beyond it", (pl.col("outside_count") - pl.col("outside_within")).cast(pl.String)),
    Column("outside T'_e (samples)", pl.format("{} ({})", "outside_corrected_count", "outside_corrected_samples")),
    Column("by at most", pl.col("outside_corrected_excess"), unit="%", significant=2),
)


def violations(paper: Paper, record: Record) -> list[Block]:
    """Tabulate the lines of a run that have attacks outside of a bound, below the totals in words."""
    ours = OF.select(record.lines)
    counts = ("attacks", "outside_count", "outside_corrected_count", "outside_within", "attacks_not_finite")
    names = ("attacks", "outside", "corrected", "within")
    totals = [int(ours[name].sum()) for name in counts]
    said = {name: f"{total:,}" for name, total in zip(names, totals, strict=False)}
    text = paper.words("violations", **said, without=f"{totals[-1]:,}" if totals[-1] else "")
    # Table 5 needs every row of integrated gradients, Table 2 those of the others: together all of these attacks.
    ig, others = Needs((IG,), BOTH).select(ours), OF_OTHERS._replace(models=None).select(ours)
    commands = [report.commands(paper, record, "table", "5", ig), report.commands(paper, record, "table", "2", others)]
    lines = with_ball(paper.named(ours.filter(pl.col("outside_count") > 0)))
    title = f"Attacks outside of the bounds, {report.name_of(paper, record)}"
    table = tabulate(title, lines, (MODEL, BALL, ATTRIBUTION), COLUMNS, text)
    return [of_table(3, table, "\n\n".join(filter(None, commands)))]
