"""Files are written in one step, or not at all."""

import multiprocessing
import os
import signal

import pytest

from jaxattr._files import write_atomic


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "table.txt"
    write_atomic(path, lambda temporary: temporary.write_text("old"))

    def fails(temporary):
        temporary.write_text("half of the n")
        # Until it is whole, readers see the old file.
        assert path.read_text() == "old"
        raise OSError("no space left")

    with pytest.raises(OSError, match="no space left"):
        write_atomic(path, fails)
    assert path.read_text() == "old"
    assert names(tmp_path) == ["table.txt"]
    write_atomic(path, lambda temporary: temporary.write_text("new"))
    assert path.read_text() == "new"
    assert names(tmp_path) == ["table.txt"]


def _killed(path):
    def half(temporary):
        temporary.write_text("half")
        os.kill(os.getpid(), signal.SIGKILL)

    write_atomic(path, half)


def test_a_process_that_is_killed_leaves_the_old_file(tmp_path):
    path = tmp_path / "table.txt"
    path.write_text("old")
    process = multiprocessing.get_context("spawn").Process(target=_killed, args=(path,))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert path.read_text() == "old"
    # What it leaves behind is hidden, and of no pattern such as *.txt.
    assert list(tmp_path.glob("*.txt")) == [path]


def test_folders_are_made(tmp_path):
    write_atomic(tmp_path / "a" / "b" / "c.bin", lambda temporary: temporary.write_bytes(b"\0"))
    assert (tmp_path / "a" / "b" / "c.bin").read_bytes() == b"\0"
