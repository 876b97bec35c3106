"""The search for kinks against jumps of derivatives, in loops, choices, and where intervals settle the matter."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from abstract import jumps, searched


def _twice(y):
    return 2 * jnp.max(y) - jnp.max(y) * 2


FUNCTIONS = {
    "sum of powers": lambda x: x**3 - 2 * x + jnp.sin(3 * x),
    "relu": lambda x: jnp.maximum(x, 0) * x + jnp.maximum(x, 0.25),
    "floor below the range": lambda x: jnp.maximum(jnp.tanh(x), -2.0),
    "floor within the range": lambda x: jnp.maximum(jnp.tanh(x), -0.2),
    "absolute value": lambda x: jnp.abs(x - 0.3),
    "absolute value of a square": lambda x: jnp.abs(x * x),
    "absolute value of what is positive": lambda x: jnp.abs(jnp.exp(x) + 0.5),
    "sign of what is positive": lambda x: jnp.sign(1 + x * x) * x,
    "clip beyond the range": lambda x: jnp.clip(jax.nn.sigmoid(x), 0, 1),
    "clip within the range": lambda x: jnp.clip(jax.nn.sigmoid(x), 0.4, 1),
    "choice by a comparison": lambda x: jnp.where(x > 0.3, 2 * x, x),
    "choice of the same": lambda x: jnp.where(x > 0.3, x, x),
    "choice that is settled": lambda x: jnp.where(x * x >= 0, x, -x),
    "branches": lambda x: jax.lax.cond(x > 0.3, jnp.sin, jnp.cos, x),
    "branch that is settled": lambda x: jax.lax.cond(jnp.exp(x) >= 0, jnp.sin, jnp.cos, x),
    "loop of smooth steps": lambda x: jax.lax.fori_loop(0, 3, lambda _, y: jnp.sin(y) + x, x),
    "loop of kinked steps": lambda x: jax.lax.fori_loop(0, 3, lambda _, y: jnp.abs(y - 0.1), x),
    "scan": lambda x: jax.lax.scan(lambda y, z: (jnp.maximum(y, z), z), x, jnp.array([0.0, 0.3]))[0],
    "softmax": lambda x: jax.nn.softmax(jnp.stack([x, 0.3]))[0],
    "maximum": lambda x: jnp.max(jnp.stack([x, 0.3])),
    "maximum that cancels": lambda x: _twice(jnp.stack([x, 0.3])) + x,
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_finds_a_kink_where_the_derivative_jumps_and_nowhere_else(name):
    search, result = searched(FUNCTIONS[name])
    assert bool(result.all_kinks) == jumps(FUNCTIONS[name], -1.0, 1.5)
    assert all(bit for bit, *_ in search.kinks())


def test_an_operation_of_a_loop_is_one_kink_however_often_it_runs():
    search, result = searched(lambda x: jax.lax.fori_loop(0, 100, lambda _, y: jnp.abs(y) - 1, x))
    ((bit, name, chain, path),) = search.kinks()
    assert (bit, name) == (result.all_kinks, "abs")
    assert [equation.primitive.name for equation in chain][-1] == "abs"
    # The loop, and the operation inside of it.
    assert len(path) == len(chain) == 2


@pytest.mark.parametrize(("floor", "kinked"), [(1e-6, False), (1e-5, False), (1e-3, True)])
def test_a_small_floor_under_a_norm_is_a_stabilizer(floor, kinked):
    def normalized(x):
        return x / jnp.maximum(jnp.sqrt(jnp.sum(x * x)), floor)

    assert bool(searched(normalized, (3,))[1].all_kinks) == kinked
    # Under another number it is a kink, small or not.
    assert searched(lambda x: jnp.maximum(jnp.sum(x), floor), (3,))[1].all_kinks


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_remembers_the_narrowest_type(dtype):
    def fn(x):
        return jnp.sin(jnp.cos(x.astype(dtype)).astype(jnp.float32))

    bits, name, chain = searched(fn)[0].narrowest
    assert (bits, name) == (16, jnp.dtype(dtype).name)
    assert chain[-1].primitive.name == "convert_element_type"
    assert searched(jnp.sin)[0].narrowest[0] == 32
    # What does not depend on the input does not count.
    constant = np.ones(3, np.float32)
    assert searched(lambda x: x + jnp.sum(jnp.asarray(constant, dtype)).astype(jnp.float32))[0].narrowest[0] == 32


def test_ends_where_an_interval_grows_in_a_loop():
    _, result = searched(lambda x: jax.lax.fori_loop(0, 5, lambda _, y: y * 2, x), low=1.0, high=2.0)
    assert (result.low, result.high) == (1.0, math.inf)
    assert not result.all_kinks
