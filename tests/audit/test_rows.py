"""A row for every sample, bound and attack, and which of them counts."""

import polars as pl
import pytest
from small_audits import CONFIG, stored

from jaxattr.audit import rows, spec


def test_rows_of_every_sample_bound_and_attack(run):
    found = stored(run).rows()
    attacks = found.filter(pl.col("kind") == "attack")
    per_sample = attacks.group_by("model", "norm", "position").agg(pl.len(), pl.col("method").n_unique())
    assert len(per_sample) == 2 * 2 * 16
    starts = sum(attack.count for attack in spec.attacks(CONFIG).values())
    # PGD, IFIA and the ascent from every random start, and both ends of the bound's own direction.
    assert per_sample["len"].unique().to_list() == [starts + 2]
    assert per_sample["method"].unique().to_list() == [4]
    bounds = found.filter(pl.col("kind") == "bound")
    methods = bounds.group_by("norm").agg(pl.col("method").unique().sort()).sort("norm")
    assert methods["method"].to_list() == [["singular_value"], ["entrywise", "norm_relaxation", "smallest"]]
    for column in ("euclidean", "euclidean_attained", "attribution_norm"):
        assert bounds[column].is_finite().all()
    assert (bounds["euclidean_attained"] <= bounds["euclidean"] * (1 + 1e-6)).all()
    assert bounds.filter("main")["method"].unique().sort().to_list() == ["singular_value", "smallest"]


def test_the_active_bound_is_the_smaller_one(run):
    bounds = stored(run).rows().filter(pl.col("kind") == "bound", pl.col("norm") == "linf")
    wide = bounds.pivot("method", index=["model", "position"], values="euclidean")
    smallest = bounds.filter(pl.col("method") == "smallest").select("model", "position", "active")
    for row in wide.join(smallest, on=["model", "position"]).iter_rows(named=True):
        assert row["smallest"] == min(row["entrywise"], row["norm_relaxation"]) == row[row["active"]]


def test_what_a_kind_of_row_has_no_value_for_is_null(run):
    found = stored(run).rows()
    attacks, bounds = (found.filter(pl.col("kind") == kind) for kind in ("attack", "bound"))
    for column in ("main", "corrected", "remainder", "margin"):
        assert attacks[column].null_count() == len(attacks)
    for column in ("label_kept", "distance", "kendall", "restart"):
        assert bounds[column].null_count() == len(bounds)
        assert attacks[column].null_count() == 0


@pytest.mark.parametrize("metrics", [(), ("kendall", "mine")])
def test_metrics_are_the_last_columns(metrics):
    found = rows.columns(metrics)
    assert list(found) == [*rows.SCHEMA, *metrics]
    assert all(found[name] == pl.Float32 for name in metrics)
