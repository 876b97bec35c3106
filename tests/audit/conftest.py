"""One small audit for all tests, and copies of it to be damaged."""

import shutil

import pytest
import shared_programs
import small_audits

from jaxattr.audit import page


@pytest.fixture(scope="session", autouse=True)
def programs_are_traced_once():
    with shared_programs.shared():
        yield


@pytest.fixture(scope="session")
def run(tmp_path_factory):
    """The directory of an audit that is finished; it is read, and never changed."""
    directory = tmp_path_factory.mktemp("audits") / "small"
    store = small_audits.audit(directory)
    page.render(store, small_audits.MODELS)
    return directory


@pytest.fixture
def copy(run, tmp_path):
    return shutil.copytree(run, tmp_path / "copy")
