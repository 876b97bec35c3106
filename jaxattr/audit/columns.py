"""Tables as values: columns are expressions over lines, and a table is written as Markdown, HTML or CSV."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import polars as pl


# Columns are compared by identity: expressions have no equality that answers yes or no.
@dataclasses.dataclass(frozen=True, eq=False)
class Column:
    """A column of a table.

    Attributes:
      title: of the column; the unit is added to it.
      expression: over the lines of the table: the numbers that the column shows.
      digits: decimals; ``None`` for significant ones. With 0, numbers are counts.
      unit: ``%`` shows shares in percent; any other unit is named and changes nothing.
      instead: expression of words that stand where there is no number.
      brackets: whether numbers stand in brackets, as those of others do.
      significant: number of significant digits, where decimals are not given.
    """

    title: str
    expression: pl.Expr
    digits: int | None = None
    unit: str = ""
    instead: pl.Expr | None = None
    brackets: bool = False
    significant: int = 3

    @property
    def name(self) -> str:
        """The name of the expression's result."""
        return self.expression.meta.output_name()

    @property
    def head(self) -> str:
        """The title with the unit."""
        return f"{self.title}, {self.unit}" if self.unit else self.title

    def cells(self, lines: pl.DataFrame) -> list[str]:
        """Format the column's values, one for each line."""
        values = self.values(lines).to_list()
        words = [""] * len(values) if self.instead is None else lines.select(self.instead).to_series().to_list()
        return [self._cell(value) or word or "" for value, word in zip(values, words, strict=True)]

    def values(self, lines: pl.DataFrame) -> pl.Series:
        """Return the column's values, shares as shares; empty where the lines lack a column."""
        try:
            return lines.select(self.expression).to_series()
        except pl.exceptions.ColumnNotFoundError:
            return pl.Series(self.name, [None] * len(lines), pl.Float64)

    def _cell(self, value: Any) -> str:
        if isinstance(value, str):
            return value
        if value is None or math.isnan(value):
            return ""
        shown = 100 * value if self.unit == "%" else value
        if self.digits is None:
            text = f"{shown:.{self.significant}g}"
        else:
            text = f"{shown:z,.{self.digits}f}"
            # A share above zero must not read as zero.
            if self.unit == "%" and value > 0 and float(text.replace(",", "")) == 0:
                text = f"<{10.0**-self.digits:.{self.digits}f}"
        return f"({text})" if self.brackets else text


@dataclasses.dataclass(frozen=True)
class Table:
    """A table whose cells are formatted.

    Attributes:
      title: of the table.
      head: titles of the columns.
      rows: cells.
      keys: number of columns, from the left, that say what a line is of.
      legend: what its columns mean, as Markdown.
    """

    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    keys: int = 1
    legend: str = ""

    def markdown(self) -> str:
        """Write the table as Markdown, without its title."""
        rule = ["---"] * self.keys + ["--:"] * (len(self.head) - self.keys)
        return "\n".join("| " + " | ".join(cells) + " |" for cells in (self.head, rule, *self.rows))

    def csv(self) -> str:
        """Write the table as CSV, as it is shown."""
        # Titles may repeat (`by at most`), and names of a data frame may not.
        frame = pl.DataFrame(
            {str(i): [row[i] for row in self.rows] for i in range(len(self.head))}, schema_overrides=None
        )
        return pl.DataFrame([self.head], orient="row").write_csv(include_header=False) + frame.write_csv(
            include_header=False
        )


def tabulate(
    title: str, lines: pl.DataFrame, keys: Sequence[Column], columns: Sequence[Column], legend: str = ""
) -> Table:
    """Format lines as a table. A column that is empty for every line tells nothing, and is left out.

    Args:
      title: of the table.
      lines: one for each row.
      keys: columns that say what a line is of.
      columns: columns of numbers.
      legend: what they mean.

    Example:
      >>> lines = pl.DataFrame({"model": ["a", "b"], "share": [0.5, None], "none": [None, None]})
      >>> shown = [Column("share", pl.col("share"), 1, "%"), Column("none", pl.col("none"))]
      >>> print(tabulate("Shares", lines, [Column("model", pl.col("model"))], shown).markdown())
      | model | share, % |
      | --- | --: |
      | a | 50.0 |
      | b |  |
    """
    formatted = [(column, column.cells(lines)) for column in columns]
    shown = [(column, column.cells(lines)) for column in keys] + [each for each in formatted if any(each[1])]
    rows = zip(*(cells for _, cells in shown), strict=True)
    return Table(title, tuple(column.head for column, _ in shown), tuple(rows), len(keys), legend)


def norm_in_words(norm: str) -> str:
    """Return the name of a norm for readers."""
    return norm.replace("linf", "l-infinity")


def radius(epsilon: float) -> str:
    """Format a radius as people write it: as a share of 255, unless it has a short decimal.

    Example:
      >>> radius(8 / 255), radius(0.1)
      ('8/255', '0.1')
    """
    levels = round(255 * epsilon)
    short = round(epsilon, 4) == round(epsilon, 9)
    return f"{levels}/255" if levels and not short and abs(255 * epsilon - levels) < 1e-3 else f"{epsilon:.3g}"


def with_ball(summary: pl.DataFrame) -> pl.DataFrame:
    """Add the column ``ball``, such as ``l2 0.1``."""
    norm = pl.col("norm").replace({"linf": "l-infinity"})
    return summary.with_columns(ball=norm + " " + pl.col("epsilon").map_elements(radius, return_dtype=pl.String))


MODEL, BALL, ATTRIBUTION = (Column(name, pl.col(name)) for name in ("model", "ball", "attribution"))
"""Key columns of every table of an audit; :func:`with_ball` adds the second one."""
