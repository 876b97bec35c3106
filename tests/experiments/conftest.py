"""Runs of one process share their programs."""

import pytest
import shared_programs


@pytest.fixture(scope="session", autouse=True)
def programs_are_traced_once():
    with shared_programs.shared():
        yield
