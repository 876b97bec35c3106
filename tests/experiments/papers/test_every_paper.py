"""Every paper that is run again: its printed numbers, its words, its documents and its page."""

import re
import subprocess

import polars as pl
import pytest
from small_papers import RESULTS

import jaxattr as ja
from experiments import cli, papers
from experiments.datasets import DATASETS
from jaxattr.audit import spec
from jaxattr.audit.rows import columns
from jaxattr.audit.summary import GROUP, summarize

ROOT = RESULTS.parent
KEYS = ["dataset", *GROUP]
every_paper = pytest.mark.parametrize("name", papers.PAPERS)
every_table = pytest.mark.parametrize(
    ("name", "number"), [(name, number) for name in papers.PAPERS for number in papers.get(name).tables]
)


def columns_of_lines():
    """Names of the columns that lines of an audit may have: metrics and attacks have columns of their labels."""
    by_label = (text.partition("=") for text in spec.Measures().metrics)
    metrics = dict.fromkeys([label.partition("(")[0] for label, _, _ in by_label] + list(ja.metrics.REGISTRY))
    found = summarize(pl.DataFrame(schema=columns(tuple(metrics))), tuple(metrics)).columns
    attacks = [*ja.attacks.REGISTRY, "ascent"]
    return {*found, "dataset", "device", *attacks, *(f"kept_{label}" for label in attacks)}


@every_paper
def test_a_paper_is_where_its_name_says(name):
    paper = papers.get(name)
    assert paper.name == name == paper.directory.name
    assert re.fullmatch(r"[a-z]+\d{4}", name)
    assert (paper.runs.as_posix(), paper.results.as_posix()) == (f"runs/{name}", f"results/{name}")
    assert name.removeprefix(name.rstrip("0123456789")) in paper.cite
    assert set(paper.datasets) <= set(DATASETS)
    assert {*paper.same_data, *paper.same_data.values()} <= set(DATASETS)


@every_paper
def test_every_file_of_printed_numbers_is_of_a_table(name):
    paper = papers.get(name)
    files = {path.name for path in (paper.directory / "published").glob("*")}
    assert files <= {f"table_{number}.csv" for number in paper.tables}


@every_table
def test_printed_numbers_are_whole_and_have_known_columns(name, number):
    paper = papers.get(name)
    table, printed = paper.tables[number], paper.published(number)
    values = printed.drop(KEYS)
    assert set(values.columns) <= set(columns_of_lines())
    # What is not in a column of the table is never shown.
    assert set(values.columns) <= {column.name for column in table.columns}
    assert all(kind.is_numeric() for kind in values.schema.values())
    assert printed.select(KEYS).is_unique().all()
    assert printed.select(KEYS).null_count().sum_horizontal().sum() == 0
    assert not printed.select(pl.all_horizontal(pl.col(values.columns).is_null())).to_series().any()
    assert set(printed["dataset"]) <= set(DATASETS)
    assert set(printed["model"]) <= set(paper.models)
    assert set(printed["attribution"]) <= set(table.of.attributions)
    assert set(printed["norm"]) <= set(table.of.norms)


@every_table
def test_every_table_has_a_title_and_columns_that_say_something(name, number):
    paper = papers.get(name)
    table = paper.tables[number]
    assert table.title
    assert [other.title for other in paper.tables.values()].count(table.title) == 1
    heads = [column.head for column in (*table.columns, *table.beyond)]
    assert all(heads)
    assert len(set(heads)) == len(heads)
    needs = {root for column in (*table.columns, *table.beyond) for root in column.expression.meta.root_names()}
    assert needs <= columns_of_lines()
    assert table.of.attributions
    assert set(table.of.attributions) <= set(ja.attributions.REGISTRY)
    assert set(table.of.norms) <= set(spec.NORMS)


@every_paper
def test_every_figure_has_a_title_and_words(name):
    paper = papers.get(name)
    titles = [figure.title for figure in paper.figures.values()]
    assert all(titles)
    assert len(set(titles)) == len(titles)
    captions = [paper.words("caption", name=figure) for figure in paper.figures]
    assert all(len(caption) > 40 for caption in captions)
    assert len(set(captions)) == len(captions)


@every_paper
def test_the_documents_of_a_paper_name_every_table_and_figure(name):
    paper = papers.get(name)
    text = (paper.directory / "README.md").read_text()
    assert paper.cite in text
    for kind, known in (("table", paper.tables), ("figure", paper.figures)):
        for piece in known:
            assert f"`paper {name} {kind} {piece}`" in text, piece
    assert f"python -m experiments paper {name} report" in text
    links = re.findall(r"\]\(([^)#]+)", text)
    assert all((paper.directory / link).exists() for link in links)


def test_the_index_names_papers_that_are_there():
    text = (ROOT / "experiments" / "papers" / "README.md").read_text()
    links = re.findall(r"\]\(([^)#]+)", text)
    assert all((ROOT / "experiments" / "papers" / link).exists() for link in links)
    named = set(re.findall(r"\((\w+)/README\.md\)", text))
    assert named <= set(papers.PAPERS)
    assert "wang2023" in named
    for name in named:
        for words in (papers.get(name).cite, f"results/{name}/report.md", f"paper {name} "):
            assert words in text


@every_paper
def test_commands_in_the_documents_are_accepted(name):
    """Options and presets of every command are parsed; nothing is computed."""
    paper = papers.get(name)
    text = (paper.directory / "README.md").read_text()
    commands = re.findall(rf"python -m experiments paper {name} (?:table|figure) (\S+)((?: --?[^\n`]+)?)", text)
    assert commands
    for piece, options in commands:
        assert piece in {*paper.tables, *paper.figures}
        cli.parse_audit(options.split(), lambda dataset, preset: paper.runs / f"{dataset}-{preset}")


@pytest.mark.parametrize("name", [name for name in papers.PAPERS if (RESULTS / name / "tables").exists()])
def test_the_page_is_rendered_from_what_is_stored(name, rendered):
    paper, directory = papers.get(name), rendered(name)
    text = (directory / "report.md").read_text()
    assert text == (RESULTS / name / "report.md").read_text()
    assert text.startswith(f"# {paper.title}\n")
    assert f"python -m experiments paper {name} report" in text
    shown = set(re.findall(r"figures/([\w-]+\.png)", text))
    assert shown == {path.name for path in (directory / "figures").iterdir()}
    # No expression of a template is left, and nothing that a macro had no value for.
    assert not re.search(r"\{\{|\{%|\bNone\b|\bnan\b|Undefined", re.sub(r"`[^`]*`", "", text))


def test_a_paper_of_another_name_is_refused(capsys):
    with pytest.raises(ValueError, match="the paper is 'nobody2020'; there are wang2023"):
        papers.get("nobody2020")
    with pytest.raises(SystemExit) as end:
        cli.main(["paper", "nobody2020", "report"])
    assert end.value.code == 2
    assert "nobody2020" in capsys.readouterr().err


@every_paper
def test_a_table_of_another_number_is_refused(name, capsys):
    for kind in ("table", "figure"):
        with pytest.raises(SystemExit) as end:
            cli.main(["paper", name, kind, "none"])
        assert end.value.code == 2
        assert "none" in capsys.readouterr().err


def test_papers_are_cited_by_authors_and_year():
    """Numbers of papers in a list of one's own say nothing to readers."""
    files = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    if files.returncode:
        pytest.skip("this is no checkout: which files belong to it is not known")
    numbered = re.compile(r"papers?[ -]0+[0-4]\b", re.IGNORECASE)
    found = []
    for name in filter(None, files.stdout.split("\0")):
        path = ROOT / name
        if not path.is_file():
            continue
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        found += [f"{name}: {match[0]}" for match in numbered.finditer(text)]
    assert found == []
