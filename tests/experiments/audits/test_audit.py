"""The command ``audit``: from training to page, told again by ``report``, and everything that may be in its way."""

import shutil

import polars as pl
import pytest

from experiments import cli
from experiments.audits.config import Config
from jaxattr.audit import page, spec
from jaxattr.audit.store import Store

# One attribution under one norm, 16 digits in two batches of as many as there are simulated devices, one process to
# interfere with, and the network that is quickest to compile.
ARGUMENTS = [
    "--preset",
    "smoke",
    "--model",
    "mlp",
    "--num-samples",
    "16",
    "--batch-size",
    "8",
    "--workers",
    "1",
    "--linf",
]


def command(directory, *more):
    return ["audit", *ARGUMENTS, "--output", str(directory), *more]


def contents(directory):
    return {path: path.read_bytes() for path in sorted(directory.rglob("*")) if path.is_file()}


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
    """For tests of rows and words: figures, which every page draws again, are not drawn."""
    monkeypatch.setattr(page, "_figures", lambda *_: {"bound-against-attack": b"", "gaps": b""})


def test_the_rows_are_of_all_models(run):
    rows = Store(run, Config).rows()
    cells = rows.select("model", "attribution", "norm").unique().sort("model", "norm").rows()
    assert cells == [(model, "saliency", "l2") for model in ("adversarial", "natural")]
    assert rows["weights"].n_unique() == 2


def test_the_page_and_the_table_of_a_run(run):
    lines = [line for line in (run / "table.md").read_text().splitlines() if line.startswith(("| nat", "| adv"))]
    # Accuracies, in the order of the defenses, and five tables of a line for each.
    assert len(lines) == 2 + 5 * 2
    assert lines[0].startswith("| natural |")
    text = (run / "index.html").read_text()
    assert text.count("data:image/png;base64,") == 2 + 2
    assert "python -m experiments audit" in text
    assert "--num-samples 16" in text
    assert "training.adversarial.preset" in text


def test_report_tells_stored_rows_again(copy, capsys, undrawn):
    (copy / "index.html").unlink()
    expected = (copy / "table.md").read_text()
    assert cli.main(["report", str(copy)]) == 0
    assert (copy / "index.html").exists()
    assert (copy / "table.md").read_text() == expected
    assert "Angles and ranks" in capsys.readouterr().out


def test_a_second_run_computes_nothing(copy, undrawn):
    before = contents(copy / "rows")
    assert cli.main(command(copy)) == 0
    assert contents(copy / "rows") == before


def test_rows_of_two_configurations_are_never_mixed(copy, capsys):
    before = contents(copy / "rows")
    for changed, word in ((["--l2", "0.07"], "radii: [0.05] -> [0.07]"), (["--seed", "1"], "seed: 0 -> 1")):
        assert cli.main(command(copy, *changed)) == 2
        message = capsys.readouterr().err
        assert str(copy) in message
        assert word in message
        assert "--output" in message
    assert contents(copy / "rows") == before


def test_a_metric_that_comes_later_is_beside_those_that_are_there(copy, undrawn, capsys):
    metrics = [*spec.Measures().metrics, "similarity=cosine_similarity"]
    shutil.rmtree(copy / "rows" / "model=natural" / "attribution=saliency" / "norm=l2")
    assert cli.main(command(copy, "--metrics", *metrics)) == 0
    rows = Store(copy, Config).rows().filter(pl.col("kind") == "attack")
    counts = rows.group_by("model").agg(pl.col("similarity").null_count() / pl.len())
    assert sorted(counts.rows()) == [("adversarial", 1.0), ("natural", 0.0)]
    assert "similarity" in capsys.readouterr().out


def test_a_damaged_part_is_named_and_left_out_when_told(copy, capsys, undrawn):
    part = copy / "rows" / "model=natural" / "attribution=saliency" / "norm=l2" / "000008-000016.parquet"
    part.write_bytes(b"not Parquet")
    for again in (command(copy), ["report", str(copy)]):
        assert cli.main(again) == 2
        message = capsys.readouterr().err
        assert str(part) in message
        assert "--skip-damaged" in message
    assert cli.main(["report", str(copy), "--skip-damaged"]) == 0
    assert part.read_bytes() == b"not Parquet"


def test_networks_with_kinks_are_refused_or_said(copy, capsys, undrawn):
    path = copy / "models" / "natural" / "network.json"
    path.write_text(path.read_text().replace('"beta": 10.0', '"beta": null'))
    assert cli.main(command(copy)) == 2
    message = capsys.readouterr().err
    assert "natural: `audit` needs two derivatives" in message
    assert "--kinks allow" in message
    assert cli.main(["report", str(copy)]) == 0
    assert "Not smooth: natural" in capsys.readouterr().out


def test_a_foreign_directory_is_left_alone(tmp_path, capsys):
    (tmp_path / "thesis.tex").write_text("words")
    assert cli.main(command(tmp_path)) == 2
    assert "thesis.tex" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_there_is_nothing_to_report(tmp_path, capsys):
    assert cli.main(["report", str(tmp_path)]) == 2
    assert "Make one with `audit`" in capsys.readouterr().err
