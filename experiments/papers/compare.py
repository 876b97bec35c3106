"""Compare our numbers to those of Wang and Kong 2023, cell by cell and by the order of the defenses."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import polars as pl
import scipy.stats

from experiments import published
from experiments.datasets import known
from experiments.store import Store
from experiments.summary import summarize
from experiments.table import with_ball

KEYS = ("model", "ball", "attribution")


class Cell(NamedTuple):
    """A column of a table: ours, and the paper's where it has one."""

    title: str
    column: str
    digits: int
    percent: bool = False


COUNT = Cell("n", "n", 0)
VACUOUS = Cell("vacuous, %", "vacuous", 1, percent=True)
ATTACK = Cell("T̂_e", "paper", 4)
BOUND = Cell("T_e", "bound", 4)
OUTSIDE = Cell("outside T_e, %", "paper_outside", 2, percent=True)
CORRECTED = Cell("T'_e", "corrected", 4)
ATTACK_DEGREES = Cell("T̂_c, deg", "paper_degrees", 2)
BOUND_DEGREES = Cell("T_c, deg", "bound_degrees", 2)
KENDALL = Cell("Kendall", "kendall", 3)
TIGHTNESS = Cell("r", "r", 4)

TABLES: dict[str, tuple[str, Sequence[Cell]]] = {
    "2": (
        "TRADES+IGR: three attributions, both norms",
        (COUNT, ATTACK, BOUND, CORRECTED, ATTACK_DEGREES, BOUND_DEGREES, VACUOUS),
    ),
    "3": (
        "Integrated gradients under l2 perturbations",
        (COUNT, ATTACK, BOUND, OUTSIDE, CORRECTED, ATTACK_DEGREES, BOUND_DEGREES, VACUOUS),
    ),
    "4": (
        "Integrated gradients under l-infinity perturbations",
        (COUNT, KENDALL, ATTACK, BOUND, ATTACK_DEGREES, BOUND_DEGREES, VACUOUS),
    ),
    "5": ("The smallest gap r between bound and attack (Eq. 12)", (COUNT, TIGHTNESS)),
}

OUTSIDE_ANY = Cell("all attacks outside T_e, %", "outside", 2, percent=True)
REMAINDER = Cell("remainder, median %", "remainder_median", 1, percent=True)
_ALL_DEGREES = Cell("T_c with 180", "bound_degrees_all", 1)
_GUARANTEED = Cell("Kendall guaranteed", "kendall_guaranteed", 3)
_GUARANTEED_TOP = Cell("top-k guaranteed", "top_k_guaranteed", 3)
_GUARANTEES = Cell("n of guarantees", "guaranteed_n", 0)
_STRENGTH = (Cell("T̂_e, largest of the attacks", "paper_max", 4), Cell("strongest", "strongest", 4))

# Columns of the same run that the paper does not have.
BEYOND: dict[str, Sequence[Cell]] = {
    "3": (
        _ALL_DEGREES,
        Cell("T̂_e, label kept", "paper_kept", 4),
        *_STRENGTH,
        Cell("of T_e, %", "used", 1, percent=True),
        OUTSIDE_ANY,
        Cell("all attacks outside T'_e, %", "outside_corrected", 2, percent=True),
        REMAINDER,
        Cell("r, strongest", "r_strongest", 4),
        _GUARANTEED,
        _GUARANTEED_TOP,
        _GUARANTEES,
    ),
    "4": (
        _ALL_DEGREES,
        *_STRENGTH,
        Cell("Theorem 2", "theorem_2", 4),
        Cell("Corollary 1", "corollary_1", 4),
        Cell("semidefinite", "semidefinite", 4),
        Cell("in the box", "semidefinite_box", 4),
        Cell("attained corner", "corner", 4),
        OUTSIDE_ANY,
        REMAINDER,
        # Black pixels, exactly zero in both maps, are ties.
        Cell("Kendall, non-zero", "kendall_nonzero", 3),
        _GUARANTEED,
        Cell("top-k", "top_k", 3),
        _GUARANTEED_TOP,
        _GUARANTEES,
    ),
}


def summary(store: Store, rows: pl.DataFrame) -> pl.DataFrame:
    """Aggregate rows to one line per model, norm, radius and attribution, with data set and device."""
    values = summarize(rows, store.config.small_remainder)
    device = store.run["environment"].get("device", "")
    return values.with_columns(dataset=pl.lit(store.config.dataset), device=pl.lit(device))


def beside(number: str, ours: pl.DataFrame, whole: bool = False) -> pl.DataFrame:
    """Select the lines of a run that a table of the paper covers; the paper's values have the suffix ``_published``.

    Args:
      number: number of the table.
      ours: from :func:`summary`.
      whole: whether to add the paper's lines that the run lacks, with empty columns of ours.
    """
    theirs = published.table(int(number))
    dataset = str(ours["dataset"][0])
    defaults = known(dataset)
    main = {"l2": defaults.main_l2, "linf": defaults.main_linf}
    lines = ours.filter(pl.col("norm").is_in(theirs["norm"].unique().to_list()))
    if number == "2":
        lines = lines.filter(pl.col("model") == "trades_igr")
    else:
        lines = lines.filter(pl.col("attribution") == "integrated_gradients")
    if number != "5":
        # Select the one radius of the table: the data set's main one, or the only one that there is.
        at_main = (pl.col("epsilon") - pl.col("norm").replace_strict(main)).abs() < 1e-9
        lines = lines.filter(at_main | (pl.col("epsilon").n_unique().over("norm") == 1))
    # Round radii such as 8/255, which have been through JSON and CSV.
    key = pl.col("epsilon").round(6).alias("radius")
    theirs = theirs.filter(pl.col("dataset") == published.dataset(dataset)).with_columns(key)
    on = ["norm", "radius", "attribution", "model"]
    joined = lines.with_columns(key).join(
        theirs.drop("dataset", "epsilon"), on=on, how="full" if whole else "left", suffix="_published", coalesce=True
    )
    joined = joined.with_columns(pl.col("epsilon").fill_null(pl.col("radius"))).drop("radius")
    order = pl.col("model").map_elements(published.place, return_dtype=pl.Int64)
    return joined.sort("norm", "epsilon", "attribution", order, "model")


class Order(NamedTuple):
    """Whether the defenses have the paper's order in a column, at one radius.

    Attributes:
      norm: norm of the perturbation.
      epsilon: its radius.
      cell: the column.
      models: number of models that could be compared.
      rho: Spearman's correlation; NaN where all are equal.
      chance: probability of a correlation as large by chance, of either sign.
    """

    norm: str
    epsilon: float
    cell: Cell
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


def orderings(number: str, lines: pl.DataFrame) -> list[Order]:
    """Compare the order of the defenses column by column, where at least three can be compared: not in Table 2.

    Args:
      number: number of the table.
      lines: from :func:`beside`.
    """
    found = []
    if number == "2":  # one defense, three attributions
        return found
    for (norm, epsilon), group in sorted(lines.partition_by("norm", "epsilon", as_dict=True).items()):
        for cell in TABLES[number][1]:
            published_column = f"{cell.column}_published"
            if published_column not in group.columns:
                continue
            pairs = group.select(cell.column, published_column).drop_nulls()
            if len(pairs) < 3:
                continue
            rho, chance = spearman(pairs[cell.column], pairs[published_column])
            found.append(Order(norm, epsilon, cell, len(pairs), rho, chance))
    return found


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


def named(lines: pl.DataFrame) -> pl.DataFrame:
    """Replace names of models by the paper's."""
    return lines.with_columns(pl.col("model").replace(published.NAMES))


def violations(ours: pl.DataFrame) -> tuple[str, list[list[str]]]:
    """Count attacks of all kinds that exceeded a bound, and say whether the linear model was to blame.

    Args:
      ours: from :func:`summary`.

    Returns:
      The totals in words, and a table (first row: the head) of the lines that have any; empty where none has.
    """
    counts = ("attacks", "outside_count", "outside_within", "outside_corrected_count", "attacks_not_finite")
    attacks, outside, within, corrected, without = (int(ours[name].sum()) for name in counts)
    text = (
        f"Of {attacks:,} attacks of all kinds and radii {outside:,} went beyond T_e and {corrected:,} beyond T'_e. The"
        " bounds hold for the linear model, and what goes beyond is the Taylor remainder. How large that is along"
        " the bound's worst direction, relative to the linear change, stands here for the samples of these attacks and"
        f" for all (medians). {within:,} of the {outside:,} exceed T_e by no more than their own sample's remainder;"
        " the others are counted in *beyond it*: it is that of one direction, and others may have a larger one. Lines"
        " without any are left out."
    )
    if without:
        text += f" {without:,} of the attacks came to no finite number, and count as neither within nor outside."
    head = [*KEYS, "outside T_e", "samples", "by at most, %", "their remainder, %", "that of all, %"]
    rows = [[*head, "beyond it", "outside T'_e (samples)", "by at most, %"]]
    for row in with_ball(named(ours.filter(pl.col("outside_count") > 0))).iter_rows(named=True):
        shares = ("outside_excess", "outside_remainder", "remainder_median", "outside_corrected_excess")
        excess, remainder, median, beyond = ("" if row[name] is None else f"{100 * row[name]:.2g}" for name in shares)
        counts = (f"{row['outside_count']} of {row['attacks']}", f"{row['outside_samples']} of {row['n']}")
        corrected = f"{row['outside_corrected_count']} ({row['outside_corrected_samples']})"
        blamed = (str(row["outside_count"] - row["outside_within"]), corrected)
        rows.append([*(str(row[key]) for key in KEYS), *counts, excess, remainder, median, *blamed, beyond])
    return text, rows if outside else []
