"""Two processes give the rows of one, and give up together."""

import polars as pl
import pytest
from polars.testing import assert_frame_equal
from training_runs import free_port, start

from experiments import cli
from experiments.audits.config import Config
from jaxattr.audit.store import Store

COMMAND = ["audit", "--preset", "smoke", "--dataset", "digits", "--source", "zoo", "--defenses", "natural"]
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
    two, one = (Store(tmp_path / name, Config).rows().drop("seconds").sort(keys) for name in ("two", "one"))
    assert one["position"].n_unique() == 12
    assert one.filter(pl.col("kind") == "attack")["euclidean"].is_finite().all()
    # An attack that kept x changed nothing, not even by rounding.
    unmoved = one.filter(pl.col("distance") == 0)
    assert len(unmoved) > 0
    assert (unmoved["degrees"] == 0).all()
    assert_frame_equal(two, one, rel_tol=1e-4, abs_tol=1e-5)


def test_two_processes_give_up_together(tmp_path):
    config = cli.parse_audit([*COMMAND[1:], "--output", str(tmp_path / "run")])[1]
    Store(tmp_path / "run", Config, config, {})
    codes, outputs = run_twice(*COMMAND, "--seed", "1", "--output", str(tmp_path / "run"))
    assert codes == [2, 2], "\n".join(outputs)
    assert "seed: 0 -> 1" in outputs[0]
    assert "process 0 gave up" in outputs[1]
