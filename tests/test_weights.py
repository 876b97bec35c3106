import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxattr.weights import load_variables, save_variables


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
