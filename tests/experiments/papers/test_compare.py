"""Our numbers beside a paper's: which lines meet, whose order of the models it is, and how likely by chance."""

import itertools

import numpy as np
import polars as pl
import pytest
import scipy.stats
from small_papers import PAPER, lines

from experiments.papers import compare, report
from experiments.papers.wang2023.claims import MODELS


def beside(ours, number="4", whole=False):
    return compare.join_published(PAPER, number, ours, whole=whole)


def shown(joined, number="4"):
    return report.beside_published(PAPER, "A table", PAPER.tables[number], joined)


def test_ours_stand_beside_the_papers():
    joined = beside(lines(bound=[9.0] * 3 + [1.0, 3.0, 2.0]))
    assert joined["norm"].unique().to_list() == ["linf"]
    row = joined.filter(model="adv_aat").row(0, named=True)
    assert (row["bound"], row["bound_published"], row["kendall_published"]) == (2.0, 2.1992, 0.3791)
    # Theirs are 0.7752, 1.2046, 2.1992: of our order 1, 3, 2 that is half.
    orders = {order.column.title: order for order in compare.orderings(PAPER, "4", joined)}
    assert orders["T_e"].rho == pytest.approx(0.5)
    # Of three in a row nothing can be said, and ours are all the same: no order.
    assert orders["T_e"].held is None
    assert np.isnan(orders["Kendall"].rho)
    table = compare.order_table("Orders", [orders["Kendall"], orders["T_e"]], "")
    assert table.rows[0][-3:] == ("", "", "none: all are equal")
    assert table.rows[1] == ("T_e", "l-infinity", "0.05", "3", "0.50", "1", "undecided")


def test_what_was_not_run_is_the_papers_alone():
    ours = lines(bound=[9.0] * 3 + [1.0, 3.0, 2.0])
    assert len(beside(ours)) == 3
    joined = beside(ours, whole=True)
    assert joined["model"].to_list() == list(MODELS)
    assert joined["epsilon"].to_list() == [0.05] * 6
    assert joined["n"].to_list() == [7, 7, 7, None, None, None]
    assert [order.models for order in compare.orderings(PAPER, "4", joined)] == [3] * 5
    table = shown(joined)
    trades = dict(zip(table.head, table.rows[MODELS.index("trades")], strict=True))
    assert (trades["model"], trades["n"], trades["T_e"]) == ("TRADES", "", "")
    # As the paper prints them.
    assert table.rows[MODELS.index("adv_aat")][-2] == "(26.3000)"


def test_a_column_of_the_papers_alone_says_what_it_is():
    head = shown(beside(lines(paper_degrees=[1.0] * 3 + [None] * 3))).head
    assert "T̂_c, deg (paper)" in head
    assert head[head.index("Kendall") + 1] == "(paper)"


def test_an_angle_is_called_vacuous_where_all_bounds_are():
    ours = lines(bound_degrees=[1.0] * 3 + [20.0, None, None])
    table = shown(beside(ours))
    assert [dict(zip(table.head, row, strict=True))["T_c, deg"] for row in table.rows] == ["20.00", "", ""]
    of_all = ours.with_columns(vacuous=pl.lit(1.0), bound_degrees=pl.lit(None, pl.Float64))
    assert all("vacuous" in row for row in shown(beside(of_all)).rows)


def test_a_table_has_its_one_radius_and_only_its_own_rows():
    """The main radius of the data set where there are several, and the only one where it is another."""
    ours = pl.concat([lines(epsilon=[radius] * 6) for radius in (0.01, 0.03, 0.05)])
    novel = lines(attribution=["novel"] * 6)
    assert beside(pl.concat([ours, novel]))["epsilon"].to_list() == [0.05] * 3
    assert beside(lines(epsilon=[0.07] * 6))["epsilon"].to_list() == [0.07] * 3
    # Table 5 has all radii; 8/255 is the paper's, however it was rounded on the way.
    assert beside(ours, "5").filter(norm="linf")["epsilon"].unique().sort().to_list() == [0.01, 0.03, 0.05]
    rounded = lines(dataset=["cifar10_jpeg"] * 6, epsilon=[0.0313725490196] * 6)
    assert beside(rounded, "5").filter(norm="linf", model="ig_norm")["r_published"].to_list() == [0.0145]


def test_the_chance_of_an_order_is_counted_over_all_orders():
    a, b = [0.1, 0.4, 0.2, 0.5, 0.3], [1.0, 4.0, 3.0, 5.0, 2.0]
    rho, chance = compare.spearman(pl.Series(a), pl.Series(b))
    every = [scipy.stats.spearmanr(a, order).statistic for order in itertools.permutations(b)]
    assert rho == pytest.approx(scipy.stats.spearmanr(a, b).statistic)
    assert chance == pytest.approx(np.mean(np.abs(every) > abs(rho) - 1e-9))
    # Five in reverse order: 2 of 120.
    assert compare.spearman(pl.Series(a), -pl.Series(a)) == pytest.approx((-1, 2 / 120))
