"""What paper 000 prints: Tables 2 to 5, transcribed, under the names that our own results have.

Columns are those of :func:`experiments.summary.summarize`: ``paper`` is the mean deviation of the paper's attack, in
degrees ``paper_degrees``; shares are fractions. For l-infinity Table 2 says 0.25 in the text and 0.1 by its entries,
which are those of Table 4; 0.1 is taken.
"""

import functools
from pathlib import Path

import polars as pl

KEYS = ("dataset", "norm", "epsilon", "attribution", "model")
TABLES = (2, 3, 4, 5)
MODELS = ("adversarial", "ig_norm", "adv_aat", "art", "trades", "trades_igr")


@functools.cache
def table(number: int) -> pl.DataFrame:
    """One of the paper's tables, one line per data set, norm, radius, attribution and model.

    Raises:
      ValueError: if the paper has no such table of results.

    Example:
      >>> table(4).filter(pl.col("dataset") == "mnist", pl.col("model") == "adversarial")["kendall"].to_list()
      [0.1846]
    """
    if number not in TABLES:
        raise ValueError(f"the table is {number!r}; paper 000 has results in {', '.join(map(str, TABLES))}.")
    return pl.read_csv(Path(__file__).parent / f"table_{number}.csv")
