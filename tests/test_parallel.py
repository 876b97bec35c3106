"""Many samples: the numbers do not depend on devices, batches, processes, or interruptions."""

import logging
import os
import pathlib
import socket
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tables import assert_trees_close, model, tolerance

import jaxattr as ja

KEY = jax.random.key(11)
N = 13


PGD = ja.attacks.pgd(ja.L2(0.3), num_steps=2, step_size=0.05)
SALIENCY = ja.attributions.saliency()


def data(n=N):
    m = model("softplus", N)
    return m.logits_fn, np.asarray(m.xs[:n]), np.asarray(m.labels[:n])


@pytest.fixture(scope="module")
def looped():
    """A Python loop over samples, each with the key that its index gives it."""
    logits_fn, xs, labels = data()
    single = jax.jit(PGD)
    results = [
        single(logits_fn, x, y, jax.random.fold_in(KEY, i)) for i, (x, y) in enumerate(zip(xs, labels, strict=True))
    ]
    return jax.tree.map(lambda *leaves: np.stack(leaves), *results)


def test_there_are_eight_devices():
    assert len(jax.devices()) == 8


@pytest.mark.parametrize(("devices", "batch_size"), [(1, 5), (1, None), (3, 6), (8, 8), (8, 5), (8, None), (8, 100)])
def test_any_number_of_devices_and_batch_size_equals_a_python_loop(looped, devices, batch_size):
    logits_fn, xs, labels = data()
    lifted = ja.over_samples(PGD, logits_fn, batch_size=batch_size, devices=jax.devices()[:devices])
    result = lifted(xs, labels, KEY)
    assert all(isinstance(leaf, np.ndarray) for leaf in jax.tree.leaves(result))
    assert_trees_close(result, looped)


def test_every_sample_has_a_key_of_its_own():
    """Equal samples, different starts; the same ones again in other company."""
    logits_fn, xs, labels = data()
    same = np.repeat(xs[:1], 6, axis=0)
    found = ja.over_samples(PGD, logits_fn)(same, np.repeat(labels[:1], 6), KEY).x
    gaps = np.max(np.abs(found[:, None] - found[None]), axis=(2, 3)) + np.eye(6)
    assert np.min(gaps) > 1e-3
    fewer = ja.over_samples(PGD, logits_fn)(same[:3], labels[[0, 0, 0]], KEY).x
    np.testing.assert_allclose(fewer, found[:3], **tolerance())


def test_attributions_and_bounds_go_through():
    logits_fn, xs, labels = data(5)
    values = ja.over_samples(SALIENCY, logits_fn)(xs, labels)
    np.testing.assert_allclose(values, jax.vmap(SALIENCY, (None, 0, 0))(logits_fn, xs, labels), **tolerance())
    bound = ja.bounds.singular_value(SALIENCY, ja.L2(0.2), num_steps=3)
    result = ja.over_samples(bound, logits_fn)(xs, labels, KEY)
    assert isinstance(result, ja.bounds.DeviationBound)
    assert result.euclidean.shape == (5,)
    assert result.direction.shape == xs.shape
    assert result.methods == ("singular_value",)


def test_other_weights_share_the_compilation_and_closures_work():
    m = model("softplus", N)
    traces = []

    def method(logits_fn, x, label):
        traces.append(1)
        return SALIENCY(logits_fn, x, label)

    first, second = (ja.over_samples(method, f, batch_size=8)(m.xs, m.labels) for f in (m.logits_fn, m.other))
    assert len(traces) == 1
    assert np.max(np.abs(first - second)) > 1e-2
    closed = ja.over_samples(method, lambda x: m.other(x) + 0, batch_size=8)(m.xs, m.labels)
    np.testing.assert_allclose(closed, second, **tolerance())


def test_float64_inputs_become_what_jax_takes_and_lists_are_taken():
    logits_fn, xs, labels = data(3)
    result = ja.over_samples(SALIENCY, logits_fn)(xs.astype(np.float64).tolist(), labels.tolist())
    assert result.dtype == np.float32
    np.testing.assert_allclose(result, ja.over_samples(SALIENCY, logits_fn)(xs, labels), **tolerance())


# Batches


def test_batches_resumed_where_they_stopped_give_the_same_parts(looped):
    logits_fn, xs, labels = data()
    lifted = ja.over_samples(PGD, logits_fn, batch_size=2, devices=jax.devices()[:2])
    parts = list(lifted.batches(xs, labels, KEY))
    assert [(part.start, part.stop) for part, _ in parts] == [(i, min(i + 2, N)) for i in range(0, N, 2)]
    for where, result in parts:
        assert_trees_close(result, jax.tree.map(lambda leaf, where=where: leaf[where], looped))
    for start in (4, 5, N - 1):
        resumed = list(lifted.batches(xs, labels, KEY, start=start))
        assert resumed[0][0].start == start
        whole = jax.tree.map(lambda *leaves: np.concatenate(leaves), *[result for _, result in resumed])
        assert_trees_close(whole, jax.tree.map(lambda leaf, s=start: leaf[s:], looped))
    assert list(lifted.batches(xs, labels, KEY, start=N)) == []


def test_batches_are_computed_one_at_a_time():
    """A caller that stops after the first pays for no more."""
    logits_fn, xs, labels = data()
    seen = []
    lifted = ja.over_samples(SALIENCY, logits_fn, batch_size=8, progress=lambda done, total: seen.append((done, total)))
    next(iter(lifted.batches(xs, labels)))
    assert seen == [(8, N)]


@pytest.mark.parametrize(("start", "expected"), [(0, [4, 8, 12, 13]), (6, [10, 13])])
def test_progress_counts_samples_done(start, expected):
    logits_fn, xs, labels = data()
    seen = []
    lifted = ja.over_samples(
        SALIENCY, logits_fn, batch_size=4, devices=jax.devices()[:2], progress=lambda *counts: seen.append(counts)
    )
    for _ in lifted.batches(xs, labels, start=start):
        pass
    assert seen == [(done, N) for done in expected]


def test_progress_without_a_terminal_is_a_line_every_tenth(caplog, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: False, raising=False)
    logits_fn, xs, labels = data()
    with caplog.at_level(logging.INFO, logger="jaxattr.batches"):
        ja.over_samples(SALIENCY, logits_fn, batch_size=1, devices=jax.devices()[:1], progress=True)(xs, labels)
    assert [record.message for record in caplog.records][-1] == f"{N} of {N} samples"
    assert 10 <= len(caplog.records) <= 11


# Memory


def big(logits_fn, x, label):
    """Megabytes of temporaries a sample: a product with its transpose, of what no simplification removes."""
    wide = jnp.sin(jnp.outer(jnp.arange(512.0), jnp.arange(512.0)) * jnp.sum(x) / 512)
    return jnp.sum(jnp.tanh(wide @ wide.T)) / 512**2 * jnp.ones_like(x)


def test_a_memory_budget_shrinks_the_batch_and_not_the_numbers():
    logits_fn, xs, labels = data()
    xs, labels = np.tile(xs, (3, 1, 1)), np.tile(labels, 3)
    sizes, results = {}, {}
    for memory in (1e9, 8e6, None):
        lifted = ja.over_samples(big, logits_fn, memory=memory, devices=jax.devices()[:1])
        parts = list(lifted.batches(xs, labels))
        sizes[memory] = parts[0][0].stop
        results[memory] = np.concatenate([part for _, part in parts])
    assert sizes[1e9] == sizes[None] == len(xs)
    # One to four arrays of 512 x 512 a sample.
    assert 1 <= sizes[8e6] <= 8
    np.testing.assert_allclose(results[8e6], results[1e9], rtol=1e-4, atol=1e-4)


def test_one_sample_that_does_not_fit_is_run_and_said(caplog):
    logits_fn, xs, labels = data(3)
    with caplog.at_level(logging.WARNING, logger="jaxattr.batches"):
        result = ja.over_samples(big, logits_fn, memory=1e3, devices=jax.devices()[:1])(xs, labels)
    assert np.all(np.isfinite(result))
    assert "above the budget" in caplog.text


def test_a_batch_size_overrides_the_budget():
    logits_fn, xs, labels = data(5)
    parts = list(ja.over_samples(big, logits_fn, memory=1e3, batch_size=8).batches(xs, labels))
    assert [(where.start, where.stop) for where, _ in parts] == [(0, 5)]


# Processes

WORKER = """
import sys
import jax
port, rank, tests, out = sys.argv[1:]
sys.path.insert(0, tests)
jax.distributed.initialize(f"127.0.0.1:{port}", num_processes=2, process_id=int(rank))
import numpy as np
import test_parallel
import jaxattr as ja

assert jax.process_count() == 2 and len(jax.devices()) == 4 and len(jax.local_devices()) == 2
logits_fn, xs, labels = test_parallel.data()
seen = []
lifted = ja.over_samples(
    test_parallel.PGD, logits_fn, batch_size=8, progress=lambda done, total: seen.append(done)
)
result = lifted(xs, labels, jax.random.key(11))
np.savez(out, progress=np.array(seen), **result._asdict())
jax.distributed.shutdown()
"""


def test_two_processes_give_the_same_table_as_one(tmp_path, looped):
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
        assert_trees_close(ja.attacks.AttackResult(**found), looped)
