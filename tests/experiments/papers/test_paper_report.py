"""The page of a paper from runs: what it has, that it is written again without rows, and which figures stay."""

import shutil

import polars as pl
import pytest
from small_papers import PAPER, SMALL, stored

from experiments import cli
from experiments.papers import record as records
from experiments.papers.wang2023 import values


def report(tmp_path):
    return ["paper", "wang2023", "report", "--runs", str(tmp_path), "--output", str(tmp_path / "report")]


@pytest.fixture
def short(monkeypatch):
    """For tests of which values a figure has: a map of each network whose Jacobian is compiled at once."""
    monkeypatch.setattr(values.spec, "attribution", lambda *_: lambda logits_fn, x, label: x * logits_fn(x)[label])


def test_the_report_has_everything_that_has_results(copy, tmp_path):
    # A figure that has been computed, and a table of another run that has not.
    weights = {model: about["weights"] for model, about in records.collect(PAPER, stored(copy)).models.items()}
    pl.DataFrame(
        [
            {"model": model, "weights": weights[model], "n": 3, "epsilon": radius, "remainder": radius}
            for model in ("natural", "trades_igr")
            for radius in (0.1, 0.2)
            for _ in range(3)
        ]
    ).write_csv(copy / "linearity.csv")
    assert cli.main(report(tmp_path)) == 0
    markdown = (tmp_path / "report" / "report.md").read_text()
    page = (tmp_path / "report" / "index.html").read_text()
    for words in ("Table 4, digits, preset smoke.", "Figure 2.", "Appendix B", "The paper's claims", "semidefinite"):
        assert words in markdown
    assert page.count("data:image/png;base64,") == len(list((tmp_path / "report" / "figures").glob("*.png"))) == 3
    assert "Table 3, digits" not in markdown
    table = pl.read_csv(tmp_path / "report" / "tables" / "digits-smoke.csv")
    assert sorted(table["model"]) == ["natural", "trades_igr"]


def test_the_report_is_written_again_without_the_rows(copy, tmp_path):
    assert cli.main(report(tmp_path)) == 0
    texts = [(tmp_path / "report" / name).read_text() for name in ("report.md", "index.html")]
    shutil.rmtree(copy)
    assert cli.main(report(tmp_path)) == 0
    assert [(tmp_path / "report" / name).read_text() for name in ("report.md", "index.html")] == texts
    # One batch a cell: nothing to take a rate from, and a column without a value.
    table = tmp_path / "report" / "tables" / "digits-smoke.csv"
    pl.read_csv(table).with_columns(pl.lit(None).alias("bound_seconds")).write_csv(table)
    assert cli.main(report(tmp_path)) == 0
    (tmp_path / "report" / "tables" / "digits-smoke.json").unlink()
    assert cli.main(report(tmp_path)) == 2


def test_figures_are_not_replaced_by_those_of_fewer_models(copy, tmp_path, short):
    assert cli.main(["paper", "wang2023", "figure", "1b", *SMALL, "--output", str(copy)]) == 0
    assert cli.main(report(tmp_path)) == 0
    figures = [tmp_path / "report" / "figures" / f"digits-smoke-{name}.png" for name in ("gaps", "1b")]
    drawn = [figure.read_bytes() for figure in figures]
    figures[1].write_bytes(b"of all models")
    shutil.rmtree(copy / "rows" / "model=trades_igr")
    of_both = pl.read_csv(copy / "1b.csv")
    of_both.filter(model="natural").write_csv(copy / "1b.csv")
    assert cli.main(report(tmp_path)) == 0
    # Gaps are kept, and drawn again with those of both.
    assert [figure.read_bytes() for figure in figures] == [drawn[0], b"of all models"]
    of_both.write_csv(copy / "1b.csv")
    assert cli.main(report(tmp_path)) == 0
    assert figures[1].read_bytes() == drawn[1]


def test_models_are_added_to_a_figure(copy, tmp_path, short):
    arguments = ["paper", "wang2023", "figure", "1b", *SMALL, "--output", str(copy)]
    assert cli.main([*arguments, "--defenses", "natural"]) == 0
    alone = pl.read_csv(copy / "1b.csv")
    assert alone["model"].unique().to_list() == ["natural"]
    assert alone["n"].unique().to_list() == [8]
    assert cli.main(arguments) == 0
    both = values.read_values("1b", stored(copy))
    assert both.filter(model="natural").equals(alone)
    assert sorted(both["model"].unique()) == ["natural", "trades_igr"]
    # What was of other weights, or of fewer samples, is made again.
    other = both.with_columns(
        weights=pl.when(model="natural").then(pl.lit("other")).otherwise("weights"),
        n=pl.when(model="natural").then("n").otherwise(4),
    )
    other.write_csv(copy / "1b.csv")
    assert values.read_values("1b", stored(copy))["model"].unique().to_list() == ["trades_igr"]
    assert cli.main(arguments) == 0
    assert values.read_values("1b", stored(copy)).sort(both.columns).equals(both.sort(both.columns))
    # Of the figure alone a report has nothing; where it has the rows from before, the figure is drawn.
    assert cli.main(report(tmp_path)) == 0
    drawn = tmp_path / "report" / "figures" / "digits-smoke-1b.png"
    drawn.unlink()
    shutil.rmtree(copy / "rows")
    assert cli.main(report(tmp_path)) == 0
    assert drawn.exists()
    shutil.rmtree(tmp_path / "report")
    assert cli.main(report(tmp_path)) == 2
