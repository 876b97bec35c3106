"""Every kind of number in the tables, worked out by hand from four samples."""

import math

import four_samples
import polars as pl
import pytest
from four_samples import METRICS

from jaxattr.audit import summary
from jaxattr.audit.rows import SCHEMA
from jaxattr.audit.summary import per_sample, reserved, summarize


@pytest.fixture
def rows():
    return four_samples.rows()


@pytest.fixture
def line(rows):
    found = summarize(rows, METRICS, small_remainder=0.05)
    assert len(found) == 1
    return found.to_dicts()[0]


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        ("n", 4),
        ("bound", 2.5),
        ("corrected", 10.5 / 4),
        ("paper", (0.3 + 2.0 + 1.0 + 0.1) / 4),  # means over the starts of PGD
        ("ifia", 2.7 / 4),
        ("strongest", (1.25 + 3.0 + 2.5 + 3.6) / 4),
        ("used", (1.25 + 1.5 + 2.5 / 3 + 0.9) / 4),
        # T'_e minus the mean of PGD, and minus the strongest, at the worst sample.
        ("r", 0.0),
        ("r_strongest", -1.0),
        ("vacuous", 0.25),
        ("bound_degrees", 40.0),
        ("bound_degrees_all", 75.0),
        ("kendall", (0 + 0.25 + 0.5 + 0.75) / 4),
        ("kept_pgd", 0.0),
        ("kept_ifia", 1.0),
        ("attacks", 16),
        ("outside", 2 / 16),  # 1.25 over 1, and 3 over 2
        ("outside_excess", 0.5),
        ("outside_samples", 2),
        ("outside_within", 1),  # 0.25 over a remainder of 0.01, and 0.5 at 0.5
        ("outside_remainder", (0.01 + 0.5) / 2),
        ("outside_corrected", 1 / 16),
        ("outside_corrected_excess", 0.5),
        ("small_n", 3),
        ("small_outside_count", 1),
        ("small_outside_excess", 0.25),
        ("small_outside_corrected_count", 0),
        ("keeps_plus", 0.75),
        ("keeps_minus", 0.5),
        ("keeps_either", 1.0),
        ("constant", (1.5 + 3) / 4),
        # Of the three samples whose bound is not vacuous.
        ("kendall_bounded", (0 + 0.25 + 0.75) / 3),
        ("paper_degrees_bounded", 10 * (0.3 + 2.0 + 0.1) / 3),
        # Two starts of PGD and one of IFIA share what four rows have; the bound's own point took no time.
        ("attack_seconds", 4 * 0.3 / 3),
        ("attacks_not_finite", 0),
    ],
)
def test_columns_by_hand(line, column, expected):
    assert line[column] == pytest.approx(expected, rel=1e-6, abs=1e-6)


def test_one_line_per_sample_for_the_scatter(rows):
    samples = per_sample(rows).sort("position")
    assert samples["strongest"].to_list() == pytest.approx([1.25, 3.0, 2.5, 3.6])
    assert samples["euclidean"].to_list() == pytest.approx([1.0, 2.0, 3.0, 4.0])


def test_a_nan_is_no_number_in_a_mean(rows):
    damaged = rows.with_columns(
        degrees=pl.when(pl.col("kind") == "bound", pl.col("position") == 0)
        .then(pl.lit(math.nan, pl.Float32))
        .otherwise("degrees")
    )
    line = summarize(damaged, METRICS).to_dicts()[0]
    assert line["bound_degrees"] == pytest.approx(45.0)


def test_attacks_without_a_number_are_counted(rows):
    lost = pl.when(pl.col("method") == "ifia", pl.col("position") < 2)
    damaged = rows.with_columns(euclidean=lost.then(pl.lit(math.nan, pl.Float32)).otherwise("euclidean"))
    line = summarize(damaged, METRICS)
    assert line.select("attacks", "attacks_not_finite").rows() == [(16, 2)]


def test_metrics_are_means_under_the_feature_attack_or_over_all_attacks(rows):
    """Of PGD they are other numbers; where there is no IFIA, those count as well."""
    of_pgd = pl.when(pl.col("method") == "pgd").then(pl.lit(1.0, pl.Float32)).otherwise("kendall")
    rows = rows.with_columns(kendall=of_pgd)
    assert summarize(rows, METRICS)["kendall"].item() == pytest.approx(1.5 / 4)
    without = rows.filter((pl.col("method") != "ifia").fill_null(True))
    # Two starts of PGD, and one point of the bound.
    assert summarize(without, METRICS)["kendall"].item() == pytest.approx((2 + 1.5 / 4) / 3)


def test_metrics_have_the_columns_of_their_labels_and_no_others(rows):
    assert {"kendall", "top_k", "kendall_bounded"} <= set(summarize(rows, METRICS).columns)
    assert not {"kendall", "top_k", "kendall_bounded"} & set(summarize(rows.drop(METRICS)).columns)
    assert {"ifia", "kept_ifia", "pgd", "worst_direction"} <= set(summarize(rows).columns)


def test_columns_that_every_run_has_are_reserved():
    taken = reserved()
    assert set(SCHEMA) <= set(taken)
    assert {"strongest", "bound", "corollary_1", "small_outside_count"} <= set(taken)
    assert not {"pgd", "ifia", "ascent", "kendall", "spearman", "top_k"} & set(taken)


def test_attacks_keep_their_order(rows):
    assert summary.attack_names(rows.filter(kind="attack")) == ["pgd", "ifia", "worst_direction"]


def test_a_limit_decides_which_remainders_are_small(rows):
    counts = [summarize(rows, METRICS, limit)["small_n"].item() for limit in (0.015, 0.05, 0.6)]
    assert counts == [2, 3, 4]
