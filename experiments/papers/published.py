"""Tables 2 to 5 of Wang and Kong 2023, transcribed, under the names that our own results have.

Columns are those of :func:`experiments.summary.summarize`: ``paper`` is the mean deviation of the paper's attack, in
degrees ``paper_degrees``; shares are fractions. For l-infinity Table 2 says 0.25 in the text and 0.1 by its entries,
which are those of Table 4; 0.1 is taken.
"""

import functools
from pathlib import Path

import polars as pl

KEYS = ("dataset", "norm", "epsilon", "attribution", "model")
TABLES = (2, 3, 4, 5)
# Our names of models, in the order of the paper, and its names.
NAMES = {
    "adversarial": "AT",
    "ig_norm": "IG-NORM",
    "adv_aat": "AdvAAT",
    "art": "ART",
    "trades": "TRADES",
    "trades_igr": "TRADES+IGR",
}
MODELS = tuple(NAMES)
# This copy of CIFAR-10 has another name; other data sets of ours are in no table of the paper.
_SAME = {"cifar10_jpeg": "cifar10"}


@functools.cache
def table(number: int) -> pl.DataFrame:
    """Read one of the paper's tables, one line per data set, norm, radius, attribution and model.

    Raises:
      ValueError: if the paper has no such table of results.

    Example:
      >>> table(4).filter(pl.col("dataset") == "mnist", pl.col("model") == "adversarial")["kendall"].to_list()
      [0.1846]
    """
    if number not in TABLES:
        raise ValueError(f"the table is {number!r}; Wang and Kong 2023 have results in {', '.join(map(str, TABLES))}.")
    return pl.read_csv(Path(__file__).parent / f"table_{number}.csv")


def place(model: str) -> int:
    """Return the sort position of a model's rows: models that the paper does not have come first."""
    return MODELS.index(model) if model in MODELS else -1


def dataset(name: str) -> str:
    """Return the name of a data set of ours in the paper's tables, if they have it."""
    return _SAME.get(name, name)


def has(name: str) -> bool:
    """Whether the paper's tables have a data set of ours."""
    return dataset(name) in table(3)["dataset"]
