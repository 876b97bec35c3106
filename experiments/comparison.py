"""Our numbers beside those of paper 000: cell by cell, by the order of the defenses, and claim by claim."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import polars as pl
import scipy.stats

from experiments import published
from experiments.datasets import known
from experiments.store import Store
from experiments.summary import summarize
from experiments.table import with_ball

KEYS = ("model", "ball", "attribution")

# CIFAR-10 by another name; digits are in no paper.
_SAME = {"cifar10_jpeg": "cifar10"}


class Cell(NamedTuple):
    """A column of a table: ours, and the paper's where it has one."""

    title: str
    column: str
    digits: int
    percent: bool = False


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
        (ATTACK, BOUND, CORRECTED, ATTACK_DEGREES, BOUND_DEGREES),
    ),
    "3": (
        "Integrated gradients under l2 perturbations",
        (ATTACK, BOUND, OUTSIDE, CORRECTED, ATTACK_DEGREES, BOUND_DEGREES),
    ),
    "4": (
        "Integrated gradients under l-infinity perturbations",
        (KENDALL, ATTACK, BOUND, ATTACK_DEGREES, BOUND_DEGREES),
    ),
    "5": ("The smallest gap r between bound and attack (Eq. 12)", (TIGHTNESS,)),
}

OUTSIDE_ANY = Cell("outside T_e, any attack, %", "outside", 2, percent=True)
REMAINDER = Cell("remainder, median %", "remainder_median", 1, percent=True)
_COUNTED = (
    Cell("n", "n", 0),
    Cell("vacuous, %", "vacuous", 1, percent=True),
    Cell("T_c with 180", "bound_degrees_all", 1),
)
_STRENGTH = (Cell("T̂_e, largest of the attacks", "paper_max", 4), Cell("strongest", "strongest", 4))

# Where the paper has nothing: what the same run says beside it.
BEYOND: dict[str, Sequence[Cell]] = {
    "3": (
        *_COUNTED,
        Cell("T̂_e, label kept", "paper_kept", 4),
        *_STRENGTH,
        Cell("of T_e, %", "used", 1, percent=True),
        OUTSIDE_ANY,
        Cell("outside T'_e, any attack, %", "outside_corrected", 2, percent=True),
        REMAINDER,
        Cell("r, strongest", "r_strongest", 4),
        Cell("Kendall guaranteed", "kendall_guaranteed", 3),
        Cell("top-k guaranteed", "top_k_guaranteed", 3),
    ),
    "4": (
        *_COUNTED,
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
        Cell("Kendall guaranteed", "kendall_guaranteed", 3),
        Cell("top-k", "top_k", 3),
        Cell("top-k guaranteed", "top_k_guaranteed", 3),
    ),
}


class Claim(NamedTuple):
    """A statement of the paper, and what a run says of it."""

    text: str
    dataset: str
    figure: str
    held: bool | None
    """``None``: what was seen could be chance."""


def summary(store: Store, rows: pl.DataFrame) -> pl.DataFrame:
    """One line per model, norm, radius and attribution of a run, with its data set, and the device that made it."""
    values = summarize(rows, store.config.small_remainder)
    device = store.run["environment"].get("device", "")
    return values.with_columns(dataset=pl.lit(store.config.dataset), device=pl.lit(device))


def beside(number: str, ours: pl.DataFrame) -> pl.DataFrame:
    """The lines of a run that a table of the paper is about; the paper's values have the suffix ``_published``.

    Args:
      number: of the table.
      ours: from :func:`summary`.
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
        # The one radius of the table: the data set's main one, or the only one that there is.
        at_main = (pl.col("epsilon") - pl.col("norm").replace_strict(main)).abs() < 1e-9
        lines = lines.filter(at_main | (pl.col("epsilon").n_unique().over("norm") == 1))
    # Radii such as 8/255 have been through JSON and CSV.
    key = pl.col("epsilon").round(6).alias("radius")
    theirs = theirs.with_columns(key).drop("epsilon").filter(pl.col("dataset") == _SAME.get(dataset, dataset))
    joined = lines.with_columns(key).join(
        theirs.drop("dataset"), on=["norm", "radius", "attribution", "model"], how="left", suffix="_published"
    )
    return joined.drop("radius").sort("norm", "epsilon", "attribution", "model")


def orderings(number: str, lines: pl.DataFrame) -> list[dict[str, Any]]:
    """Spearman's correlation of our column with theirs over the defenses, where at least three can be compared."""
    found = []
    for (norm, epsilon), group in sorted(lines.partition_by("norm", "epsilon", as_dict=True).items()):
        for cell in TABLES[number][1]:
            published_column = f"{cell.column}_published"
            if published_column not in group.columns:
                continue
            pairs = group.select(cell.column, published_column).drop_nulls()
            if len(pairs) < 3:
                continue
            rho, _ = spearman(pairs[cell.column], pairs[published_column])
            found.append({"norm": norm, "epsilon": epsilon, "column": cell.title, "models": len(pairs), "rho": rho})
    return found


def spearman(a: pl.Series, b: pl.Series) -> tuple[float, float]:
    """Rank correlation and the probability of one as large by chance; NaN where a side is constant.

    The probability is counted over all orders: SciPy's own is for many pairs, and 0 for any three in the same order.
    """
    if a.n_unique() < 2 or b.n_unique() < 2:
        return float("nan"), float("nan")
    rank, other = scipy.stats.rankdata(a), scipy.stats.rankdata(b)

    def correlation(ranks: np.ndarray, axis: int) -> np.ndarray:
        centered = ranks - ranks.mean(axis, keepdims=True)
        return (centered * (other - other.mean())).sum(axis) / (len(other) * rank.std() * other.std())

    # Up to seven models (5,040 orders) it is exact.
    found = scipy.stats.permutation_test(
        (rank,), correlation, permutation_type="pairings", vectorized=True, n_resamples=10_000, rng=0
    )
    return float(found.statistic), float(found.pvalue)


def claims(ours: pl.DataFrame) -> list[Claim]:
    """The paper's statements about its results, each with the figure of a run.

    Args:
      ours: from :func:`summary`, of one data set.
    """
    found: list[tuple[str, str, bool | None]] = []
    defenses = ours.filter(pl.col("model").is_in(published.MODELS))
    ig = defenses.filter(pl.col("attribution") == "integrated_gradients")
    others = defenses.filter(pl.col("attribution") != "integrated_gradients")
    for lines, of in ((ig, ""), (others, ", saliency and input x gradient")):
        l2, linf = (lines.filter(pl.col("norm") == norm) for norm in ("l2", "linf"))
        if len(l2):
            figure, share = _largest(l2, "paper_outside")
            text = f"few attacked attributions are outside of T_e (l2; at most 6.2 % in Table 3){of}"
            found.append((text, figure, share <= 0.062))
            figure, share = _largest(l2, "paper_outside_corrected")
            found.append((f"none is outside of T'_e (l2){of}", figure, share == 0))
            figure, least = _smallest(l2, "r")
            found.append((f"r > 0 (l2, to T'_e){of}", figure, least > 0))
        if len(linf):
            figure, share = _largest(linf, "paper_outside")
            found.append((f"none is outside of the l-infinity bound{of}", figure, share == 0))
            figure, least = _smallest(linf, "r")
            found.append((f"r > 0 (l-infinity){of}", figure, least > 0))
    linf = ig.filter(pl.col("norm") == "linf")
    if len(linf):
        main = beside("4", ours).filter(pl.col("model").is_in(published.MODELS)).drop_nulls("bound_degrees")
        if len(main) >= 3:
            for column, words in (("kendall", ""), ("kendall_nonzero", ", without pixels that are zero in both maps")):
                rho, chance = spearman(main[column], main["bound_degrees"])
                figure = f"Spearman {rho:.2f} over {len(main)} defenses (p = {chance:.2g})"
                held = bool(rho < 0) if chance < 0.05 else None
                found.append((f"a larger Kendall goes with a smaller T_c (Figure 2){words}", figure, held))
        active = linf["theorem_2_active"].drop_nulls().to_list()
        if active:
            figure = f"for at least {100 * min(active):.1f} % of the samples of each model and radius"
            found.append(("Theorem 2 is tighter than Corollary 1", figure, min(active) == 1))
    return [Claim(text, str(ours["dataset"][0]), figure, held) for text, figure, held in found]


def violations(ours: pl.DataFrame) -> tuple[str, list[list[str]]]:
    """Attacks of all kinds that went beyond a bound, and whether the linear model was to blame.

    Args:
      ours: from :func:`summary`.

    Returns:
      The totals in words, and a table (first row: the head) of the lines that have any; empty where none has.
    """
    attacks, outside, within, corrected = (
        int(ours[name].sum()) for name in ("attacks", "outside_count", "outside_within", "outside_corrected_count")
    )
    text = (
        f"Of {attacks:,} attacks of all kinds and radii {outside:,} went beyond T_e and {corrected:,} beyond T'_e. The"
        " bounds are exact for the linear model, and what goes beyond is the Taylor remainder. How large that is along"
        " the bound's worst direction, relative to the linear change, stands here for the samples of these attacks and"
        f" for all (medians). {within:,} of the {outside:,} exceed T_e by no more than their own sample's remainder,"
        " which is that of one direction: other directions may have a larger one. Lines without any are left out."
    )
    head = [*KEYS, "outside T_e", "samples", "by at most, %", "their remainder, %", "that of all, %"]
    rows = [[*head, "within their own", "outside T'_e", "by at most, %"]]
    for row in with_ball(ours.filter(pl.col("outside_count") > 0)).iter_rows(named=True):
        shares = ("outside_excess", "outside_remainder", "remainder_median", "outside_corrected_excess")
        excess, remainder, median, beyond = ("" if row[name] is None else f"{100 * row[name]:.2g}" for name in shares)
        counts = (f"{row['outside_count']} of {row['attacks']}", f"{row['outside_samples']} of {row['n']}")
        blamed = (str(row["outside_within"]), str(row["outside_corrected_count"]))
        rows.append([*(str(row[key]) for key in KEYS), *counts, excess, remainder, median, *blamed, beyond])
    return text, rows if outside else []


def _largest(lines: pl.DataFrame, column: str) -> tuple[str, float]:
    """The largest share, in words and as a number."""
    row = lines.sort(column, descending=True, nulls_last=True).row(0, named=True)
    if row[column] == 0:
        return f"0 % in all {len(lines)} rows", 0.0
    return f"at most {100 * row[column]:.2f} % ({_row(row)})", float(row[column])


def _row(row: dict[str, Any]) -> str:
    """Which row it is, in words."""
    attribution = "" if row["attribution"] == "integrated_gradients" else f", {row['attribution'].replace('_', ' ')}"
    return f"{row['model']}, epsilon {row['epsilon']:.3g}{attribution}"


def _smallest(lines: pl.DataFrame, column: str) -> tuple[str, float]:
    row = lines.sort(column, nulls_last=True).row(0, named=True)
    return f"at least {row[column]:.3g} ({_row(row)})", float(row[column])
