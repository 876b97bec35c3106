"""Two processes give the rows of one, give up together, and share the cores."""

import os
import subprocess
import sys
import time
from pathlib import Path

import polars as pl
import pytest
from polars.testing import assert_frame_equal
from training_runs import free_port, start
from worker_tasks import fail_or_wait, marker, write_threads

from experiments import cli
from experiments.store import Store
from experiments.workers import run_all

COMMAND = ["evaluate", "--preset", "smoke", "--dataset", "digits", "--source", "zoo", "--defenses", "natural"]
COMMAND += ["--num-samples", "12", "--batch-size", "8", "--linf", "--pictures", "0"]

WORKER = """
import sys
import jax
port, rank, *command = sys.argv[1:]
jax.distributed.initialize(f"127.0.0.1:{port}", num_processes=2, process_id=int(rank))
assert jax.process_count() == 2 and len(jax.devices()) == 4
from experiments import cli
sys.exit(cli.main(command))
"""


def run_twice(*command):
    port = free_port()
    environment = {"JAX_NUM_CPU_DEVICES": "2", "JAX_PLATFORMS": "cpu"}
    workers = [start(WORKER, port, rank, *command, **environment) for rank in range(2)]
    try:
        outputs = [worker.communicate(timeout=180)[0] for worker in workers]
    finally:
        for worker in workers:
            worker.kill()
    return [worker.returncode for worker in workers], outputs


@pytest.mark.slow
def test_two_processes_give_the_rows_of_one(tmp_path):
    codes, outputs = run_twice(*COMMAND, "--output", str(tmp_path / "two"))
    assert codes == [0, 0], "\n".join(outputs)
    # Process 0 alone writes, and prints the tables.
    assert ["Angles and ranks" in output for output in outputs] == [True, False]
    assert cli.main([*COMMAND, "--output", str(tmp_path / "one")]) == 0
    keys = ["position", "kind", "method", "restart"]
    two, one = (Store(tmp_path / name, None).rows().drop("seconds").sort(keys) for name in ("two", "one"))
    assert one["position"].n_unique() == 12
    assert one.filter(pl.col("kind") == "attack")["euclidean"].is_finite().all()
    # An attack that kept x changed nothing, not even by rounding.
    unmoved = one.filter(pl.col("distance") == 0)
    assert len(unmoved) > 0
    assert (unmoved["degrees"] == 0).all()
    assert_frame_equal(two, one, rel_tol=1e-4, abs_tol=1e-5)


def test_two_processes_give_up_together(tmp_path):
    Store(tmp_path / "run", cli.parse_evaluate([*COMMAND[1:], "--output", str(tmp_path / "run")])[1], {})
    codes, outputs = run_twice(*COMMAND, "--l2", "0.07", "--output", str(tmp_path / "run"))
    assert codes == [2, 2], "\n".join(outputs)
    assert "l2" in outputs[0]
    assert "process 0 gave up" in outputs[1]


def test_an_error_ends_the_other_tasks(tmp_path):
    path = tmp_path / "waited"
    with pytest.raises(ValueError, match="the first error"):
        run_all(fail_or_wait, [(path,), (None,)], workers=2)
    assert path.read_text() == "stopped"


ABANDONED = """
import sys
from pathlib import Path
from experiments.workers import run_all
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
