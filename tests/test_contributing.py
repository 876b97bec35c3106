"""The recipes of CONTRIBUTING.md: their methods pass the examples and the tests that stand beside them."""

import doctest
import importlib
import pathlib
import re
import types

import pytest

import jaxattr as ja

ROOT = pathlib.Path(__file__).resolve().parent.parent
PAGE = (ROOT / "CONTRIBUTING.md").read_text()
FILES = dict(re.findall(r"(?ms)^`([^`\n]+)`[^\n]*:\n\n```(?:python)?\n(.*?)^```$", PAGE))
METHODS = sorted(path for path in FILES if re.fullmatch(r"jaxattr/\w+/\w+\.py", path) and "\ndef " in FILES[path])
EXPORTS = re.compile(r"^from (jaxattr\.\w+)\.(\w+) import (\w+) as \3\n\n    \"\3\": \3,$", re.MULTILINE)
NEW = [path for path in METHODS if not (ROOT / path).exists()]


def executed(path):
    """Return a module of the code of a file of the page."""
    module = types.ModuleType(path.removesuffix(".py").replace("/", "."))
    module.__file__ = str(ROOT / path)
    exec(compile(FILES[path], path, "exec"), vars(module))
    return module


def cases(test):
    """Return the values of a test's parameters, one dictionary for each case."""
    marks = getattr(test, "pytestmark", [])
    return [{mark.args[0]: value} for mark in marks for value in mark.args[1]] or [{}]


@pytest.mark.parametrize("path", NEW)
def test_a_method_passes_what_stands_beside_it(path, monkeypatch):
    module = executed(path)
    _, room, name = path.removesuffix(".py").split("/")
    (export,) = (found[2] for found in EXPORTS.findall(PAGE) if found[:2] == (f"jaxattr.{room}", name))
    monkeypatch.setattr(importlib.import_module(f"jaxattr.{room}"), export, getattr(module, export), raising=False)
    monkeypatch.setitem(getattr(ja, room).REGISTRY, export, getattr(module, export))

    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS)
    for example in doctest.DocTestFinder().find(module, module.__name__):
        runner.run(example)
    assert runner.tries > 1
    assert runner.failures == 0

    tests = vars(executed(f"tests/{room}/test_{name}.py"))
    run = [test for known, test in tests.items() if known.startswith("test_")]
    assert run
    for test in run:
        for values in cases(test):
            test(**values)

    call = ja.parse(getattr(ja, room).REGISTRY, export, bind=room == "metrics")
    assert str(call) == export


def test_there_is_a_recipe_of_each_kind():
    rooms = {path.split("/")[1] for path in METHODS}
    assert rooms == {"attributions", "bounds", "attacks", "defenses", "metrics"}


def test_the_dissimilarity_is_one():
    (code,) = re.findall(r"(?ms)^```python\n(@described\ndef \w+\(\) -> Dissimilarity:\n.*?)^```$", PAGE)
    names = dict(vars(ja.attacks.dissimilarities))
    known = set(names)
    exec(code, names)
    (made,) = (names[name]() for name in set(names) - known)
    assert isinstance(made, ja.attacks.Dissimilarity)
    assert made.name in PAGE


def test_the_paper_is_one(tmp_path, monkeypatch):
    from experiments import papers  # noqa: PLC0415

    files = {path: text for path, text in FILES.items() if path.startswith("experiments/papers/")}
    (source,) = (path for path in files if path.endswith(".py"))
    for path, text in files.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    module = types.ModuleType("recipe")
    module.__file__ = str(tmp_path / source)
    exec(compile(files[source], source, "exec"), vars(module))
    paper = module.PAPER
    monkeypatch.setitem(papers.PAPERS, paper.name, paper)
    assert papers.get(paper.name) is paper
    assert f'"{paper.name}": "experiments.papers.{paper.name}",' in PAGE
    for number, table in paper.tables.items():
        printed = paper.published(number)
        assert len(printed) == len(table.of.select(printed)) > 0
        assert {column.name for column in table.columns} & set(printed.columns)
    assert paper.words("intro", names=paper.models)
