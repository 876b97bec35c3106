"""Tasks on several processes end together, and share the cores."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from worker_tasks import fail_or_wait, marker, write_methods, write_threads

from jaxattr.audit import plugins
from jaxattr.audit.workers import run_all


def test_an_error_ends_the_other_tasks(tmp_path):
    path = tmp_path / "waited"
    with pytest.raises(ValueError, match="the first error"):
        run_all(fail_or_wait, [(path,), (None,)], workers=2)
    assert path.read_text() == "stopped"


ABANDONED = """
import sys
from pathlib import Path
from jaxattr.audit.workers import run_all
from worker_tasks import fail_or_wait
if __name__ == "__main__":
    run_all(fail_or_wait, [(Path(sys.argv[1]),), (Path(sys.argv[2]),)], workers=2)
"""


def test_workers_end_with_who_waits_for_them(tmp_path):
    script, paths = tmp_path / "main.py", [tmp_path / name for name in ("first", "second")]
    script.write_text(ABANDONED)
    where = os.pathsep.join([str(Path(__file__).parent), str(Path(__file__).parents[1]), os.getcwd()])
    parent = subprocess.Popen([sys.executable, script, *paths], env={**os.environ, "PYTHONPATH": where})
    try:
        deadline = time.monotonic() + 60
        # Its children are there when they have imported what they wait in.
        while not all(marker(path).exists() for path in paths) and time.monotonic() < deadline:
            time.sleep(0.05)
    finally:
        parent.kill()
        parent.wait()
    while not all(path.exists() for path in paths) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert [path.read_text() for path in paths] == ["stopped", "stopped"]


def test_workers_share_the_cores_for_lapack(tmp_path, monkeypatch):
    paths = [tmp_path / name for name in ("first", "second")]
    tasks = [(path,) for path in paths]
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    monkeypatch.delenv("OPENBLAS_NUM_THREADS", raising=False)
    run_all(write_threads, tasks, workers=2)
    assert [path.read_text() for path in paths] == ["4", "4"]
    assert "OPENBLAS_NUM_THREADS" not in os.environ
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "3")
    run_all(write_threads, tasks, workers=2)
    assert [path.read_text() for path in paths] == ["3", "3"]


def test_workers_know_the_methods_of_plugins(tmp_path, monkeypatch):
    """Two processes, which are started anew, and have what the environment names."""
    (tmp_path / "methods_of_a_stranger.py").write_text(
        "import jaxattr as ja\nja.attributions.REGISTRY['strange'] = ja.attributions.saliency\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv(plugins.VARIABLE, "methods_of_a_stranger")
    paths = [tmp_path / name for name in ("first", "second")]
    run_all(write_methods, [(path,) for path in paths], workers=2)
    assert ["strange" in path.read_text().split() for path in paths] == [True, True]


def test_one_worker_is_this_process(tmp_path):
    found = []
    run_all(found.append, [(1,), (2,)], workers=1)
    run_all(found.append, [(3,)], workers=4)
    assert found == [1, 2, 3]
