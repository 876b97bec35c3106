"""Runs that were interrupted end as if they had not been."""

import json
import signal

import chex
import numpy as np
import pytest
from training_runs import comparable, first_weight, initial, saved_steps, start, train, wait_for_lines

from jaxattr import training


@pytest.fixture(scope="module")
def variables():
    return initial()


def test_killed_run_ends_as_the_one_that_was_not(variables, tmp_path):
    whole = train(variables, checkpoint_dir=tmp_path / "whole", checkpoint_every=4)
    log = tmp_path / "log.jsonl"
    options = {"checkpoint_dir": tmp_path / "killed", "checkpoint_every": 4, "writers": [training.JsonLines(log)]}

    def power_cut(_):
        raise KeyboardInterrupt

    # After step 11: three steps and a line of the log are lost, in the middle of the fourth epoch.
    with pytest.raises(KeyboardInterrupt):
        train(variables, evaluate=power_cut, evaluate_every=11, **options)
    with log.open("a") as file:
        file.write('{"step": 11, "lo')
    assert saved_steps(tmp_path / "killed") == [4, 8]
    resumed = train(variables, **options)
    chex.assert_trees_all_equal(resumed.variables, whole.variables)
    assert resumed.step == whole.step == 18
    assert comparable(resumed.history) == comparable(whole.history)
    assert [json.loads(line) for line in log.read_text().splitlines()] == resumed.history
    # A run without checkpoints ends there too, and a finished one is not trained again.
    chex.assert_trees_all_equal(train(variables).variables, whole.variables)
    again = train(variables, **options)
    chex.assert_trees_all_equal(again.variables, whole.variables)
    assert again.history == resumed.history
    # And it can be made longer.
    longer = train(variables, **(options | {"epochs": 7}))
    chex.assert_trees_all_equal(longer.variables, train(variables, epochs=7).variables)


RUN = """
import sys
from pathlib import Path
from jaxattr.training import JsonLines
from training_runs import initial, slowly, train
directory, checkpoint_every, log_every = sys.argv[1:]
train(initial(), steps=10**6, epochs=None, checkpoint_dir=Path(directory, "run"),
      writers=[JsonLines(Path(directory, "log.jsonl"))],
      checkpoint_every=int(checkpoint_every), log_every=int(log_every), evaluate=slowly, evaluate_every=1)
"""


def test_process_that_is_killed_at_any_moment_can_be_restarted(variables, tmp_path):
    """The moment is wherever the process is, after at least three checkpoints."""
    process = start(RUN, tmp_path, 3, 1)
    wait_for_lines(tmp_path / "log.jsonl", 20, [process])
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    reached = max(saved_steps(tmp_path / "run"))
    assert reached >= 9
    options = {"steps": reached + 5, "epochs": None, "log_every": 1, "evaluate": first_weight, "evaluate_every": 1}
    writers = [training.JsonLines(tmp_path / "log.jsonl")]
    resumed = train(variables, checkpoint_dir=tmp_path / "run", writers=writers, **options)
    whole = train(variables, **options)
    chex.assert_trees_all_equal(resumed.variables, whole.variables)
    assert comparable(resumed.history) == comparable(whole.history)
    assert [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()] == resumed.history


def test_process_that_is_preempted_saves_and_ends(variables, tmp_path):
    """SIGTERM comes between checkpoints and between lines of metrics, and leaves no trace in the history."""
    process = start(RUN, tmp_path, 10**6, 7)
    wait_for_lines(tmp_path / "log.jsonl", 9, [process])
    process.send_signal(signal.SIGTERM)
    output = process.communicate(timeout=60)[0]
    assert process.returncode == 143, output
    (step,) = saved_steps(tmp_path / "run")
    assert step >= 8
    assert f"SIGTERM: stopped after step {step}; the same call continues from {tmp_path / 'run' / str(step)}" in output
    assert "Traceback" not in output
    options = {"steps": step + 10, "epochs": None, "log_every": 7, "evaluate": first_weight, "evaluate_every": 1}
    resumed = train(variables, checkpoint_dir=tmp_path / "run", checkpoint_every=10**6, **options)
    whole = train(variables, **options)
    chex.assert_trees_all_equal(resumed.variables, whole.variables)
    assert comparable(resumed.history) == comparable(whole.history)


def test_handler_that_was_there_is_called_after_the_save_and_put_back(variables, tmp_path):
    seen = []

    def requeue(number, frame):
        seen.append((number, saved_steps(tmp_path / "run")))

    def terminated(_):
        signal.raise_signal(signal.SIGTERM)
        return {}

    before = signal.signal(signal.SIGTERM, requeue)
    try:
        with pytest.raises(training.Interrupted) as caught:
            train(variables, checkpoint_dir=tmp_path / "run", evaluate=terminated, evaluate_every=5)
        assert signal.getsignal(signal.SIGTERM) is requeue
        # Without a place for the state, fit leaves the signal alone.
        result = train(variables, evaluate=terminated, evaluate_every=5, steps=7, epochs=None)
    finally:
        signal.signal(signal.SIGTERM, before)
    # During the evaluation after step 5, and so after step 6.
    assert (caught.value.step, caught.value.path, caught.value.code) == (6, tmp_path / "run" / "6", 143)
    assert seen[0] == (signal.SIGTERM, [3, 6])
    assert [number for number, _ in seen] == [signal.SIGTERM] * 3
    assert result.step == 7


def test_signal_in_the_last_evaluation_ends_a_run_that_is_complete(variables, tmp_path):
    def terminated(_):
        signal.raise_signal(signal.SIGTERM)
        return {}

    options = {"checkpoint_dir": tmp_path / "run", "steps": 4, "epochs": None}
    with pytest.raises(training.Interrupted):
        train(variables, evaluate=terminated, evaluate_every=4, **options)
    assert train(variables, **options).step == 4


@pytest.mark.parametrize("seed", range(2))
def test_interrupted_at_random_steps_again_and_again(variables, tmp_path, seed):
    """Each attempt is cut off at a step of its own, until one comes through."""
    rng = np.random.default_rng(seed)
    options = {"checkpoint_dir": tmp_path / "run", "checkpoint_every": 4}
    for stop in np.sort(rng.choice(np.arange(1, 18), 2, replace=False)):

        def power_cut(_):
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            train(variables, evaluate=power_cut, evaluate_every=int(stop), **options)
    resumed = train(variables, **options)
    chex.assert_trees_all_equal(resumed.variables, train(variables).variables)


def test_a_run_can_be_made_longer_and_no_shorter(variables, tmp_path):
    options = {"checkpoint_dir": tmp_path / "run", "steps": 4, "epochs": None}
    train(variables, **options)
    with pytest.raises(ValueError, match=r"holds a run of 4 steps already, more than the 3"):
        train(variables, **(options | {"steps": 3}))
    # A finished run is the same run.
    assert train(variables, **options).step == 4
