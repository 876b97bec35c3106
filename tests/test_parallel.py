"""Many samples: the numbers do not depend on devices, batches, processes, or interruptions."""

import os
import pathlib
import socket
import subprocess
import sys

import jax
import numpy as np
import pytest
from many_samples import KEY, PGD, N, data, looped
from tables import assert_trees_close

import jaxattr as ja


def test_there_are_eight_devices():
    assert len(jax.devices()) == 8


@pytest.mark.parametrize(("devices", "batch_size"), [(1, 5), (1, None), (3, 6), (8, 8), (8, 5), (8, None), (8, 100)])
def test_any_number_of_devices_and_batch_size_equals_a_python_loop(devices, batch_size):
    logits_fn, xs, labels = data()
    lifted = ja.over_samples(PGD, logits_fn, batch_size=batch_size, devices=jax.devices()[:devices])
    result = lifted(xs, labels, KEY)
    assert all(isinstance(leaf, np.ndarray) for leaf in jax.tree.leaves(result))
    assert_trees_close(result, looped())


WORKER = """
import sys
import jax
port, rank, tests, out = sys.argv[1:]
sys.path.insert(0, tests)
jax.distributed.initialize(f"127.0.0.1:{port}", num_processes=2, process_id=int(rank))
import numpy as np
import many_samples
import jaxattr as ja

assert jax.process_count() == 2 and len(jax.devices()) == 4 and len(jax.local_devices()) == 2
logits_fn, xs, labels = many_samples.data()
seen = []
run = ja.over_samples(
    many_samples.PGD, logits_fn, batch_size=8, progress=lambda done, total: seen.append(done)
)
result = run(xs, labels, many_samples.KEY)
np.savez(out, progress=np.array(seen), **result._asdict())
jax.distributed.shutdown()
"""


def test_two_processes_give_the_same_table_as_one(tmp_path):
    """Two devices each, joined by gloo on this machine."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {**os.environ, "JAX_NUM_CPU_DEVICES": "2", "JAX_PLATFORMS": "cpu"}
    tests = str(pathlib.Path(__file__).parent)
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", WORKER, str(port), str(rank), tests, str(tmp_path / f"{rank}.npz")],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        outputs = [worker.communicate(timeout=120)[0] for worker in workers]
    finally:
        for worker in workers:
            worker.kill()
    assert [worker.returncode for worker in workers] == [0, 0], "\n".join(outputs)
    for rank in range(2):
        found = dict(np.load(tmp_path / f"{rank}.npz"))
        # Process 0 alone reports.
        assert found.pop("progress").tolist() == ([8, N] if rank == 0 else [])
        assert_trees_close(ja.attacks.AttackResult(**found), looped())
