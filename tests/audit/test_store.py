"""Cells of rows: taken for one set of methods, continued, and never mixed with rows of something else."""

import dataclasses
import json
import shutil

import polars as pl
import pytest
from polars.testing import assert_frame_equal
from small_audits import CONFIG, Config, audit, cell, parts, stored

from jaxattr.audit import spec
from jaxattr.audit import store as storing
from jaxattr.audit.rows import KEYS, SCHEMA, columns
from jaxattr.audit.run_directory import StoreError, open_run
from jaxattr.audit.store import Cell, Store, read_part

MORE = (*CONFIG.metrics, "similarity=cosine_similarity")


def contents(directory):
    return {path: path.read_bytes() for path in sorted(directory.rglob("*")) if path.is_file()}


# What a cell says of itself


def test_a_cell_says_what_determines_its_rows(run):
    about = json.loads((cell(run) / "cell.json").read_text())
    assert about["identity"] == spec.identity(CONFIG, "saliency", "linf")
    assert about["metrics"] == {label: str(call) for label, call in spec.metrics(CONFIG).items()}
    rows = pl.read_parquet(parts(run)[0], hive_partitioning=False)
    assert rows["config"].unique().to_list() == [spec.identity_hash(about["identity"])]


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"l2": (0.07,)}, r"radii: \[0\.05\] -> \[0\.07\]"),
        ({"attacks": CONFIG.attacks[1:]}, r"attacks\.pgd: 2 x pgd\(num_steps=2\) -> None"),
        ({"attributions": ("saliency=input_x_gradient",)}, "attribution: saliency -> input_x_gradient"),
        ({"max_dense_features": 3}, "max_dense_features: 784 -> 3"),
        ({"metrics": ("kendall=kendall_tau",)}, r"metrics\.kendall: kendall_tau\(magnitudes=True\) -> kendall_tau\)"),
    ],
)
def test_rows_of_two_configurations_are_never_mixed(copy, changed, words):
    before = contents(copy / "rows")
    with pytest.raises(StoreError, match=words) as error:
        audit(copy, **changed)
    assert str(cell(copy, norm="l2")) in str(error.value)
    assert "labels of their own" in str(error.value)
    assert "--output" in str(error.value)
    assert contents(copy / "rows") == before


def test_methods_that_differ_go_beside_each_other_under_labels_of_their_own(copy):
    store = stored(copy)
    other = dataclasses.replace(CONFIG, attributions=("mine=saliency", "saliency"))
    mine = Store(copy, Config, other).cell("plain", "", "mine", "linf")
    assert mine.directory == copy / "rows" / "model=plain" / "attribution=mine" / "norm=linf"
    assert store.cell("plain", "", "saliency", "linf").directory == cell(copy)


def test_a_cell_that_was_taken_and_never_filled_is_taken_again(tmp_path):
    """A command that is stopped while it compiles, and given again with another option, is not in its own way."""
    identity = {"attacks": "pgd"}
    first = Cell(tmp_path / "cell", {}, identity, {"tau": "kendall_tau"})
    first.open()
    second = Cell(tmp_path / "cell", {}, {"attacks": "pgd(num_steps=3)"}, {"tau": "spearman"})
    with first.locked(), pytest.raises(StoreError, match="another process computes the rows"):
        second.open()
    assert json.loads((tmp_path / "cell" / "cell.json").read_text())["identity"] == identity
    second.open()
    about = json.loads((tmp_path / "cell" / "cell.json").read_text())
    assert about == {"identity": {"attacks": "pgd(num_steps=3)"}, "metrics": {"tau": "spearman"}}


def test_a_cell_without_its_description_is_not_taken(copy):
    (cell(copy) / "cell.json").unlink()
    with pytest.raises(StoreError, match=r"has rows and no cell\.json"):
        audit(copy)
    assert not (cell(copy) / "cell.json").exists()
    (cell(copy) / "cell.json").write_text("{}")
    with pytest.raises(StoreError, match=r"cell\.json is damaged"):
        audit(copy)


def test_cells_of_other_models_have_the_same_methods(copy):
    assert list(stored(copy).identities()) == ["saliency/l2", "saliency/linf"]
    path = cell(copy) / "cell.json"
    about = json.loads(path.read_text())
    about["identity"]["seed"] = 7
    path.write_text(json.dumps(about))
    with pytest.raises(StoreError, match=r"other rows than those of other models \(seed: 0 -> 7"):
        stored(copy).identities()


# Metrics and columns that come later


def test_a_metric_that_comes_later_is_null_in_older_parts_and_named(copy):
    parts(copy)[1].unlink()
    audit(copy, metrics=MORE)
    for norm in ("l2", "linf"):
        about = json.loads((cell(copy, norm=norm) / "cell.json").read_text())
        assert about["metrics"]["similarity"] == "cosine_similarity"
    store = stored(copy)
    assert store.metrics() == (*spec.metrics(CONFIG), "similarity")
    rows = store.rows().filter(pl.col("kind") == "attack", model="plain", norm="linf")
    assert rows.filter(pl.col("position") < 8)["similarity"].null_count() == len(rows) // 2
    assert rows.filter(pl.col("position") >= 8)["similarity"].is_between(-1.001, 1.001).all()
    # A later command without it keeps its name.
    audit(copy)
    assert "similarity" in json.loads((cell(copy) / "cell.json").read_text())["metrics"]
    assert stored(copy).metrics() == (*spec.metrics(CONFIG), "similarity")


@pytest.fixture
def rows():
    """Two rows of a run, all values present."""
    example = {pl.String: "a", pl.Boolean: True, pl.Float32: 0.5, pl.Float64: 0.5, pl.Int32: 0}
    schema = columns(("kendall", "spearman"))
    return pl.DataFrame({name: [example[kind]] * 2 for name, kind in schema.items()}, schema=schema)


def test_columns_that_came_later_are_null_and_unknown_ones_are_left_alone(rows, tmp_path):
    path = tmp_path / "part.parquet"
    rows.drop("spearman", "top_k_guaranteed").with_columns(ssim=pl.lit(0.25)).write_parquet(path)
    found = read_part(path, metrics=("kendall", "spearman"))
    assert found["spearman"].null_count() == found["top_k_guaranteed"].null_count() == 2
    assert (found.schema["spearman"], found["ssim"].to_list()) == (pl.Float32, [0.25, 0.25])
    kept = [name for name in rows.columns if name not in ("spearman", "top_k_guaranteed")]
    assert_frame_equal(found.select(kept), rows.select(kept))


@pytest.mark.parametrize("column", KEYS)
def test_a_part_that_does_not_say_what_its_rows_are_of_is_refused(rows, column, tmp_path):
    rows.drop(column).write_parquet(tmp_path / "part.parquet")
    with pytest.raises(StoreError, match=rf"columns \['{column}'\] are absent"):
        read_part(tmp_path / "part.parquet")
    rows.with_columns(pl.lit([1]).alias(column)).write_parquet(tmp_path / "part.parquet")
    with pytest.raises(StoreError, match=rf"\['{column}'\] are of other types"):
        read_part(tmp_path / "part.parquet")


def test_an_empty_part_is_refused(rows, tmp_path):
    rows.head(0).write_parquet(tmp_path / "part.parquet")
    with pytest.raises(StoreError, match="it is empty"):
        read_part(tmp_path / "part.parquet")


def test_parts_of_different_versions_are_one_run(rows, tmp_path):
    open_run(tmp_path, Config, CONFIG)
    where = Store(tmp_path, Config).cell("a", "a", "saliency", "l2")
    where.open()
    rows = rows.with_columns(attribution=pl.lit("saliency"), norm=pl.lit("l2"))
    rows.drop("kendall", "margin").write_parquet(where.directory / "000000-000001.parquet")
    rows.with_columns(position=pl.lit(1, pl.Int32)).write_parquet(where.directory / "000001-000002.parquet")
    found = Store(tmp_path, Config).rows()
    assert found["kendall"].to_list() == found["margin"].to_list() == [None, None, 0.5, 0.5]
    assert list(found.schema) == [*SCHEMA, *spec.metrics(CONFIG)]


# All rows of a run


def test_a_scan_reads_the_parts_that_it_needs(copy):
    """By the names of directories: the parts of the other model are not Parquet at all."""
    expected = stored(copy).rows().filter(pl.col("model") == "plain")
    for norm in ("l2", "linf"):
        for path in parts(copy, "other", norm):
            path.write_bytes(b"not Parquet")
    scan = stored(copy).scan()
    found = scan.filter(pl.col("model") == "plain").collect()
    keys = ["norm", "position", "kind", "method", "restart"]
    assert_frame_equal(found.sort(keys), expected.sort(keys), check_column_order=False)
    with pytest.raises(pl.exceptions.PolarsError):
        scan.collect()


def test_a_part_in_the_directory_of_another_cell_is_noticed(copy):
    part = parts(copy)[0]
    elsewhere = cell(copy, "other") / "000016-000024.parquet"
    shutil.copy(part, elsewhere)
    with pytest.raises(StoreError, match=r"has rows of plain, saliency, linf, and lies in the directory of others"):
        stored(copy).rows()
    elsewhere.unlink()
    part.replace(parts(copy, "other")[0])
    with pytest.raises(StoreError, match="lies in the directory of others"):
        stored(copy).rows()
    with pytest.raises(StoreError, match=r"has rows of weights .*, and this run is of"):
        audit(copy)


def test_a_run_without_rows_has_none_to_read(tmp_path):
    open_run(tmp_path, Config, CONFIG)
    store = Store(tmp_path, Config)
    assert not store.has_rows()
    with pytest.raises(StoreError, match="holds no rows yet"):
        store.rows()


def test_pictures_come_back_stacked(run):
    pictures = stored(run).pictures("plain", "saliency", "linf")
    assert pictures["image"].shape == pictures["after"].shape == (2, 8, 8, 1)
    assert set(spec.metrics(CONFIG)) < set(pictures)
    assert stored(run).pictures("plain", "nothing", "linf") == {}


# Damage


def test_a_corrupt_part_is_named_and_left_alone(copy):
    part = parts(copy)[1]
    part.write_bytes(b"not Parquet")
    with pytest.raises(StoreError, match="is damaged") as error:
        audit(copy)
    assert str(part) in str(error.value)
    with pytest.raises(StoreError, match="is damaged") as error:
        stored(copy).rows()
    assert str(part) in str(error.value)
    assert part.read_bytes() == b"not Parquet"


def test_damaged_parts_are_left_out_when_told(copy):
    parts(copy)[1].write_bytes(b"not Parquet")
    rows = Store(copy, Config, skip_damaged=True).rows()
    counts = rows.select("model", "norm", "position").unique().group_by("model", "norm").len()
    assert sorted(counts.iter_rows()) == [
        ("other", "l2", 16), ("other", "linf", 16), ("plain", "l2", 16), ("plain", "linf", 8),
    ]  # fmt: skip
    before = contents(copy / "rows")
    audit(copy, skip_damaged=True)
    assert contents(copy / "rows") == before


@pytest.mark.parametrize(
    ("column", "value", "words"),
    [
        ("weights", "0123456789abcdef", r"has rows of weights \['0123456789abcdef'\], and this run is of"),
        ("config", "0123456789abcdef", r"has rows of config \['0123456789abcdef'\], and this run is of"),
        ("model", "other", r"has rows of model \['other'\], and this run is of plain"),
        ("sample", 999, "does not hold the samples that its name says"),
    ],
)
def test_rows_of_something_else_are_refused(copy, column, value, words):
    part = parts(copy)[0]
    rows = pl.read_parquet(part, hive_partitioning=False)
    rows.with_columns(pl.lit(value, rows.schema[column]).alias(column)).write_parquet(part)
    with pytest.raises(StoreError, match=words) as error:
        audit(copy)
    assert str(part) in str(error.value)
    # The samples of a part are known to who computes it alone.
    if column != "sample":
        with pytest.raises(StoreError, match=r"mixes rows of different runs or weights|in the directory of others"):
            stored(copy).rows()


def test_samples_are_never_counted_twice(copy):
    first = parts(copy)[0]
    rows = pl.read_parquet(first, hive_partitioning=False)
    rows.filter(pl.col("position") < 4).write_parquet(first.with_name("000000-000004.parquet"))
    with pytest.raises(StoreError, match="have samples in common"):
        stored(copy).rows()
    with pytest.raises(StoreError, match="another part ends at"):
        audit(copy)


def test_files_of_others_are_named_and_remains_of_a_killed_run_are_removed(copy):
    remains = cell(copy) / ".000000-000008.parquet.123.tmp"
    remains.write_bytes(b"half")
    audit(copy)
    assert not remains.exists()
    (cell(copy) / "notes.txt").write_text("words")
    with pytest.raises(StoreError, match=r"notes\.txt is no part of this run"):
        audit(copy)


def test_no_part_is_written_over(copy):
    where = Store(copy, Config).cell("plain", "", "saliency", "linf")
    before = parts(copy)[0].read_bytes()
    with pytest.raises(StoreError, match="is there already"):
        where.write(slice(0, 8), pl.DataFrame({"a": [1]}))
    assert parts(copy)[0].read_bytes() == before


def test_two_runs_do_not_compute_the_same_rows(copy):
    shutil.rmtree(cell(copy))
    with stored(copy).cell("plain", "", "saliency", "linf").locked():
        with pytest.raises(StoreError, match="another process computes the rows of"):
            audit(copy)
        assert parts(copy) == []
    audit(copy)
    assert len(parts(copy)) == 2


def test_a_lock_that_the_file_system_refuses_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr("filelock.FileLock.acquire", lambda *_, **__: (_ for _ in ()).throw(NotImplementedError("no")))
    said = []
    monkeypatch.setattr(storing.log, "warning", lambda words, *values: said.append(words % values))
    with Cell(tmp_path / "cell", {}).locked():
        pass
    assert "cannot be locked (no)" in said[0]
