"""The page of Wang and Kong 2023 from the stored records: number by number what is stored beside them."""

import re

import polars as pl
import pytest
from small_papers import PAPER, RESULTS

from experiments.papers import record as records
from experiments.papers import report
from experiments.papers.wang2023.claims import claims
from experiments.papers.wang2023.settings import settings
from experiments.papers.wang2023.throughput import throughput

STORED = RESULTS / "wang2023"


@pytest.fixture(scope="module")
def written(rendered):
    return rendered("wang2023")


@pytest.fixture(scope="module")
def stored():
    return records.read(STORED)


def tables_of(markdown):
    """Cells of each table, by the heading above it."""
    found = {}
    for part in re.split(r"^#+ ", markdown, flags=re.MULTILINE)[1:]:
        title, _, text = part.partition("\n")
        rows = [line.strip("| ").split("|") for line in text.splitlines() if line.startswith("|")]
        found.setdefault(title, []).extend([cell.strip() for cell in row] for row in rows)
    return found


def test_every_number_of_the_page_is_the_stored_one(written):
    before, after = (tables_of((directory / "report.md").read_text()) for directory in (STORED, written))
    assert list(after) == list(before)
    differing = [
        f"{title}, row {i}, column {j}: {old} -> {new}"
        for title, rows in before.items()
        for i, row in enumerate(rows)
        for j, (old, new) in enumerate(zip(row, after[title][i], strict=True))
        if old != new
    ]
    assert differing == []
    assert [len(rows) for rows in after.values()] == [len(rows) for rows in before.values()]
    # Tables 2 to 5 of six runs, their orders and what is beyond them, violations, models, claims and throughput.
    assert sum(map(len, before.values())) > 300


def test_the_page_is_the_stored_one(written):
    for name in ("report.md", "index.html"):
        # Pixels of figures depend on versions of fonts; the page includes them.
        texts = [re.sub(r"base64,[^\"]*", "base64,", (path / name).read_text()) for path in (STORED, written)]
        assert texts[0] == texts[1], name
    assert {path.name for path in (written / "figures").iterdir()} == {
        path.name for path in (STORED / "figures").iterdir()
    }


def test_verdicts_are_those_of_the_stored_page(stored):
    """Counted in the page as it is stored, which nobody writes by hand."""
    rows = tables_of((STORED / "report.md").read_text())["The paper's claims"][2:]
    counted = {verdict: sum(row[-1] == verdict for row in rows) for verdict in ("held", "not held", "undecided")}
    judged = [claim.held for record in stored.values() for claim in claims(PAPER, record)]
    assert counted == {
        "held": judged.count(True),
        "not held": judged.count(False),
        "undecided": judged.count(None),
    }
    assert sum(counted.values()) == len(judged) == len(rows) > 50


@pytest.mark.parametrize("name", sorted(path.stem for path in STORED.glob("tables/*.csv")))
def test_rows_of_other_methods_change_nothing(name, stored):
    """An attribution, a metric and an attack that the paper does not have: claims, tables, words and rates stay."""
    record = stored[name]
    novel = record.lines.with_columns(
        attribution=pl.lit("novel"),
        n=pl.lit(3, pl.Int64),
        device=pl.lit("elsewhere"),
        **dict.fromkeys(("r", "paper", "bound", "paper_outside", "outside_corrected"), pl.lit(0.987)),
        **{count: pl.lit(10**6, pl.Int64) for count in ("attacks", "outside_count", "attacks_not_finite")},
    )
    more = [pl.lit(0.5).alias(column) for column in ("novel_metric", "novel_attack", "kept_novel_attack")]
    lines = pl.concat([record.lines, novel], how="vertical_relaxed").with_columns(more)
    other = record._replace(lines=lines)
    assert claims(PAPER, other) == claims(PAPER, record)
    assert settings(PAPER, other) == settings(PAPER, record)
    assert throughput(PAPER, [other]) == throughput(PAPER, [record])
    assert report._of_run(PAPER, other) == report._of_run(PAPER, record)
