"""Places of operations: whose file it is, and which line of it."""

import json
import pathlib

import flax.linen.linear
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxattr
from jaxattr.programs import interpreter, source

HERE = pathlib.Path(__file__)


@pytest.mark.parametrize(
    ("file", "package"),
    [
        (np.__file__, "numpy"),
        (jnp.__file__, "jax"),
        (flax.linen.linear.__file__, "flax"),
        (jaxattr.__file__, "jaxattr"),
        (json.__file__, "python"),
        ("<string>", "python"),
        (str(HERE), None),
        ("/somewhere/jax_networks/model.py", None),
        (str(pathlib.Path(pytest.__file__)), None),
    ],
)
def test_library_of_a_file(file, package):
    assert source.package(file) == package


def test_the_place_is_the_line_of_the_user():
    def network(x):
        y = jnp.sin(x)
        return jax.nn.relu(y)

    program, _ = interpreter.trace(network, jnp.ones(2))
    first = network.__code__.co_firstlineno
    places = [source.where([equation]) for equation in program.jaxpr.eqns]
    assert [place.split(" ")[0].rsplit(":", 1)[1] for place in places] == [str(first + 1), str(first + 2)]
    assert all(HERE.name in place and "network" in place for place in places)


def test_of_libraries_alone_the_call_is_named(monkeypatch):
    """A file of the user's is not among the frames, as for a network that a library calls from its own threads."""
    program, _ = interpreter.trace(lambda x: jax.nn.relu(x), jnp.ones(2))  # noqa: PLW0108 (a frame of its own)
    monkeypatch.setattr(source, "package", lambda _: "jax")
    assert source.where(program.jaxpr.eqns) == "jax relu"
