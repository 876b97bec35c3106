"""A small run from data to page, killed and continued, and everything that may be in its way."""

import dataclasses
import json
import re
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

import jaxattr as ja
from experiments import cli, config, evaluate, networks, program, record, report, store
from experiments.store import Store, StoreError

# One attribution, 16 digits in two batches of as many as there are simulated devices, one process to interfere with;
# and the network that is quickest to compile.
ARGUMENTS = ["--preset", "smoke", "--model", "mlp", "--num-samples", "16", "--batch-size", "8", "--workers", "1"]


def command(directory, *more):
    return ["evaluate", *ARGUMENTS, "--output", str(directory), *more]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    directory = tmp_path_factory.mktemp("runs") / "smoke"
    assert cli.main(command(directory)) == 0
    return directory


@pytest.fixture
def copy(run, tmp_path):
    return shutil.copytree(run, tmp_path / "copy")


@pytest.fixture
def undrawn(monkeypatch):
    """For tests of rows and words: figures, which every report draws again, are not."""
    monkeypatch.setattr(report, "_figures", lambda *_: [])


def parts(directory, cell="natural/saliency/linf"):
    return sorted((directory / "rows" / cell).glob("*.parquet"))


def test_rows_of_every_sample_bound_and_attack(run):
    rows = Store(run, None).rows()
    config = Store(run, None).config
    attacks = rows.filter(pl.col("kind") == "attack")
    per_sample = attacks.group_by("model", "norm", "position").agg(pl.len(), pl.col("method").n_unique())
    assert len(per_sample) == 2 * 2 * 16
    # PGD, IFIA and the ascent from every random start, and both ends of the bound's own direction.
    assert per_sample["len"].unique().to_list() == [3 * config.restarts + 2]
    assert per_sample["method"].unique().to_list() == [4]
    bounds = rows.filter(pl.col("kind") == "bound")
    methods = bounds.group_by("norm").agg(pl.col("method").unique().sort()).sort("norm")
    assert methods["method"].to_list() == [["singular_value"], ["entrywise", "norm_relaxation", "smallest"]]
    for column in ("euclidean", "euclidean_attained", "attribution_norm"):
        assert bounds[column].is_finite().all()
    assert (bounds["euclidean_attained"] <= bounds["euclidean"] * (1 + 1e-6)).all()


def test_the_active_bound_is_the_smaller_one(run):
    bounds = Store(run, None).rows().filter(pl.col("kind") == "bound", pl.col("norm") == "linf")
    wide = bounds.pivot("method", index=["model", "position"], values="euclidean")
    smallest = bounds.filter(pl.col("method") == "smallest").select("model", "position", "active")
    for row in wide.join(smallest, on=["model", "position"]).iter_rows(named=True):
        assert row["smallest"] == min(row["entrywise"], row["norm_relaxation"]) == row[row["active"]]


def test_the_page_and_the_table_of_a_run(run):
    table = (run / "table.md").read_text()
    lines = [line for line in table.splitlines() if line.startswith(("| natural", "| adversarial"))]
    # Accuracies, and five tables of (models) x (norms) lines.
    assert len(lines) == 2 + 5 * 4
    page = (run / "index.html").read_text()
    assert page.count("data:image/png;base64,") == 2 + 4
    for kind in ("bound-against-attack", "gaps", "maps-natural-saliency-l2"):
        assert kind in page
        assert (run / "figures" / f"{kind}.png").read_bytes().startswith(b"\x89PNG")
    assert "--num-samples 16" in page


def with_relu(directory):
    """The run's natural network, as if it had been trained with ReLU."""
    path = directory / "models" / "natural" / "network.json"
    card = json.loads(path.read_text())
    card["model"]["options"]["beta"] = None
    path.write_text(json.dumps(card))


def test_a_network_with_kinks_is_refused_before_anything_is_computed(copy, capsys):
    shutil.rmtree(copy / "rows")
    with_relu(copy)
    assert cli.main(command(copy)) == 2
    message = capsys.readouterr().err
    assert re.search(r"natural: `evaluate` needs two derivatives .* not smooth in \d+ operations? .*relu", message)
    assert "ja.smooth(logits_fn, beta=10.0)" in message
    assert "--kinks allow" in message
    assert not (copy / "rows").exists()


def test_kinks_that_are_allowed_are_said_beside_the_tables_and_change_no_identity(copy, undrawn):
    store = Store(copy, None)
    assert "Not smooth" not in (copy / "table.md").read_text()
    allowed = dataclasses.replace(store.config, kinks="allow")
    assert record.config_hash(allowed) == store.hash
    with_relu(copy)
    report.render(store, "evaluate --kinks allow")
    for name in ("table.md", "index.html"):
        assert re.search(r"Not smooth: natural \(\d\)", (copy / name).read_text())
    network = networks.load(copy / "models" / "natural")
    classify = ja.models.logits_fn(network.model, network.variables)
    arguments = (classify, jnp.full((8, 8, 1), 0.5), 0, jax.random.key(0))
    for norm, radii in config.norms(allowed).items():
        # Of the norm attacks know the ball alone; bounds are other methods.
        makers = (program.bounds_program, program.attack_program) if norm == "linf" else (program.bounds_program,)
        for make in makers:
            with pytest.raises(ValueError, match="needs two derivatives"):
                jax.eval_shape(make("saliency", norm, radii, store.config), *arguments)
            jax.eval_shape(make("saliency", norm, radii, allowed), *arguments)


def test_a_killed_run_loses_the_batch_in_flight_only(run, copy, monkeypatch, undrawn):
    shutil.rmtree(copy / "rows" / "natural" / "saliency" / "linf")
    write = store.Cell.write

    def killed(cell, where, rows):
        if where.start == 8:
            raise KeyboardInterrupt
        write(cell, where, rows)

    monkeypatch.setattr(store.Cell, "write", killed)
    with pytest.raises(KeyboardInterrupt):
        cli.main(command(copy))
    assert [path.name for path in parts(copy)] == ["000000-000008.parquet"]
    before = parts(copy)[0].stat().st_mtime_ns
    monkeypatch.setattr(store.Cell, "write", write)
    assert cli.main(command(copy)) == 0
    assert parts(copy)[0].stat().st_mtime_ns == before
    keys = ["model", "norm", "position", "kind", "method", "restart"]
    expected, actual = (Store(where, None).rows().drop("seconds").sort(keys) for where in (run, copy))
    assert_frame_equal(actual, expected, rel_tol=1e-5, abs_tol=1e-6)


def test_rows_of_two_configurations_are_never_mixed(copy, capsys):
    assert cli.main(command(copy, "--l2", "0.07")) == 2
    message = capsys.readouterr().err
    assert str(copy) in message
    assert "l2" in message
    assert "--output" in message


def test_a_corrupt_part_is_named_and_left_alone(copy, capsys):
    part = parts(copy)[1]
    part.write_bytes(b"not Parquet")
    assert cli.main(command(copy)) == 2
    assert str(part) in capsys.readouterr().err
    assert part.read_bytes() == b"not Parquet"


def test_a_gap_is_computed_alone(run, copy, undrawn):
    first, second = parts(copy)
    first.unlink()
    before = second.stat().st_mtime_ns
    assert cli.main(command(copy)) == 0
    assert parts(copy) == [first, second]
    assert second.stat().st_mtime_ns == before
    keys = ["model", "norm", "position", "kind", "method", "restart"]
    expected, actual = (Store(where, None).rows().drop("seconds").sort(keys) for where in (run, copy))
    assert_frame_equal(actual, expected, rel_tol=1e-5, abs_tol=1e-6)


@pytest.mark.parametrize(
    ("column", "value", "words"),
    [
        ("weights", "0123456789abcdef", "has rows of weights ['0123456789abcdef'], and this run is of"),
        ("config", "0123456789abcdef", "has rows of config ['0123456789abcdef'], and this run is of"),
        ("sample", 999, "does not hold the samples that its name says"),
    ],
)
def test_rows_of_something_else_are_refused(copy, capsys, column, value, words):
    part = parts(copy)[0]
    rows = pl.read_parquet(part)
    rows.with_columns(pl.lit(value, rows.schema[column]).alias(column)).write_parquet(part)
    assert cli.main(command(copy)) == 2
    message = capsys.readouterr().err
    assert str(part) in message
    assert words in message
    # The samples of a part are known to who computes it alone.
    if column != "sample":
        with pytest.raises(StoreError, match="mixes rows of different runs or weights"):
            Store(copy, None).rows()


def test_samples_are_never_counted_twice(copy, capsys):
    first = parts(copy)[0]
    pl.read_parquet(first).filter(pl.col("position") < 4).write_parquet(first.with_name("000000-000004.parquet"))
    with pytest.raises(StoreError, match="have samples in common"):
        Store(copy, None).rows()
    assert cli.main(command(copy)) == 2
    assert "another part ends at" in capsys.readouterr().err


def test_two_runs_do_not_compute_the_same_rows(copy, capsys, undrawn):
    shutil.rmtree(copy / "rows" / "natural" / "saliency" / "linf")
    cell = Store(copy, None).cell("natural", "", "saliency", "linf")
    with cell.locked():
        assert cli.main(command(copy)) == 2
        assert "another process computes the rows of" in capsys.readouterr().err
        assert parts(copy) == []
    assert cli.main(command(copy)) == 0
    assert len(parts(copy)) == 2


def test_a_run_that_goes_on_elsewhere_names_both_devices(copy, monkeypatch):
    before = Store(copy, None).run["environment"]["device"]
    config = Store(copy, None).config
    for _ in range(2):
        Store(copy, config, {"device": "1 x other"})
        assert Store(copy, None).run["environment"]["device"] == f"{before}, 1 x other"


def test_a_foreign_directory_is_left_alone(tmp_path, capsys):
    (tmp_path / "thesis.tex").write_text("words")
    assert cli.main(command(tmp_path)) == 2
    assert "thesis.tex" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_report_renders_stored_rows_again(copy, capsys):
    (copy / "index.html").unlink()
    expected = (copy / "table.md").read_text()
    assert cli.main(["report", str(copy)]) == 0
    assert (copy / "index.html").exists()
    assert (copy / "table.md").read_text() == expected
    assert "Angles and ranks" in capsys.readouterr().out


def test_report_of_nothing(tmp_path):
    with pytest.raises(StoreError, match=r"no run\.json"):
        Store(tmp_path, None)


def test_the_samples_are_the_first_correct_ones(run):
    data = ja.data.load("digits", "test")
    network = evaluate.networks.load(run / "models" / "natural")
    classify = ja.models.logits_fn(network.model, network.variables)
    predicted = np.asarray(jax.vmap(classify)(data.x).argmax(axis=-1))
    correct = [i for i, label in enumerate(data.label) if predicted[i] == label][:16]
    rows = Store(run, None).rows().filter(pl.col("model") == "natural")
    stored = rows.select("position", "sample").unique().sort("position")["sample"].to_list()
    assert stored[: len(correct)] == correct
