"""Compare our numbers with those of a paper, cell by cell and by the order of the models."""

from typing import NamedTuple

import numpy as np
import polars as pl
import scipy.stats

from experiments.datasets import defaults_of
from experiments.papers.paper import Paper
from jaxattr.audit.columns import Column, Table, norm_in_words, radius

VERDICTS = {True: "held", False: "not held", None: "undecided"}


def join_published(paper: Paper, number: str, ours: pl.DataFrame, whole: bool = False) -> pl.DataFrame:
    """Select the lines of a run that a table of a paper is of; the paper's values have the suffix ``_published``.

    Args:
      paper: of the table.
      number: of the table.
      ours: lines of one data set, from :class:`experiments.papers.record.Record`.
      whole: whether to add the paper's lines that the run lacks, with empty columns of ours.
    """
    table, theirs = paper.tables[number], paper.published(number)
    dataset = str(ours["dataset"][0])
    defaults = defaults_of(dataset)
    main = {"l2": defaults.main_l2, "linf": defaults.main_linf}
    lines = table.of.select(ours)
    if table.one_radius:
        # Select the one radius of the table: the data set's main one, or the only one that there is.
        at_main = (pl.col("epsilon") - pl.col("norm").replace_strict(main)).abs() < 1e-9
        lines = lines.filter(at_main | (pl.col("epsilon").n_unique().over("norm") == 1))
    # Round radii such as 8/255, which have been through JSON and CSV.
    key = pl.col("epsilon").round(6).alias("radius")
    theirs = theirs.filter(pl.col("dataset") == paper.published_name(dataset)).with_columns(key)
    on = ["norm", "radius", "attribution", "model"]
    joined = lines.with_columns(key).join(
        theirs.drop("dataset", "epsilon"), on=on, how="full" if whole else "left", suffix="_published", coalesce=True
    )
    joined = joined.with_columns(pl.col("epsilon").fill_null(pl.col("radius"))).drop("radius")
    order = pl.col("model").map_elements(paper.place, return_dtype=pl.Int64)
    return joined.sort("norm", "epsilon", "attribution", order, "model")


class Order(NamedTuple):
    """Whether models have the paper's order in a column, at one radius.

    Attributes:
      norm: norm of the perturbation.
      epsilon: its radius.
      column: the column.
      models: number of models that could be compared.
      rho: Spearman's correlation; NaN where all are equal.
      chance: probability of a correlation as large by chance, of either sign.
    """

    norm: str
    epsilon: float
    column: Column
    models: int
    rho: float
    chance: float

    @property
    def held(self) -> bool | None:
        """Whether the orders agree; ``None`` if that could be chance, or there is no order."""
        return agrees(self.rho, self.chance)


def agrees(rho: float, chance: float) -> bool | None:
    """Whether a correlation is positive; ``None`` where it could be chance."""
    return rho > 0 if chance < 0.05 else None


def orderings(paper: Paper, number: str, lines: pl.DataFrame) -> list[Order]:
    """Compare the order of the models column by column, where at least three can be compared.

    Args:
      paper: of the table.
      number: of the table.
      lines: from :func:`join_published`.
    """
    found: list[Order] = []
    if not paper.tables[number].ranked:
        return found
    for (norm, epsilon), group in sorted(lines.partition_by("norm", "epsilon", as_dict=True).items()):
        for column in paper.tables[number].columns:
            there = f"{column.name}_published"
            if there not in group.columns:
                continue
            pairs = group.select(column.name, there).drop_nulls()
            if len(pairs) < 3:
                continue
            rho, chance = spearman(pairs[column.name], pairs[there])
            found.append(Order(norm, epsilon, column, len(pairs), rho, chance))
    return found


def order_table(title: str, orders: list[Order], legend: str) -> Table:
    """Tabulate comparisons of orders."""
    head = ("column", "norm", "epsilon", "defenses", "Spearman", "p", "the paper's order")
    rows = []
    for order in orders:
        place = (order.column.head, norm_in_words(order.norm), radius(order.epsilon), str(order.models))
        if np.isnan(order.rho):
            rows.append((*place, "", "", "none: all are equal"))
        else:
            rows.append((*place, f"{order.rho:.2f}", f"{order.chance:.2g}", VERDICTS[order.held]))
    return Table(title, head, tuple(rows), 3, legend)


def spearman(a: pl.Series, b: pl.Series) -> tuple[float, float]:
    """Compute rank correlation and the probability of one as large by chance, of either sign; NaN if one is constant.

    The probability is counted over all orders: SciPy's own is for many pairs, and 0 for any three in the same order.
    """
    if a.n_unique() < 2 or b.n_unique() < 2:
        return float("nan"), float("nan")
    rank, other = scipy.stats.rankdata(a), scipy.stats.rankdata(b)

    def correlation(ranks: np.ndarray, axis: int) -> np.ndarray:
        centered = ranks - ranks.mean(axis, keepdims=True)
        return (centered * (other - other.mean())).sum(axis) / (len(other) * rank.std() * other.std())

    # The probability is exact for up to seven models (5,040 orders).
    found = scipy.stats.permutation_test(
        (rank,), correlation, permutation_type="pairings", vectorized=True, n_resamples=10_000, rng=0
    )
    return float(found.statistic), float(found.pvalue)


def published_column(column: Column, decimals: int, alone: bool) -> Column:
    """Return the column of the paper's numbers that stands beside one of ours, in brackets.

    Args:
      column: ours.
      decimals: of the paper's numbers; shares have two.
      alone: whether ours is hidden, so that this one has to say what it is.
    """
    title = f"{column.head} (paper)" if alone else "(paper)"
    digits = 2 if column.unit == "%" else decimals
    # The head has the unit of ours: a title that says `paper` alone has none of its own.
    return Published(title, pl.col(f"{column.name}_published"), digits, column.unit, brackets=True)


class Published(Column):
    """A column of a paper's numbers."""

    @property
    def head(self) -> str:
        """The title alone."""
        return self.title
