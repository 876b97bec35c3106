"""Judge the statements of Wang and Kong 2023 about their results by a run, one by one."""

import math
from collections.abc import Collection
from typing import Any

import polars as pl

from experiments.papers.compare import agrees, join_published, orderings, spearman
from experiments.papers.paper import Claim, Needs, Paper
from experiments.papers.record import Record
from experiments.papers.report import samples
from experiments.papers.wang2023.tables import BOTH, BOUND, BOUND_DEGREES, IG
from jaxattr.audit.columns import norm_in_words, radius

MODELS = ("adversarial", "ig_norm", "adv_aat", "art", "trades", "trades_igr")
OF_IG = Needs((IG,), BOTH, MODELS)
OF_OTHERS = Needs(("saliency", "input_x_gradient"), BOTH, MODELS)
OF_ALL = Needs((*OF_OTHERS.attributions, IG), BOTH, MODELS)

# A claim before its samples are counted.
_Found = tuple[str, pl.DataFrame, str, bool | None]


def claims(paper: Paper, record: Record) -> list[Claim]:
    """Judge the paper's statements by a run.

    Statements about attacks are not judged by the preset dense, whose three images say nothing about them.
    """
    ours = record.lines
    ig, others = OF_IG.select(ours), OF_OTHERS.select(ours)
    dominant = record.values.get("dominant", {})
    found: list[_Found] = []
    if record.preset != "dense":
        found += [*_bounds(paper, ig, ""), *_bounds(paper, others, ", saliency and input x gradient")]
        found += [*_means(paper, ig), *_ranks(paper, ours), *_orders(paper, ours)]
    found += _theory(ig, dominant)
    return [Claim(text, samples(lines), figure, held) for text, lines, figure, held in found]


def _bounds(paper: Paper, lines: pl.DataFrame, suffix: str) -> list[_Found]:
    """Judge whether attacks stay within the bounds, and how close they come."""
    found: list[_Found] = []
    l2, linf = (lines.filter(pl.col("norm") == norm) for norm in ("l2", "linf"))

    def judge(text: str, of: pl.DataFrame, figure: str, held: bool) -> None:
        # An attack without a finite result says nothing.
        found.append((text, of, figure, None if held and of["attacks_not_finite"].sum() else held))

    if len(l2):
        figure, share = _largest(paper, l2, "paper_outside")
        text = f"few attacked attributions are outside of T_e (l2; at most 6.2 % in Table 3, at its one radius){suffix}"
        judge(text, l2, figure, share <= 0.062)
        figure, share = _largest(paper, l2, "paper_outside_corrected")
        judge(f"none is outside of T'_e (l2){suffix}", l2, figure, share == 0)
        figure, least = _smallest(paper, l2, "r")
        judge(f"r > 0 (l2, to T'_e){suffix}", l2, figure, least > 0)
    if len(linf):
        which = "" if linf["theorem_2_active"].count() else ", here Corollary 1"
        figure, share = _largest(paper, linf, "paper_outside")
        all_kinds = int(linf["outside_count"].sum())
        figure += f"; of all kinds of attacks {all_kinds:,} of {linf['attacks'].sum():,}" if all_kinds else ""
        judge(f"none is outside of the l-infinity bound{which}{suffix}", linf, figure, share == 0)
        figure, least = _smallest(paper, linf, "r")
        judge(f"r > 0 (l-infinity{which}){suffix}", linf, figure, least > 0)
    return found


def _means(paper: Paper, ig: pl.DataFrame) -> list[_Found]:
    """Judge whether the mean under attack is below the mean bound, and the smallest gap close to zero."""
    found: list[_Found] = []
    sides = (("paper", "bound", "T̂_e < T_e"), ("paper_degrees_bounded", "bound_degrees", "T̂_c < T_c"))
    for attack, bound, words in sides:
        lines = ig.drop_nulls([attack, bound]).with_columns(share=pl.col(attack) / pl.col(bound))
        if len(lines):
            row = lines.sort("share", descending=True).row(0, named=True)
            figure = f"at most {100 * row['share']:.0f} % of it ({_row(paper, row)})"
            left = set(ig["norm"]) - set(lines["norm"])
            if left:
                figure += f"; all bounds for {norm_in_words(*left)} are vacuous"
            found.append((f"means under attack are below the bounds, {words}", lines, figure, row["share"] < 1))
    if len(ig):
        row = ig.sort("r").row(0, named=True)
        figure = f"the smallest r is {row['r']:.2g} ({_row(paper, row)}, {norm_in_words(row['norm'])})"
        theirs = paper.published("5").filter(pl.col("dataset") == paper.published_name(str(ig["dataset"][0])))
        if len(theirs):
            least = theirs.sort("r").row(0, named=True)
            figure += f"; the paper's {least['r']:.4f} ({norm_in_words(least['norm'])})"
        text = (
            "the tightest bound is only some ten-thousandths above the attack (Table 5; a minimum, which falls with n)"
        )
        found.append((text, ig, figure, 0 < row["r"] < 1e-3))
    return found


def _ranks(paper: Paper, ours: pl.DataFrame) -> list[_Found]:
    """Judge how Kendall's tau goes with angles over the defenses."""
    table = join_published(paper, "4", ours)
    found: list[_Found] = []
    theirs = paper.published("4").filter(pl.col("dataset") == paper.published_name(str(ours["dataset"][0])))
    without = ", without pixels that are zero in both maps"
    bound, attack = (
        "a larger Kendall goes with a smaller T_c (Figure 2)",
        "Kendall grows with cosine similarity: T̂_c falls (Section 5.3)",
    )
    for text, kendall, degrees in (
        # Both columns are means over the samples whose bound is not vacuous.
        (bound, "kendall_bounded", "bound_degrees"),
        (f"{bound}{without}", "kendall_nonzero_bounded", "bound_degrees"),
        (attack, "kendall", "paper_degrees"),
        (f"{attack}{without}", "kendall_nonzero", "paper_degrees"),
    ):
        defenses = table.filter(pl.col("model").is_in(MODELS))
        main = defenses.drop_nulls([kendall, degrees])
        if not len(defenses) or (len(main) < 3 and "nonzero" in kendall):
            continue
        rho, chance = spearman(main[kendall], main[degrees])
        figure = f"Spearman {rho:.2f} over {len(main)} defenses (p = {chance:.2g})"
        if len(main) < 3:
            vacuous = len(defenses) - len(main)
            figure = f"no order of {len(defenses)} defenses"
            figure += f": all bounds of {vacuous} are vacuous" if vacuous else ""
        elif math.isnan(rho):
            figure = f"no order: the {len(main)} defenses are equal"
        if "nonzero" not in kendall and len(theirs):
            rho_theirs, chance_theirs = spearman(theirs["kendall"], theirs[degrees])
            figure += f"; the paper's six: {rho_theirs:.2f} (p = {chance_theirs:.2g})"
        found.append((text, defenses, figure, agrees(-rho, chance) if len(main) > 2 else None))
    return found


def _orders(paper: Paper, ours: pl.DataFrame) -> list[_Found]:
    """Judge whether the bounds rank the defenses as the paper's do."""
    found: list[_Found] = []
    for number in ("3", "4"):
        table = join_published(paper, number, ours)
        for order in orderings(paper, number, table):
            if order.column.name in (BOUND.name, BOUND_DEGREES.name):
                by = order.column.title
                text = f"not claimed: the paper's order of the defenses by {by} is ours, too (Table {number})"
                figure = f"Spearman {order.rho:.2f} over {order.models} defenses (p = {order.chance:.2g})"
                found.append((text, table.filter(pl.col("model").is_in(MODELS)), figure, order.held))
    return found


def _theory(ig: pl.DataFrame, dominant: Any) -> list[_Found]:
    """Judge the paper's statements about the bounds themselves."""
    found: list[_Found] = []
    linf = ig.filter(pl.col("norm") == "linf")
    active = linf.drop_nulls("theorem_2_active")
    if len(active):
        figure = f"for {_at_least(active['theorem_2_active'].to_list())} of the samples of each model and radius"
        found.append(
            ("Theorem 2 is tighter than Corollary 1", active, figure, bool((active["theorem_2_active"] == 1).all()))
        )
    some = [value for model, value in dominant.items() if model in MODELS]
    if some:
        shares = [value["share"] for value in some]
        few, many = f"{100 * min(shares):.1f}", f"{100 * max(shares):.1f}"
        span = few if few == many else f"{few} to {many}"
        figure = f"in {span} % of the rows that are not zero, of {len(shares)} defenses"
        found.append(("P is diagonally dominant (Figure 1b)", pl.DataFrame(some), figure, min(shares) == 1))
    return found


def _at_least(shares: Collection[float]) -> str:
    """Format the smallest share, or the common one if all are equal."""
    least = f"{100 * min(shares):.1f} %"
    return least if least == f"{100 * max(shares):.1f} %" else f"at least {least}"


def _largest(paper: Paper, lines: pl.DataFrame, column: str) -> tuple[str, float]:
    """Return the largest share, in words and as a number."""
    row = lines.sort(column, descending=True, nulls_last=True).row(0, named=True)
    if row[column] == 0:
        return f"0 % in all {len(lines)} rows", 0.0
    return f"at most {100 * row[column]:.2f} % ({_row(paper, row)})", float(row[column])


def _smallest(paper: Paper, lines: pl.DataFrame, column: str) -> tuple[str, float]:
    row = lines.sort(column, nulls_last=True).row(0, named=True)
    return f"at least {row[column]:.3g} ({_row(paper, row)})", float(row[column])


def _row(paper: Paper, row: dict[str, Any]) -> str:
    """Name a row in words."""
    attribution = "" if row["attribution"] == "integrated_gradients" else f", {row['attribution'].replace('_', ' ')}"
    return f"{paper.model_name(row['model'])}, epsilon {radius(row['epsilon'])}{attribution}"
