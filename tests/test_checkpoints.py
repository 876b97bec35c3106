import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxattr.checkpoints import Checkpoints


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
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == [".jaxattr-checkpoints", "5", "7"]
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
    with pytest.raises(FileExistsError, match=r"thesis\.tex is a file"):
        Checkpoints(tmp_path / "thesis.tex")
    with pytest.raises(ValueError, match="`max_to_keep` is 0"):
        Checkpoints(tmp_path / "new", max_to_keep=0)


@pytest.mark.parametrize("killed", ["2.orbax-checkpoint-tmp-123", "2.name-of-another-release"])
def test_a_directory_from_before_the_marker_is_continued(tmp_path, killed):
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, make_state(1))
    (tmp_path / ".jaxattr-checkpoints").unlink()
    (tmp_path / killed / "state").mkdir(parents=True)
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.latest_step() == 1
        checkpoints.save(3, make_state(3))
    assert (tmp_path / ".jaxattr-checkpoints").exists()
    # Without a marker, a folder with another content is not ours, whatever its name.
    (tmp_path / ".jaxattr-checkpoints").unlink()
    (tmp_path / "12").mkdir()
    with pytest.raises(FileExistsError, match=r"but it has 12;"):
        Checkpoints(tmp_path)


def test_what_orbax_adds_to_a_marked_directory_is_not_looked_at(tmp_path):
    """The names of its files may change from release to release."""
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, make_state(1))
    (tmp_path / "1" / "_ANOTHER_METADATA").touch()
    (tmp_path / "_index").touch()
    with Checkpoints(tmp_path) as checkpoints:
        _, _, step = checkpoints.restore(make_state(0))
        checkpoints.save(2, make_state(2))
        assert (step, checkpoints.latest_step()) == (1, 2)


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
