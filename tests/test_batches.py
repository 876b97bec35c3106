"""Batches: the parts of a run, its progress, and what fits into memory."""

import logging
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from many_samples import KEY, PGD, SALIENCY, N, data, looped
from tables import assert_trees_close

import jaxattr as ja


def test_batches_resumed_where_they_stopped_give_the_same_parts():
    logits_fn, xs, labels = data()
    lifted = ja.over_samples(PGD, logits_fn, batch_size=2, devices=jax.devices()[:2])
    parts = list(lifted.batches(xs, labels, KEY))
    assert [(part.start, part.stop) for part, _ in parts] == [(i, min(i + 2, N)) for i in range(0, N, 2)]
    for where, result in parts:
        assert_trees_close(result, jax.tree.map(lambda leaf, where=where: leaf[where], looped()))
    for start in (4, 5, N - 1):
        resumed = list(lifted.batches(xs, labels, KEY, start=start))
        assert resumed[0][0].start == start
        whole = jax.tree.map(lambda *leaves: np.concatenate(leaves), *[result for _, result in resumed])
        assert_trees_close(whole, jax.tree.map(lambda leaf, s=start: leaf[s:], looped()))
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
