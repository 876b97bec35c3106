"""Choose the tables of an audit: their columns, and the words beside them."""

from collections.abc import Sequence

import polars as pl

from jaxattr.audit.blocks import words
from jaxattr.audit.columns import ATTRIBUTION, BALL, MODEL, Column, Table, tabulate, with_ball
from jaxattr.audit.summary import BOUND_OF

KEYS = (MODEL, BALL, ATTRIBUTION)
_TITLES = {
    "pgd": "PGD",
    "ifia": "IFIA",
    "worst_direction": "worst direction",
    "kendall": "Kendall",
    "kendall_nonzero": "Kendall, non-zero",
    "spearman": "Spearman",
    "top_k": "top-k intersection",
}
_COL = pl.col

DEVIATION = (
    Column("n", _COL("n"), 0),
    Column("attack of the paper, T̂_e", _COL("paper")),
    Column("strongest", _COL("strongest")),
    Column("bound T_e", _COL("bound")),
    Column("corrected T'_e", _COL("corrected")),
    Column("used", _COL("used"), 1, "%"),
    Column("r, paper's attack", _COL("r")),
    Column("r, strongest", _COL("r_strongest")),
)
ANGLES = (
    Column("attack of the paper, T̂_c", _COL("paper_degrees"), 2, "degrees"),
    Column("strongest", _COL("strongest_degrees"), 2, "degrees"),
    Column("bound T_c", _COL("bound_degrees"), 2, "degrees"),
    Column("with 180 for vacuous", _COL("bound_degrees_all"), 2),
    Column("vacuous", _COL("vacuous"), 1, "%"),
)
OUTSIDE = (
    Column("attacks", _COL("attacks"), 0),
    Column("outside T_e", _COL("outside"), 1, "%"),
    Column("by at most", _COL("outside_excess"), 1, "%"),
    Column("outside T'_e", _COL("outside_corrected"), 1, "%"),
    Column("by at most", _COL("outside_corrected_excess"), 1, "%"),
    Column("remainder, median", _COL("remainder_median"), 1, "%"),
    Column("remainder, largest", _COL("remainder_max"), 1, "%"),
    Column("samples with a small one", _COL("small_n"), 0),
    Column("outside T_e there", _COL("small_outside_count"), 0),
    Column("by at most", _COL("small_outside_excess"), 1, "%"),
    Column("outside T'_e there", _COL("small_outside_corrected_count"), 0),
    Column("by at most", _COL("small_outside_corrected_excess"), 1, "%"),
)
BEHIND = (
    Column("attained in the linear model", _COL("bound_attained")),
    Column("c", _COL("constant"), 3),
    Column("c, +v alone", _COL("constant_plus"), 3),
    Column("Corollary 1", _COL("corollary_1")),
    Column("Theorem 2", _COL("theorem_2")),
    Column("Theorem 2 active", _COL("theorem_2_active"), 1, "%"),
    Column("semidefinite", _COL("semidefinite")),
    Column("semidefinite, in the box", _COL("semidefinite_box")),
    Column("+v keeps the label", _COL("keeps_plus"), 1, "%"),
    Column("-v does", _COL("keeps_minus"), 1, "%"),
    Column("either", _COL("keeps_either"), 1, "%"),
    Column("completeness gap", _COL("completeness"), 1, "%"),
    Column("confidence", _COL("confidence"), 3),
)


def tables(
    summary: pl.DataFrame, attacks: Sequence[str], metrics: Sequence[str], small_remainder: float = 0.05
) -> list[Table]:
    """Format all tables of an audit.

    Args:
      summary: one line per (model, norm, radius, attribution), from :func:`jaxattr.audit.summary.summarize`.
      attacks: labels of the attacks, in the order of the columns.
      metrics: labels of the metrics.
      small_remainder: the limit below which a Taylor remainder is called small.
    """
    lines = with_ball(summary)
    of_metrics = [Column(title(label), _COL(label), 3) for label in metrics]
    of_attacks = [
        column
        for label in attacks
        for column in (
            Column(title(label), _COL(label)),
            Column("label kept", _COL(f"kept_{label}"), 1, "%"),
        )
    ]
    of_bounds = [
        Column(title(name.removesuffix(BOUND_OF)), _COL(name)) for name in summary.columns if name.endswith(BOUND_OF)
    ]
    known = words()
    return [
        tabulate(
            "How far attributions move, and how far they can (Euclidean)", lines, KEYS, DEVIATION, known.deviation()
        ),
        tabulate("Angles and ranks", lines, KEYS, (*ANGLES, *of_metrics), known.angles()),
        tabulate("Attacks outside of the bounds", lines, KEYS, OUTSIDE, known.outside(f"{100 * small_remainder:.3g}")),
        tabulate("Each attack", lines, KEYS, of_attacks, known.attacks()),
        tabulate("Behind the bounds", lines, KEYS, (*BEHIND, *of_bounds), known.behind()),
    ]


def title(label: str) -> str:
    """Return the title of an attack's or a metric's column: its label, where it has no other name."""
    return _TITLES.get(label, label.replace("_", " "))
