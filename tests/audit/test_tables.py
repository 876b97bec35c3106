"""The tables of an audit show what the summary of its rows says."""

import four_samples
import polars as pl
import pytest
from four_samples import METRICS

from jaxattr.audit.summary import summarize
from jaxattr.audit.tables import tables, title

ATTACKS = ("pgd", "ifia", "worst_direction")


@pytest.fixture(scope="module")
def shown():
    return tables(summarize(four_samples.rows(), METRICS), ATTACKS, METRICS)


def line(table):
    """Return the cells of the only line by the titles of their columns; of those that repeat the first one."""
    (cells,) = table.rows
    return dict(zip(reversed(table.head), reversed(cells), strict=True))


def test_every_table_has_a_line_for_each_model_ball_and_attribution(shown):
    assert len(shown) == len({table.title for table in shown}) == 5
    for table in shown:
        assert table.head[: table.keys] == ("model", "ball", "attribution")
        assert [row[:3] for row in table.rows] == [("natural", "l2 0.1", "saliency")]
        assert table.legend


def test_cells_say_what_the_summary_says(shown):
    deviation, angles, outside, attacks, behind = map(line, shown)
    assert (deviation["n"], deviation["strongest"], deviation["bound T_e"]) == ("4", "2.59", "2.5")
    assert (angles["vacuous, %"], angles["bound T_c, degrees"], angles["Kendall"]) == ("25.0", "40.00", "0.375")
    assert (outside["attacks"], outside["outside T_e, %"]) == ("16", "12.5")
    assert (attacks["PGD"], attacks["IFIA"], attacks["worst direction"]) == ("0.85", "0.675", "2.31")
    assert (behind["+v keeps the label, %"], behind["either, %"]) == ("75.0", "100.0")


def test_columns_of_what_was_not_computed_are_left_out(shown):
    head = shown[4].head
    assert not {"Corollary 1", "Theorem 2", "semidefinite", "completeness gap, %"} & set(head)
    assert "c" in head
    without = tables(summarize(four_samples.rows().drop(METRICS)), ATTACKS, METRICS)
    assert "Kendall" not in without[1].head
    assert "Kendall" in shown[1].head


def test_the_limit_of_small_remainders_is_said():
    summary = summarize(four_samples.rows(), METRICS, small_remainder=0.015)
    table = tables(summary, ATTACKS, METRICS, small_remainder=0.015)[2]
    assert "below 1.5 %" in table.legend
    assert line(table)["samples with a small one"] == "2"


def test_labels_of_ones_own_are_titles():
    assert [title(label) for label in ("ifia", "top_k", "my_attack")] == ["IFIA", "top-k intersection", "my attack"]
    rows = four_samples.rows().with_columns(pl.col("method").replace({"ifia": "my_attack"}))
    table = tables(summarize(rows, METRICS), ("pgd", "my_attack"), METRICS)[3]
    assert line(table)["my attack"] == "0.675"


def test_a_bound_of_ones_own_has_a_column():
    rows = four_samples.rows()
    own = rows.filter(kind="bound").with_columns(
        method=pl.lit("my_bound"), main=pl.lit(False), euclidean=pl.lit(7.25, pl.Float32)
    )
    table = tables(summarize(pl.concat([rows, own]), METRICS), ATTACKS, METRICS)[4]
    assert line(table)["my bound"] == "7.25"
