"""One small run of a table for all tests of papers, and copies of it to be changed; one page of each paper."""

import functools
import shutil

import pytest
from small_papers import RESULTS, SMALL

from experiments import cli, papers
from experiments.papers import report


@pytest.fixture(scope="session")
def run(tmp_path_factory):
    """The directory of a run that is finished; it is read, and never changed."""
    directory = tmp_path_factory.mktemp("papers") / "digits-smoke"
    assert cli.main(["paper", "wang2023", "table", "4", *SMALL, "--output", str(directory)]) == 0
    return directory


@pytest.fixture
def copy(run, tmp_path):
    return shutil.copytree(run, tmp_path / "digits-smoke")


@pytest.fixture(scope="session")
def rendered(tmp_path_factory):
    """``rendered(name)``: a copy of a paper's report whose page is rendered again, from records and figures alone."""

    @functools.cache
    def render(name):
        directory = tmp_path_factory.mktemp("reports") / name
        for part in ("tables", "figures"):
            shutil.copytree(RESULTS / name / part, directory / part)
        report.render(papers.get(name), {}, directory)
        return directory

    return render
