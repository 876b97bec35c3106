"""One small run of a table for all tests of papers, and copies of it to be changed; one page of each paper."""

import os
import shutil

import filelock
import pytest
from small_papers import RESULTS, SMALL

from experiments import cli, papers
from experiments.papers import report


@pytest.fixture(scope="session")
def made_once(tmp_path_factory):
    """``made_once(name, make)``: a directory that ``make(directory)`` fills, once for all workers of a session."""
    base = tmp_path_factory.getbasetemp()
    # Directories of the workers of one session lie beside each other.
    root = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base

    def get(name, make):
        directory, done = root / "papers" / name, root / "papers" / f"{name}.done"
        directory.parent.mkdir(exist_ok=True)
        with filelock.FileLock(root / "papers" / f"{name}.lock"):
            if not done.exists():
                make(directory)
                done.touch()
        return directory

    return get


@pytest.fixture(scope="session")
def run(made_once):
    """The directory of a run that is finished; it is read, and never changed."""

    def make(directory):
        assert cli.main(["paper", "wang2023", "table", "4", *SMALL, "--output", str(directory)]) == 0

    return made_once("digits-smoke", make)


@pytest.fixture
def copy(run, tmp_path):
    return shutil.copytree(run, tmp_path / "digits-smoke")


@pytest.fixture(scope="session")
def rendered(made_once):
    """``rendered(name)``: a copy of a paper's report whose page is rendered again, from records and figures alone."""

    def render(name):
        def make(directory):
            for part in ("tables", "figures"):
                shutil.copytree(RESULTS / name / part, directory / part)
            report.render(papers.get(name), {}, directory)

        return made_once(name, make)

    return render
