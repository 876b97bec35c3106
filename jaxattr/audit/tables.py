"""Format a run's summary as Markdown tables: plain words with the paper's symbols, no number typed by hand."""

from collections.abc import Callable, Sequence
from typing import Any

import polars as pl

Formatter = Callable[[Any], str]
Column = tuple[str, str, Formatter]


def _number(digits: int) -> Formatter:
    return lambda value: "" if value is None else f"{value:.{digits}f}"


def _significant(value: Any) -> str:
    return "" if value is None else f"{value:.3g}"


def _percent(value: Any) -> str:
    if value is None:
        return ""
    # A share above zero must not read as zero.
    return "<0.1 %" if 0 < value < 0.0005 else f"{100 * value:.1f} %"


def _count(value: Any) -> str:
    return "" if value is None else f"{value:,}"


KEYS: Sequence[Column] = (
    ("model", "model", str),
    ("ball", "ball", str),
    ("attribution", "attribution", str),
)
TABLES: Sequence[tuple[str, str, Sequence[Column]]] = (
    (
        "How far attributions move, and how far they can (Euclidean)",
        "Means over samples. *Attack of the paper*: PGD on the cross-entropy for l2, IFIA (top-k) for l-infinity, "
        "mean over restarts. *Strongest*: the largest deviation that any attack of this run found for a sample, the "
        "bound's own directions included. *Used*: strongest over T_e. r is the smallest gap over samples, T'_e (l2) "
        "or T_e (l-infinity) minus the deviation, against the paper's mean and against the strongest.",
        (
            ("n", "n", _count),
            ("attack of the paper, T̂_e", "paper", _significant),
            ("strongest", "strongest", _significant),
            ("bound T_e", "bound", _significant),
            ("corrected T'_e", "corrected", _significant),
            ("used", "used", _percent),
            ("r, paper's attack", "r", _significant),
            ("r, strongest", "r_strongest", _significant),
        ),
    ),
    (
        "Angles and ranks",
        "Degrees: means of per-sample angles. The bound on the angle says nothing where T_e exceeds the attribution's "
        "norm (*vacuous*): its mean is over the other samples, and once more with 180 degrees for these. Kendall's "
        "tau-b of absolute feature maps and the top-k intersection are under IFIA; black pixels with attribution "
        "exactly zero are ties and cap tau-b, so that it is also given without them.",
        (
            ("attack of the paper, T̂_c (deg)", "paper_degrees", _number(2)),
            ("strongest (deg)", "strongest_degrees", _number(2)),
            ("bound T_c (deg)", "bound_degrees", _number(2)),
            ("with 180 for vacuous", "bound_degrees_all", _number(2)),
            ("vacuous", "vacuous", _percent),
            ("Kendall", "kendall", _number(3)),
            ("Kendall, non-zero", "kendall_nonzero", _number(3)),
            ("top-k intersection", "top_k", _number(3)),
        ),
    ),
    (
        "Attacks outside of the bounds",
        "T_e is exact for the linear model only. The Taylor remainder along the bound's worst direction says how good "
        "that model is: columns on the right count the samples where it is small ({small}). *By at most* is the "
        "largest relative excess, (deviation - bound) / bound.",
        (
            ("attacks", "attacks", _count),
            ("outside T_e", "outside", _percent),
            ("by at most", "outside_excess", _percent),
            ("outside T'_e", "outside_corrected", _percent),
            ("by at most", "outside_corrected_excess", _percent),
            ("remainder, median", "remainder_median", _percent),
            ("remainder, largest", "remainder_max", _percent),
            ("samples with a small one", "small_n", _count),
            ("outside T_e there", "small_outside_count", _count),
            ("by at most", "small_outside_excess", _percent),
            ("outside T'_e there", "small_outside_corrected_count", _count),
            ("by at most", "small_outside_corrected_excess", _percent),
        ),
    ),
    (
        "Each attack",
        "Mean Euclidean deviation, and in brackets how many of the attacked samples keep their label. *Ascent* climbs "
        "the deviation itself and keeps the label; *worst direction* is x ± epsilon v of the bound, clipped to valid "
        "inputs.",
        (
            ("PGD", "pgd", _significant),
            ("(label kept)", "kept_pgd", _percent),
            ("IFIA", "ifia", _significant),
            ("(label kept)", "kept_ifia", _percent),
            ("ascent", "ascent", _significant),
            ("(label kept)", "kept_ascent", _percent),
            ("worst direction", "attained_point", _significant),
            ("(label kept)", "kept_attained", _percent),
        ),
    ),
    (
        "Behind the bounds",
        "c is the adaptive constant of Eq. 11, with the larger of +v and -v, and with +v alone as the paper prints "
        "it. For l-infinity the bound is the smaller one of Corollary 1 and Theorem 2. *Keeps the label*: whether "
        "epsilon v, its opposite, or at least one of them keeps the label under the linearized margin (Proposition "
        "1). Completeness gap: median of |sum of the map - (f(x) - f(black))| relative to f(x) - f(black).",
        (
            ("attained in the linear model", "bound_attained", _significant),
            ("c", "constant", _number(3)),
            ("c, +v alone", "constant_plus", _number(3)),
            ("Corollary 1", "corollary_1", _significant),
            ("Theorem 2", "theorem_2", _significant),
            ("Theorem 2 active", "theorem_2_active", _percent),
            ("semidefinite", "semidefinite", _significant),
            ("semidefinite, in the box", "semidefinite_box", _significant),
            ("+v keeps the label", "keeps_plus", _percent),
            ("-v does", "keeps_minus", _percent),
            ("either", "keeps_either", _percent),
            ("completeness gap", "completeness", _percent),
            ("confidence", "confidence", _number(3)),
        ),
    ),
)


def with_ball(summary: pl.DataFrame) -> pl.DataFrame:
    """Add the column ``ball``, such as ``l2 0.1``."""
    norm = pl.col("norm").replace({"linf": "l-infinity"})
    return summary.with_columns(ball=norm + " " + pl.col("epsilon").map_elements(radius, return_dtype=pl.String))


def radius(epsilon: float) -> str:
    """Format a radius as people write it: as a share of 255, unless it has a short decimal."""
    levels = round(255 * epsilon)
    short = round(epsilon, 4) == round(epsilon, 9)
    return f"{levels}/255" if levels and not short and abs(255 * epsilon - levels) < 1e-3 else f"{epsilon:.3g}"


def markdown(summary: pl.DataFrame, small_remainder: float) -> str:
    """Format all tables of a run as Markdown.

    Args:
      summary: one line per (model, norm, radius, attribution), from :func:`experiments.summary.summarize`.
      small_remainder: the limit below which a Taylor remainder is called small.
    """
    lines = with_ball(summary).to_dicts()
    return "\n".join(
        f"### {title}\n\n{legend.format(small=f'below {100 * small_remainder:.3g} %')}\n\n{_table(lines, columns)}\n"
        for title, legend, columns in TABLES
    )


def _table(lines: Sequence[dict[str, Any]], columns: Sequence[Column]) -> str:
    # A column that is empty for every line (Theorem 2 in an l2 run) tells nothing.
    shown = [*KEYS, *(column for column in columns if any(line.get(column[1]) is not None for line in lines))]
    rows = [[form(line[name]) for _, name, form in shown] for line in lines]
    head = [title for title, _, _ in shown]
    rule = ["---"] * len(KEYS) + ["--:"] * (len(shown) - len(KEYS))
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (head, rule, *rows))
