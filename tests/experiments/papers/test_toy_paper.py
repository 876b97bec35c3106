"""A paper that is registered from outside: its table, its page, and that it changes nothing of another paper."""

import polars as pl
import pytest
from small_papers import PAPER, RESULTS, stored

from experiments import cli, papers
from experiments.papers import record as records
from experiments.papers.paper import Claim, Needs, Paper, PaperTable
from experiments.papers.wang2023.claims import claims
from jaxattr.audit.columns import Column
from jaxattr.audit.run_directory import config_hash

PRINTED = """dataset,norm,epsilon,attribution,model,paper,bound
digits,l2,0.05,saliency,natural,0.123,0.456
digits,l2,0.05,saliency,trades_igr,0.012,0.034
"""
SMALL = ["--preset", "smoke", "--dataset", "digits", "--source", "zoo", "--defenses", "natural", "--num-samples", "8"]
SMALL += ["--batch-size", "8", "--linf", "--pictures", "0", "--bounds", "singular_value"]
SMALL += ["--attacks", "restarts(pgd(num_steps=2), 2)", "--metrics", "spearman"]


def within(_, record):
    outside = float(record.lines["paper_outside"].max())
    return [Claim("no attack leaves the bound", str(record.lines["n"][0]), f"{outside:.2f}", outside == 0)]


@pytest.fixture
def toy(tmp_path, monkeypatch):
    directory = tmp_path / "toy2026"
    (directory / "published").mkdir(parents=True)
    (directory / "published" / "table_1.csv").write_text(PRINTED)
    columns = (
        Column("n", pl.col("n"), 0),
        Column("attack", pl.col("paper"), 3),
        Column("bound", pl.col("bound"), 3),
    )
    paper = Paper(
        name="toy2026",
        cite="Toy 2026",
        title="Digits, run again",
        directory=directory,
        models={"natural": "Plain", "trades_igr": "Robust"},
        tables={"1": PaperTable("Saliency of digits", Needs(("saliency",), ("l2",)), columns, decimals=3)},
        claims=within,
    )
    monkeypatch.setitem(papers.PAPERS, "toy2026", paper)
    return paper


def test_the_table_and_the_page_of_a_paper_from_outside(toy, tmp_path, capsys):
    run = tmp_path / "runs" / "digits-smoke"
    assert cli.main(["paper", "toy2026", "table", "1", *SMALL, "--output", str(run)]) == 0
    shown = capsys.readouterr().out
    assert "### Table 1, digits, preset smoke. Saliency of digits" in shown
    assert "| model | ball | n | attack | (paper) | bound | (paper) |" in shown
    lines = records.collect(toy, stored(run)).lines
    ours = f"| Plain | l2 0.05 | 8 | {lines['paper'][0]:.3f} | (0.123) | {lines['bound'][0]:.3f} | (0.456) |"
    assert ours in shown
    # What was not run is the paper's alone.
    assert "| Robust | l2 0.05 |  |  | (0.012) |  | (0.034) |" in shown

    output = tmp_path / "report"
    arguments = ["--runs", str(tmp_path / "runs"), "--output", str(output)]
    assert cli.main(["paper", "toy2026", "report", *arguments]) == 0
    text, page = ((output / name).read_text() for name in ("report.md", "index.html"))
    assert text.startswith("# Digits, run again\n")
    assert ours in text
    (outside,) = lines["paper_outside"]
    verdict = "held" if outside == 0 else "not held"
    assert f"| no attack leaves the bound | digits, preset smoke | 8 | {outside:.2f} | {verdict} |" in text
    for words in ("<title>jaxattr: Toy 2026, run again</title>", "(0.456)", "no attack leaves the bound"):
        assert words in page
    command = next(line for line in text.splitlines() if "paper toy2026 table 1" in line).strip("`")
    assert "--num-samples 8" in command
    # Without the run, too.
    assert cli.main(["paper", "toy2026", "report", "--runs", str(tmp_path / "none"), "--output", str(output)]) == 0
    assert (output / "report.md").read_text() == text


def test_another_paper_stays_as_it_is(request):
    def state():
        kept = records.read(RESULTS / "wang2023")
        arguments = ["--dataset", "mnist", "--preset", "cpu"]
        config = cli.parse_audit(arguments, lambda dataset, preset: PAPER.runs / f"{dataset}-{preset}")[1]
        judged = {name: claims(PAPER, record) for name, record in kept.items()}
        return judged, config_hash(config), {name: record.identities for name, record in kept.items()}

    before = state()
    toy = request.getfixturevalue("toy")
    assert papers.get("toy2026") is toy
    assert papers.get("wang2023") is PAPER
    assert state() == before


def test_numbers_of_a_paper_that_prints_none(toy):
    (toy.directory / "published" / "table_1.csv").unlink()
    silent = Paper("silent2026", "Silent 2026", "Nothing", toy.directory / "none", tables=toy.tables)
    assert len(silent.published("1")) == 0
    assert not silent.has("digits")


def test_commands_list_the_papers(toy, capsys):
    with pytest.raises(SystemExit) as end:
        cli.main(["paper", "--help"])
    assert end.value.code == 0
    shown = capsys.readouterr().out
    assert "toy2026" in shown
    assert "wang2023" in shown
