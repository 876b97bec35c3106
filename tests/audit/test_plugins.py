"""Modules of a user's own are imported by the names that the environment gives."""

import sys

import pytest

import jaxattr as ja
from experiments import cli
from jaxattr.audit import plugins

CODE = """
import jaxattr as ja
ja.attributions.REGISTRY["strange"] = ja.attributions.saliency
"""


@pytest.fixture
def names(tmp_path, monkeypatch):
    """Return two modules that are there to be imported, and forget them."""
    monkeypatch.syspath_prepend(tmp_path)
    found = ("strange_methods", "strange_names")
    (tmp_path / f"{found[0]}.py").write_text(CODE)
    (tmp_path / f"{found[1]}.py").write_text("")
    yield found
    ja.attributions.REGISTRY.pop("strange", None)
    for name in found:
        sys.modules.pop(name, None)


def test_all_modules_that_are_named_are_imported(names, monkeypatch):
    monkeypatch.setenv(plugins.VARIABLE, f" {names[0]}, {names[1]},")
    plugins.load()
    assert ja.build(ja.attributions.REGISTRY, "strange") == ja.attributions.saliency()
    assert set(names) <= set(sys.modules)


def test_none_is_named(names, monkeypatch):
    monkeypatch.delenv(plugins.VARIABLE, raising=False)
    plugins.load()
    assert not set(names) & set(sys.modules)


def test_a_module_that_is_missing_is_named(monkeypatch, capsys):
    monkeypatch.setenv(plugins.VARIABLE, "methods_that_are_nowhere")
    with pytest.raises(
        ImportError, match="JAXATTR_PLUGINS names the module 'methods_that_are_nowhere', which cannot be"
    ):
        plugins.load()
    assert cli.main(["audit", "--preset", "smoke"]) == 2
    assert "methods_that_are_nowhere" in capsys.readouterr().err


def test_a_module_that_lacks_another_one_is_named_with_it(names, tmp_path, monkeypatch):
    (tmp_path / f"{names[0]}.py").write_text("import something_that_is_nowhere")
    monkeypatch.setenv(plugins.VARIABLE, names[0])
    with pytest.raises(ImportError, match=f"the module '{names[0]}'.*something_that_is_nowhere"):
        plugins.load()


def test_commands_know_the_methods(names, monkeypatch):
    monkeypatch.setenv(plugins.VARIABLE, names[0])
    plugins.load()
    _, config = cli.parse_audit(["--preset", "smoke", "--attributions", "mine=strange"])
    assert config.attributions == ("mine=strange",)
