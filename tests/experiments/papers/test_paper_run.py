"""Commands of a paper: its tables of a small run, what is added to a run, and what is refused."""

import polars as pl
import pytest
from small_papers import SMALL, stored

from experiments import cli, papers
from experiments.audits.config import Config
from experiments.papers import run as of_papers


def table(number, directory, *more):
    return cli.main(["paper", "wang2023", "table", number, *SMALL, "--output", str(directory), *more])


def test_the_table_of_a_run(run, capsys):
    assert table("4", run) == 0
    text = capsys.readouterr().out
    bounds = stored(run).rows().filter(kind="bound", model="trades_igr")
    mean = bounds.filter(method="semidefinite_box")["euclidean"].mean()
    assert f"| {mean:.4f} |" in text
    assert "Table 4" in text
    assert "Beyond Table 4" in text


def test_samples_are_added_to_a_run(copy):
    assert table("4", copy, "--num-samples", "10") == 0
    rows = stored(copy).rows()
    assert rows.filter(kind="bound")["position"].unique().sort().to_list() == list(range(10))
    assert len(list((copy / "rows").rglob("*.parquet"))) == 4
    # Fewer are there already.
    assert table("4", copy) == 0


def test_a_damaged_part_is_left_out_when_told_alone(copy, tmp_path, capsys):
    (part,) = copy.glob("rows/model=natural/attribution=integrated_gradients/norm=linf/*.parquet")
    part.write_bytes(b"not Parquet")
    again = ["paper", "wang2023", "table", "4", *SMALL, "--output", str(copy)]
    report = ["paper", "wang2023", "report", "--runs", str(tmp_path), "--output", str(tmp_path / "report")]
    for command in (again, report):
        assert cli.main(command) == 2
        message = capsys.readouterr().err
        assert str(part) in message
        assert "--skip-damaged" in message
    assert cli.main([*again, "--skip-damaged"]) == 0
    assert "| natural |" not in capsys.readouterr().out
    assert cli.main([*report, "--skip-damaged"]) == 0
    assert part.read_bytes() == b"not Parquet"
    for other in (copy / "rows").rglob("*.parquet"):
        other.write_bytes(b"not Parquet")
    capsys.readouterr()
    assert cli.main([*report, "--skip-damaged"]) == 2
    assert "all of its files are damaged" in capsys.readouterr().err


def test_which_tables_there_are(capsys):
    with pytest.raises(SystemExit) as end:
        cli.main(["paper", "wang2023", "table", "--help"])
    assert end.value.code == 0
    words = capsys.readouterr().out
    assert "{2,3,4,5}" in words
    assert "Wang and Kong 2023" in words
    for option in ("--dataset", "--attributions", "--bounds"):
        assert option in words


def test_what_there_is_not(tmp_path, capsys):
    output = ["--output", str(tmp_path / "none")]
    of = ["paper", "wang2023"]
    assert cli.main([*of, "table", "3", "--dataset", "digits", "--preset", "cpu", *output]) == 2
    assert "no trained network digits/adversarial" in capsys.readouterr().err
    assert table("2", tmp_path / "none", "--defenses", "natural") == 2
    assert "table 2 is about trades_igr: add it to `--defenses`" in capsys.readouterr().err
    assert cli.main([*of, "report", "--runs", str(tmp_path), "--output", str(tmp_path / "report")]) == 2
    assert "no run with rows yet: make one with `paper wang2023 table 2`" in capsys.readouterr().err
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("kind", ["table", "figure"])
def test_a_name_that_a_paper_does_not_have_is_refused(kind):
    with pytest.raises(ValueError, match=f"the {kind} is '9'; Wang and Kong 2023 has 2"):
        of_papers.compute(papers.get("wang2023"), kind, "9", Config())


def test_bounds_of_a_run_are_ordered(run):
    bounds = stored(run).rows().filter(kind="bound")
    wide = bounds.pivot("method", index=["model", "position"], values="euclidean")
    slack = 1 + 1e-5
    assert (wide["semidefinite"] <= wide["smallest"] * slack).all()
    assert (wide["semidefinite_box"] <= wide["semidefinite"] * slack).all()
    attained = bounds.pivot("method", index=["model", "position"], values="euclidean_attained")
    assert (attained["semidefinite"] <= wide["semidefinite"] * slack).all()


def test_no_attack_goes_below_guaranteed_ranks_where_it_is_nearly_linear(run):
    rows = stored(run).rows()
    guaranteed = rows.filter(pl.col("kendall_guaranteed").is_finite())
    assert guaranteed.group_by("model").len()["len"].to_list() == [3, 3]
    limits = guaranteed.select("model", "position", "remainder", *(f"{n}_guaranteed" for n in ("kendall", "top_k")))
    attacks = rows.filter(kind="attack").select("model", "position", "kendall", "top_k")
    both = attacks.join(limits, on=["model", "position"]).filter(pl.col("remainder") < 0.05)
    assert len(both)
    assert (both["kendall"] >= both["kendall_guaranteed"] - 1e-6).all()
    assert (both["top_k"] >= both["top_k_guaranteed"] - 1e-6).all()
