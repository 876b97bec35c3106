"""Flags of XLA, and the memory that a program takes, against arrays that have to be there."""

import os

import jax
import jax.numpy as jnp
import pytest

from jaxattr import _xla


def test_flags_of_the_user_go_first(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "--xla_one=1")
    _xla.default_flag("xla_two", "2")
    _xla.default_flag("xla_one", "3")
    assert os.environ["XLA_FLAGS"] == "--xla_one=1 --xla_two=2"
    monkeypatch.delenv("XLA_FLAGS")
    _xla.default_flag("xla_one", "3")
    assert os.environ["XLA_FLAGS"] == "--xla_one=3"


@pytest.mark.parametrize("version", ["0.10.1", "0.10.2", "0.11.0", "0.11.1"])
def test_crashes_are_avoided_in_the_versions_that_have_them(monkeypatch, version):
    monkeypatch.setenv("XLA_FLAGS", "")
    monkeypatch.setattr(_xla.importlib.metadata, "version", lambda _: version)
    _xla.avoid_crashes()
    assert ("ynn" in os.environ["XLA_FLAGS"]) == (version in ("0.10.2", "0.11.0"))


@pytest.mark.parametrize("size", [128, 512])
def test_memory_holds_the_arrays_that_cannot_be_fused_away(size):
    """A product of two computed matrices: these two have to be somewhere, and no more than a few arrays of the size."""

    def product(a):
        return jnp.sum(jnp.sin(a) @ jnp.cos(a) @ jnp.tan(a))

    found = _xla.memory(jax.jit(product).lower(jnp.ones((size, size))).compile())
    array = 4 * size**2
    assert 2 * array <= found <= 8 * array


def test_memory_of_a_result():
    compiled = jax.jit(lambda x: jnp.broadcast_to(x, (1000,))).lower(jnp.float32(1)).compile()
    assert 4000 <= _xla.memory(compiled) < 8000


@pytest.mark.parametrize(
    ("dtype", "shape", "size"), [("f32", "39,512", 39 * 512 * 4), ("bf16", "7", 14), ("s8", "", 1)]
)
def test_bytes_of_an_array(dtype, shape, size):
    assert _xla._bytes(dtype, shape) == size
    assert _xla._bytes("pred", shape) == size // {"f32": 4, "bf16": 2, "s8": 1}[dtype]
