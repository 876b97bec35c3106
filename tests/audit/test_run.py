"""A small audit from networks to rows: killed and continued, its samples, and what it refuses before it computes."""

import dataclasses
import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import polars as pl
import pytest
import small_audits
from polars.testing import assert_frame_equal
from small_audits import CONFIG, audit, parts, stored

import jaxattr as ja
from jaxattr.audit import measure, networks, spec, store
from jaxattr.audit import run as running
from jaxattr.audit.run_directory import config_hash

KEYS = ["model", "norm", "position", "kind", "method", "restart"]


def rows_of(directory):
    return stored(directory).rows().drop("seconds").sort(KEYS)


def with_relu(directory):
    """Change a network of the run, as if it had been trained with ReLU."""
    path = directory / "models" / "plain" / "network.json"
    card = json.loads(path.read_text())
    card["model"]["options"]["beta"] = None
    path.write_text(json.dumps(card))


def test_a_network_with_kinks_is_refused_before_anything_is_computed(copy):
    shutil.rmtree(copy / "rows")
    with_relu(copy)
    with pytest.raises(
        ValueError, match=r"plain: `audit` needs two derivatives .* not smooth in \d+ operation"
    ) as error:
        audit(copy)
    assert "relu" in str(error.value)
    assert "ja.smooth(logits_fn, beta=10.0)" in str(error.value)
    assert "--kinks allow" in str(error.value)
    assert not (copy / "rows").exists()


def test_kinks_that_are_allowed_change_no_identity(copy):
    allowed = dataclasses.replace(stored(copy).config, kinks="allow")
    assert config_hash(allowed) == stored(copy).hash
    assert spec.identity(allowed, "saliency", "l2") == spec.identity(CONFIG, "saliency", "l2")
    with_relu(copy)
    arguments = (networks.load(copy / "models" / "plain").logits_fn, jnp.full((8, 8, 1), 0.5), 0, jax.random.key(0))
    for norm, radii in spec.norms(allowed).items():
        # Of the norm attacks know the ball alone; bounds are other methods.
        makers = (measure.bounds_program, measure.attack_program) if norm == "linf" else (measure.bounds_program,)
        for make in makers:
            with pytest.raises(ValueError, match="needs two derivatives"):
                jax.eval_shape(make("saliency", norm, radii, CONFIG), *arguments)
            jax.eval_shape(make("saliency", norm, radii, allowed), *arguments)


def test_a_killed_run_loses_the_batch_in_flight_only(run, copy, monkeypatch):
    shutil.rmtree(small_audits.cell(copy))
    write = store.Cell.write

    def killed(cell, where, rows):
        if where.start == 8:
            raise KeyboardInterrupt
        write(cell, where, rows)

    monkeypatch.setattr(store.Cell, "write", killed)
    with pytest.raises(KeyboardInterrupt):
        audit(copy)
    assert [path.name for path in parts(copy)] == ["000000-000008.parquet"]
    before = parts(copy)[0].stat().st_mtime_ns
    monkeypatch.setattr(store.Cell, "write", write)
    audit(copy)
    assert parts(copy)[0].stat().st_mtime_ns == before
    assert_frame_equal(rows_of(copy), rows_of(run), rel_tol=1e-5, abs_tol=1e-6)


def test_a_gap_is_computed_alone(run, copy):
    first, second = parts(copy)
    first.unlink()
    before = second.stat().st_mtime_ns
    audit(copy)
    assert parts(copy) == [first, second]
    assert second.stat().st_mtime_ns == before
    assert_frame_equal(rows_of(copy), rows_of(run), rel_tol=1e-5, abs_tol=1e-6)


def test_pairs_that_are_wanted_are_computed_alone(copy):
    for norm in ("l2", "linf"):
        shutil.rmtree(small_audits.cell(copy, norm=norm))
    audit(copy, pairs=[("saliency", "linf")])
    assert len(parts(copy)) == 2
    assert parts(copy, norm="l2") == []


def test_the_samples_are_the_first_correct_ones(run):
    data = ja.data.load("digits", "test")
    network = networks.load(run / "models" / "plain")
    predicted = np.asarray(jax.vmap(network.logits_fn)(data.x).argmax(axis=-1))
    expected = [i for i, label in enumerate(data.label) if predicted[i] == label][:16]
    rows = stored(run).rows().filter(pl.col("model") == "plain")
    assert rows.select("position", "sample").unique().sort("position")["sample"].to_list() == expected


def test_a_network_that_is_always_wrong_has_no_samples(run):
    zero = jax.tree_util.Partial(lambda _: jnp.eye(10)[0])
    network = networks.load(run / "models" / "plain")._replace(logits_fn=zero)
    data = ja.data.load("digits", "test")
    others = dataclasses.replace(data, x=data.x[data.label != 0], label=data.label[data.label != 0])
    with pytest.raises(ValueError, match="the network plain classifies no test sample correctly"):
        running.first_correct(network, others, CONFIG)


def test_an_accelerator_is_one_process(monkeypatch):
    many = dataclasses.replace(CONFIG, workers=3)
    assert running.processes(many) == 3
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert running.processes(many) == 1


def test_seconds_of_a_stage_are_added_up(tmp_path, monkeypatch):
    clock = iter([0.0, 1.5, 10.0, 12.0])
    monkeypatch.setattr(running.time, "perf_counter", lambda: next(clock))
    for _ in range(2):
        with running.stage(tmp_path, "training"):
            pass
    assert json.loads((tmp_path / "timings.json").read_text()) == {"training": 3.5}
