"""The queue of ``make accelerator``: limits, failures, continuation; and what it does where packages are missing."""

import os
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from benchmarks import _measure, _trainings, accelerator
from benchmarks._queue import Job, Queue, read

ROOT = Path(__file__).parents[2]


def job(name, function="count", seconds=20.0, **options):
    return Job(name, f"queue_jobs:{function}", seconds, least=0.1, **options)


def queue(jobs, folder, **options):
    return Queue(jobs, folder, size="tiny", data_dir=None, workers=2, environment={}, **options)


def test_failures_crashes_and_limits_are_lines_and_not_the_end(tmp_path):
    jobs = [
        job("first"),
        job("fails", "fail"),
        job("crashes", "crash"),
        job("hangs", "hang", 1.0, options={"saves": 3}),
        job("last", alone=False),
    ]
    status = queue(jobs, tmp_path).run(40)
    assert status == {"first": "done", "fails": "failed", "crashes": "failed", "hangs": "stopped", "last": "done"}
    assert read(tmp_path, "fails")["error"] == "RuntimeError: as it was meant to"
    assert "status 7" in read(tmp_path, "crashes")["error"]
    # What it had saved is kept, and handed to the next call of it.
    assert read(tmp_path, "hangs")["result"] == {"saved": 3}
    assert queue(jobs[3:4], tmp_path).run(20) == {"hangs": "stopped"}
    assert read(tmp_path, "hangs")["result"] == {"saved": 6}
    # What is done is not done again.
    assert queue(jobs[:1], tmp_path).run(20) == {"first": "done"}
    assert (tmp_path / "first.calls").read_text() == "x"


def test_the_budget_ends_the_queue_and_the_next_call_goes_on(tmp_path):
    jobs = [job("hangs", "hang", 30.0, options={"saves": 1}), job("later")]
    begin = time.monotonic()
    status = queue(jobs, tmp_path, again=True).run(3)
    assert time.monotonic() - begin < 15
    assert status == {"hangs": "stopped", "later": "not started"}
    assert queue(jobs[1:], tmp_path, again=True).run(15) == {"later": "done"}
    found = read(tmp_path, "later")["result"]
    # The time until the budget ends, and the share that the job is worth.
    assert found["left"] < 15.1
    assert found["share"] == 20


def test_a_damaged_record_is_as_good_as_none(tmp_path):
    (tmp_path / "first.json").write_text('{"status": "do')
    assert read(tmp_path, "first") == {}


def test_every_job_is_known_and_trainings_need_their_data(tmp_path):
    names = [each.name for each in accelerator.jobs("full", None)]
    assert names[:4] == ["device", "hessian", "convolutions", "mnist"]
    assert not [name for name in names if name.startswith("mnist-")]
    (tmp_path / "mnist.npz").touch()
    trained = [each.name for each in _trainings.jobs("full", str(tmp_path))]
    assert trained[:3] == ["mnist-natural", "mnist-adversarial", "mnist-trades"]
    assert {name.partition("-")[0] for name in trained} == {"mnist"}


def test_archives_leave_checkpoints_and_large_files_behind(tmp_path, monkeypatch):
    monkeypatch.setattr(accelerator, "LARGEST", 10)
    network = tmp_path / "run" / "networks" / "mnist-natural"
    (network / "checkpoints").mkdir(parents=True)
    (network / "checkpoints" / "state").write_text("s")
    (network / "network.json").write_text("{}")
    (network / "network.npz").write_text("x" * 11)
    (tmp_path / "run" / "device.json").write_text("{}")
    accelerator.archive(tmp_path / "run", tmp_path / "out")
    found = {}
    for path in (tmp_path / "out").iterdir():
        with tarfile.open(path) as tar:
            found[path.name] = tar.getnames()
    assert found == {
        "results.tar.gz": ["device.json"],
        "mnist.tar.gz": ["networks/mnist-natural/network.json"],
    }


def test_operations_are_those_of_convolutions_and_matrix_products():
    layout = ("NHWC", "HWIO", "NHWC")

    @jax.jit
    def function(x, kernel):
        images = jax.lax.conv_general_dilated(x, kernel, (1, 1), "VALID", dimension_numbers=layout)
        return images.reshape(2, -1) @ jnp.ones((27, 4))

    # 2 images of 3 x 3 pixels and 3 channels, each of 9 x 2 products; then 2 x 4 of 27.
    expected = 2 * (2 * 9 * 3 * 18) + 2 * (2 * 4 * 27)
    assert _measure.operations(function, jnp.ones((2, 5, 5, 2)), jnp.ones((3, 3, 2, 3))) == expected


HIDDEN = ("tensorflow_datasets", "tyro", "polars", "orbax")
BLOCKER = f"""
import sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {HIDDEN!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Blocker())
"""


@pytest.fixture
def without(tmp_path):
    """Environment of a process in which optional packages are missing, its children included."""
    (tmp_path / "hidden").mkdir()
    (tmp_path / "hidden" / "sitecustomize.py").write_text(BLOCKER)
    return os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path / "hidden"), str(ROOT)])}


def test_networks_and_weights_need_no_orbax(tmp_path, without):
    code = """
import sys, jaxattr as ja
import experiments.training.train
network = ja.zoo.load("digits/natural")
print(network.logits_fn(ja.data.load("digits", "test").x[0]).argmax())
try:
    ja.checkpoints.Checkpoints(sys.argv[1])
except ImportError as error:
    print(error)
"""
    command = [sys.executable, "-c", code, str(tmp_path / "states")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=without)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0] == "2"
    assert "pip install orbax-checkpoint" in done.stdout


@pytest.mark.slow
def test_what_is_missing_is_said_and_the_rest_is_done(tmp_path, without):
    folder = tmp_path / "out"
    command = [sys.executable, "-m", "benchmarks.accelerator", "--budget", "170", "--device", "cpu", "--size", "tiny"]
    command += ["--output", str(folder), "--only", "device", "digits-natural"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=without, cwd=ROOT)
    for name in HIDDEN:
        assert f"missing: {name}" in done.stdout
    assert done.returncode == 0, done.stdout
    status = {name: read(folder, name)["status"] for name in ("device", "digits-natural")}
    assert status == dict.fromkeys(status, "done")
    assert (folder / "networks" / "digits-natural" / "network.npz").exists()
    assert not (folder / "networks" / "digits-natural" / "checkpoints").exists()
