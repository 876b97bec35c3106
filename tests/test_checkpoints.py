import signal
import threading

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxattr.checkpoints import Checkpoints, Preemption, load_variables, save_variables


def make_state(seed):
    params = {"a": jax.random.normal(jax.random.key(seed), (3, 2)), "b": {"c": jnp.ones(4, "int8")}}
    optimizer = optax.chain(optax.clip(1.0), optax.adam(optax.constant_schedule(1e-3)))
    return {"params": params, "opt": optimizer.init(params["a"]), "key": jax.random.key(seed)}


def data_of(state):
    return jax.tree.map(
        lambda x: jax.random.key_data(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x,
        state,
    )


def test_state_survives_with_keys_and_the_newest_are_kept(tmp_path):
    with Checkpoints(tmp_path / "run", max_to_keep=2) as checkpoints:
        assert checkpoints.latest_step() is None
        with pytest.raises(FileNotFoundError, match="no checkpoint in"):
            checkpoints.restore(make_state(0))
        for step in (1, 5, 7):
            checkpoints.save(step, make_state(step), {"history": [{"loss": step / 3}]})
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == ["5", "7"]
    with Checkpoints(tmp_path / "run", max_to_keep=2) as checkpoints:
        state, meta, step = checkpoints.restore(make_state(0))
        assert (meta, step) == ({"history": [{"loss": 7 / 3}]}, 7)
        chex.assert_trees_all_equal(data_of(state), data_of(make_state(7)))
        np.testing.assert_array_equal(jax.random.uniform(state["key"]), jax.random.uniform(jax.random.key(7)))
        with pytest.raises(FileExistsError, match="7 is already there"):
            checkpoints.save(7, make_state(8))


def test_foreign_files_are_named_and_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("words")
    (tmp_path / "12").mkdir()
    (tmp_path / "12" / "photo.png").touch()
    with pytest.raises(FileExistsError, match=r"but it has 12, thesis\.tex"):
        Checkpoints(tmp_path)
    assert (tmp_path / "thesis.tex").read_text() == "words"
    assert (tmp_path / "12" / "photo.png").exists()
    with pytest.raises(FileExistsError, match=r"a file of that name \(thesis\.tex\)"):
        Checkpoints(tmp_path / "thesis.tex")
    with pytest.raises(ValueError, match="`max_to_keep` is 0"):
        Checkpoints(tmp_path / "new", max_to_keep=0)


def test_damage_is_named_with_what_is_left(tmp_path):
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, make_state(1), {})
        checkpoints.save(2, make_state(2), {})
    for file in (tmp_path / "2" / "state").rglob("*"):
        if file.is_file():
            file.write_bytes(b"junk")
    with Checkpoints(tmp_path) as checkpoints:
        with pytest.raises(ValueError, match=r"2 cannot be read: .*continue from step 1") as caught:
            checkpoints.restore(make_state(0))
        assert str(tmp_path / "2") in str(caught.value)


def test_another_shape_is_refused(tmp_path):
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, {"w": jnp.ones((3, 2))})
        with pytest.raises(ValueError, match=r"another model.*from the beginning"):
            checkpoints.restore({"w": jnp.ones((3, 3))})


def test_a_save_that_was_killed_leaves_the_one_before(tmp_path):
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, make_state(1))
    (tmp_path / "2.orbax-checkpoint-tmp-123" / "state").mkdir(parents=True)
    with Checkpoints(tmp_path) as checkpoints:
        _, _, step = checkpoints.restore(make_state(0))
        assert step == 1
        checkpoints.save(2, make_state(2))
        assert checkpoints.latest_step() == 2


def test_sigterm_is_noticed_and_the_handler_before_put_back():
    before = signal.getsignal(signal.SIGTERM)
    with Preemption() as preemption:
        assert not preemption.after(1)
        signal.raise_signal(signal.SIGTERM)
        assert preemption.after(2)
        # None was there that could be called.
        preemption.pass_on()
    assert signal.getsignal(signal.SIGTERM) is before


def test_sigterm_that_is_ignored_stays_ignored():
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        with Preemption() as preemption:
            signal.raise_signal(signal.SIGTERM)
            assert not preemption.after(1)
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGTERM, before)


def test_other_threads_leave_signals_alone():
    before, seen = signal.getsignal(signal.SIGTERM), []

    def run():
        with Preemption() as preemption:
            seen.extend([signal.getsignal(signal.SIGTERM), preemption.after(1)])

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert seen == [before, False]


def test_variables_survive_in_a_file(tmp_path):
    variables = {
        "params": {"Dense_0": {"kernel": np.arange(6, dtype=np.float16).reshape(2, 3)}},
        "batch_stats": {"mean": jnp.array([1.5, np.nan]), "count": np.int32(3)},
    }
    path = tmp_path / "deep" / "weights.npz"
    save_variables(path, variables)
    loaded = load_variables(path)
    chex.assert_trees_all_equal(loaded, jax.tree.map(np.asarray, variables))
    assert loaded["params"]["Dense_0"]["kernel"].dtype == np.float16
    with pytest.raises(FileExistsError, match="overwrite=True"):
        save_variables(path, {"params": {}})
    save_variables(path, {"params": {"w": np.ones(1)}}, overwrite=True)
    np.testing.assert_array_equal(load_variables(path)["params"]["w"], [1])
    assert [file.name for file in path.parent.iterdir()] == ["weights.npz"]


def test_files_that_are_no_weights_are_named(tmp_path):
    path = tmp_path / "weights.npz"
    with pytest.raises(FileNotFoundError):
        load_variables(path)
    save_variables(path, {"w": np.arange(1000.0)})
    whole = path.read_bytes()
    # Cut short, something else, a flipped bit, and a pickle, which must not be run.
    for content in (
        whole[:-40],
        b"hello",
        b"",
        whole[:200] + bytes([whole[200] ^ 1]) + whole[201:],
    ):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"weights\.npz is damaged"):
            load_variables(path)
    np.savez(path, w=np.array([{"a": 1}], dtype=object))
    with pytest.raises(ValueError, match=r"weights\.npz is damaged, or no archive"):
        load_variables(path)


def test_what_the_format_cannot_hold_is_refused(tmp_path):
    with pytest.raises(TypeError, match="params/w has dtype bfloat16"):
        save_variables(tmp_path / "w.npz", {"params": {"w": jnp.ones(2, jnp.bfloat16)}})
    with pytest.raises(ValueError, match="without a slash"):
        save_variables(tmp_path / "w.npz", {"a/b": np.ones(1)})
    with pytest.raises(ValueError, match=r"\.npz files, got 'w.pkl'"):
        save_variables(tmp_path / "w.pkl", {"w": np.ones(1)})
    assert not list(tmp_path.iterdir())
