"""Pages whose every example is run, and that need frameworks beside Flax."""

import doctest
import pathlib

import pytest

DOCS = pathlib.Path(__file__).resolve().parent.parent / "docs"


@pytest.mark.parametrize("page", ["frameworks.md"])
def test_examples_of_a_page(page):
    failed, attempted = doctest.testfile(
        str(DOCS / page), module_relative=False, optionflags=doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS
    )
    assert attempted > 20
    assert failed == 0
