"""Writers receive every row, continue their own files, and leave those of others alone."""

import json
import struct
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from training_runs import APPLY, comparable, initial, make_data, train

from jaxattr.training import JsonLines, TensorBoard, Writer, fit


@pytest.fixture(scope="module")
def variables():
    return initial()


class Recorder(Writer):
    """What a writer is told."""

    def __init__(self):
        self.calls = []

    def open(self, run):
        self.calls.append(("open", run.step, run.total, run.resumable, len(run.rows)))

    def write(self, step, values):
        self.calls.append((step, *values))

    def close(self):
        self.calls.append("close")


METRICS = ("epoch", "accuracy", "grad_norm", "loss", "seconds")


def test_a_writer_of_ones_own_is_opened_written_to_and_closed(variables, tmp_path):
    first, second = Recorder(), Recorder()
    options = {"epochs": None, "checkpoint_dir": tmp_path / "run", "evaluate": lambda _: {"clean": 0.5}}
    train(variables, steps=5, writers=[first, second], **options)
    assert (
        first.calls
        == second.calls
        == [
            ("open", 0, 5, True, 0),
            *[(3, *METRICS), (3, "epoch", "clean", "seconds")],
            *[(5, *METRICS), (5, "epoch", "clean", "seconds")],
            "close",
        ]
    )
    continued = Recorder()
    train(variables, steps=6, writers=[continued], **options)
    assert continued.calls == [("open", 5, 6, True, 4), (6, *METRICS), (6, "epoch", "clean", "seconds"), "close"]


def test_writers_are_closed_after_an_error(variables):
    recorder = Recorder()

    def fails(_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(variables, writers=[recorder], evaluate=fails, evaluate_every=5)
    assert recorder.calls == [("open", 0, 18, False, 0), (5, *METRICS), "close"]


def test_a_writer_needs_one_method(variables):
    found = {}

    class Losses(Writer):
        def write(self, step, values):
            found[step] = values["loss"]

    history = train(variables, epochs=1, log_every=1, writers=[Losses()]).history
    assert found == {row["step"]: row["loss"] for row in history}


def test_lines_after_the_checkpoint_are_dropped(variables, tmp_path):
    log = tmp_path / "log.jsonl"
    options = {"epochs": None, "log_every": 1, "checkpoint_dir": tmp_path / "run", "writers": [JsonLines(log)]}
    train(variables, steps=2, **options)
    with log.open("a") as file:
        file.write('{"step": 3, "loss": 7.0}\n{"step": 4, "lo')
    history = train(variables, steps=3, **options).history
    rows = [json.loads(line) for line in log.read_text().splitlines()]
    assert rows == history
    assert comparable(rows) == comparable(train(variables, epochs=None, steps=3, log_every=1).history)


def test_metrics_may_be_undefined(tmp_path):
    """The log stays JSON, which has no NaN."""

    def objective(apply_fn, variables, batch, key):
        return variables["params"].sum(), {"metrics": {"angle": jnp.nan}, "updates": {}}

    log = tmp_path / "log.jsonl"
    result = fit(
        objective,
        APPLY,
        {"params": jnp.ones(2)},
        make_data(),
        optimizer=optax.sgd(0.1),
        batch_size=50,
        steps=1,
        key=jax.random.key(0),
        writers=[JsonLines(log)],
    )
    assert np.isnan(result.history[0]["angle"])
    assert json.loads(log.read_text())["angle"] is None


def test_logs_of_others_are_left_alone(variables, tmp_path):
    log = tmp_path / "log.jsonl"
    log.write_text("my notes\n")
    with pytest.raises(FileExistsError, match=r"log\.jsonl exists"):
        train(variables, writers=[JsonLines(log)])
    with pytest.raises(ValueError, match=r"is no log of training: 'my notes'"):
        train(variables, writers=[JsonLines(log)], checkpoint_dir=tmp_path / "run")
    assert log.read_text() == "my notes\n"


def curves(directory):
    """Every scalar in TensorBoard's files, and the step from which older ones are hidden."""
    from tensorboardX.proto.event_pb2 import Event  # noqa: PLC0415

    scalars, purges = [], []
    for path in sorted(directory.glob("events.out.tfevents.*")):
        content, position = path.read_bytes(), 0
        while position < len(content):
            # Length, its checksum, the event, its checksum.
            (length,) = struct.unpack_from("<Q", content, position)
            event = Event.FromString(content[position + 12 : position + 12 + length])
            position += length + 16
            if event.HasField("session_log") and event.session_log.status == event.session_log.START:
                purges.append(event.step)
            scalars += [(event.step, value.tag, value.simple_value) for value in event.summary.value]
    return scalars, purges


def test_curves_for_tensorboard(variables, tmp_path, monkeypatch):
    pytest.importorskip("tensorboardX", reason="tensorboardX is an option that is not installed")
    # The package names a file by the second: both runs begin within the same one.
    monkeypatch.setattr("tensorboardX.event_file_writer.time.time", lambda: 1.7e9)
    directory = tmp_path / "curves"
    options = {
        "writers": [TensorBoard(directory)],
        "log_every": 2,
        "evaluate": lambda _: {"clean": 0.5},
        "epochs": None,
    }
    options |= {"evaluate_every": 4, "checkpoint_dir": tmp_path / "run", "checkpoint_every": 4}
    first = train(variables, steps=4, **options)
    scalars, purges = curves(directory)
    expected = [(r["step"], n, v) for r in first.history for n, v in r.items() if n not in ("step", "epoch", "seconds")]
    assert {name for _, name, _ in expected} == {"loss", "grad_norm", "accuracy", "clean"}
    assert [(step, name) for step, name, _ in scalars] == [(step, name) for step, name, _ in expected]
    np.testing.assert_allclose([v for _, _, v in scalars], [v for _, _, v in expected], rtol=1e-6)
    assert purges == []
    # Continued: what an interrupted run drew from step 5 on is hidden, and the curves go on.
    train(variables, steps=6, **options)
    scalars, purges = curves(directory)
    assert purges == [5]
    assert {step for step, _, _ in scalars} == {2, 4, 6}
    with pytest.raises(FileExistsError, match="curves holds the curves of a run"):
        train(variables, writers=[TensorBoard(directory)], epochs=1)


def test_tensorboard_without_its_package_is_an_error_before_training(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with pytest.raises(ImportError, match=r"needs the package tensorboardX.*pip install tensorboardX"):
        TensorBoard(tmp_path / "curves")
    assert not list(tmp_path.iterdir())
