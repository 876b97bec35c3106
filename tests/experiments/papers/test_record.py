"""A record takes metrics that come later, and says what is wrong with its files."""

import dataclasses
from pathlib import Path

import polars as pl
import pytest

from experiments import papers
from experiments.papers import record
from jaxattr.audit import spec
from jaxattr.audit.run_directory import StoreError

REPORT = Path(__file__).parents[3] / "results" / "wang2023"
PAPER = papers.get("wang2023")


def test_a_metric_that_comes_later_extends_a_record():
    kept = record.read(REPORT)["mnist-cpu"]
    config = dataclasses.replace(kept.config, metrics=(*kept.config.metrics, "mine=cosine_similarity"))
    for cell, identity in kept.identities.items():
        assert spec.identity(config, *cell.split("/")) == identity
    new = kept._replace(config=config, lines=kept.lines.with_columns(mine=pl.lit(0.5), n=pl.col("n") + 1))
    assert record.merge(PAPER, kept, new).lines["mine"].to_list() == [0.5] * len(kept.lines)


def test_a_record_that_is_damaged_is_named(tmp_path):
    record.write(record.read(REPORT)["mnist-cpu"], tmp_path)
    (tmp_path / "tables" / "mnist-cpu.json").write_text("{}")
    with pytest.raises(StoreError, match=r"mnist-cpu\.csv and its JSON are damaged"):
        record.read(tmp_path)
