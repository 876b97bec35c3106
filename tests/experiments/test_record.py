"""Stored results outlive options and columns that come later, and are never mixed with other numbers."""

import dataclasses
import json
from pathlib import Path

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from experiments import paper_record, record
from experiments.config import Config
from experiments.recipes import Training
from experiments.record import StoreError, config_hash, open_run
from experiments.rows import REQUIRED, SCHEMA
from experiments.store import Store, read_part

REPORT = Path(__file__).parents[2] / "results" / "wang2023"
CONFIG = Config(dataset="mnist", l2=(0.1,), seed=3, training=Training(epochs=2.0))


def later(kind, **options):
    """A configuration as a later version may have it: with one option more, and its default."""
    fields = [("smoothing", int, dataclasses.field(default=4))]
    return dataclasses.make_dataclass("Later", fields, bases=(kind,), frozen=True)(**options)


def values(config):
    return {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}


def test_an_option_that_comes_later_changes_no_hash_unless_it_is_used():
    assert config_hash(later(Config, **values(CONFIG))) == config_hash(CONFIG)
    assert config_hash(later(Config, **values(CONFIG), smoothing=5)) != config_hash(CONFIG)
    inside = dataclasses.replace(CONFIG, training=later(Training, **values(CONFIG.training)))
    assert config_hash(inside) == config_hash(CONFIG)
    assert config_hash(Config(**{**values(CONFIG), "training": Training(epochs=3.0)})) != config_hash(CONFIG)


def test_a_limit_of_a_table_is_no_part_of_a_run_and_the_version_of_the_numbers_is():
    assert config_hash(dataclasses.replace(CONFIG, small_remainder=0.5)) == config_hash(CONFIG)
    assert config_hash(CONFIG, record.NUMERICS + 1) != config_hash(CONFIG)


def test_a_run_of_other_numbers_is_shown_and_not_added_to(tmp_path, monkeypatch):
    open_run(tmp_path, Config, CONFIG)
    monkeypatch.setattr(record, "NUMERICS", record.NUMERICS + 1)
    assert Store(tmp_path, None).config == CONFIG
    with pytest.raises(StoreError, match=r"version 1 of the computations, and this is version 2: .* `--output"):
        open_run(tmp_path, Config, CONFIG)


def test_a_run_knows_the_limits_of_tables_that_it_was_asked_for_last(tmp_path):
    open_run(tmp_path, Config, CONFIG)
    assert Store(tmp_path, dataclasses.replace(CONFIG, small_remainder=0.5)).config.small_remainder == 0.5


@pytest.fixture
def rows():
    """Two rows of a run, all values present."""
    example = {pl.String: "a", pl.Boolean: True, pl.Float32: 0.5, pl.Float64: 0.5, pl.Int32: 0}
    return pl.DataFrame({name: [example[kind]] * 2 for name, kind in SCHEMA.items()}, schema=SCHEMA)


def test_columns_that_came_later_are_null_and_unknown_ones_are_left_alone(rows, tmp_path):
    path = tmp_path / "part.parquet"
    rows.drop("spearman", "top_k_guaranteed").with_columns(ssim=pl.lit(0.25)).write_parquet(path)
    found = read_part(path)
    assert found["spearman"].null_count() == found["top_k_guaranteed"].null_count() == 2
    assert (found.schema["spearman"], found["ssim"].to_list()) == (pl.Float32, [0.25, 0.25])
    assert_frame_equal(
        found.select(rows.columns).drop("spearman", "top_k_guaranteed"),
        rows.select(found.columns[: len(rows.columns) - 2]),
    )


@pytest.mark.parametrize("column", REQUIRED)
def test_a_part_that_does_not_say_what_its_rows_are_of_is_refused(rows, column, tmp_path):
    rows.drop(column).write_parquet(tmp_path / "part.parquet")
    with pytest.raises(StoreError, match=rf"columns \['{column}'\] are absent"):
        read_part(tmp_path / "part.parquet")
    rows.with_columns(pl.lit([1]).alias(column)).write_parquet(tmp_path / "part.parquet")
    with pytest.raises(StoreError, match=rf"\['{column}'\] are of other types"):
        read_part(tmp_path / "part.parquet")


def test_parts_of_different_versions_are_one_run(rows, tmp_path):
    run = open_run(tmp_path, Config, CONFIG)
    rows = rows.with_columns(config=pl.lit(run["hash"]))
    cell = tmp_path / "rows" / "a" / "a" / "a"
    cell.mkdir(parents=True)
    rows.drop("kendall").write_parquet(cell / "000000-000001.parquet")
    rows.with_columns(position=pl.lit(1, pl.Int32)).write_parquet(cell / "000001-000002.parquet")
    assert Store(tmp_path, None).rows()["kendall"].to_list() == [None, None, 0.5, 0.5]


@pytest.mark.parametrize("name", sorted(path.stem for path in (REPORT / "tables").glob("*.csv")))
def test_results_that_are_kept_can_be_extended(name):
    """By a cell of a new model, whose lines lack one column and have another."""
    kept = paper_record.read(REPORT)[name]
    assert config_hash(kept.config) == kept.hash
    assert config_hash(later(Config, **values(kept.config))) == kept.hash
    known = kept.lines["model"][0]
    lines = kept.lines.filter(model=known).with_columns(model=pl.lit("novel"), ssim=pl.lit(0.5)).drop("spearman")
    new = kept._replace(lines=lines, models={"novel": kept.models[known]})
    both = paper_record.merge(kept, new)
    order = ["model", "norm", "epsilon", "attribution"]
    assert_frame_equal(
        both.lines.filter(pl.col("model") != "novel").select(kept.lines.columns).sort(order), kept.lines.sort(order)
    )
    assert both.lines.filter(model="novel")["ssim"].to_list() == [0.5] * len(lines)
    assert both.lines.filter(model="novel")["spearman"].null_count() == len(lines)
    with pytest.raises(StoreError, match="of another configuration"):
        paper_record.merge(kept, new._replace(hash="0" * 16))


def test_a_record_is_what_its_file_says(tmp_path):
    kept = paper_record.read(REPORT)["mnist-cpu"]
    paper_record.write(kept, tmp_path)
    about = json.loads((tmp_path / "tables" / "mnist-cpu.json").read_text())
    assert about == json.loads((REPORT / "tables" / "mnist-cpu.json").read_text()) | {"config": about["config"]}
    again = paper_record.read(tmp_path)["mnist-cpu"]
    assert again.config == kept.config
    assert_frame_equal(again.lines, kept.lines)
