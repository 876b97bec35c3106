"""Networks are split into arrays and the rest, and put together again, whatever they are made with."""

import functools
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial
from pytrees import KEY, LABELS, MAKERS, ONE_DEVICE, XS

import jaxattr as ja
from jaxattr import networks


@pytest.mark.parametrize("name", MAKERS)
def test_networks_come_apart_and_together(name):
    (first, static), (second, other) = (networks.split(MAKERS[name](seed)) for seed in range(2))
    assert static == other
    assert hash(static) == hash(other)
    assert all(isinstance(array, (jax.Array, np.ndarray)) for array in first)
    assert not static.holds_arrays()
    x = jnp.asarray(XS[0])
    value = jax.jit(lambda arrays: networks.merge(arrays, static)(x))
    for arrays, seed in ((first, 0), (second, 1)):
        np.testing.assert_allclose(value(arrays), MAKERS[name](seed)(x), rtol=1e-5)


def test_static_fields_without_a_hash_or_an_equality_are_taken():
    @functools.partial(jax.tree_util.register_dataclass, data_fields=["weights"], meta_fields=["table"])
    @dataclass
    class Odd:
        weights: jax.Array
        table: Any

        def __call__(self, x):
            return self.weights @ (x * np.asarray(self.table))

    for table in ([1.0, 2.0, 3.0], np.array([1.0, 2.0, 3.0])):
        first, second = (Odd(jnp.ones((2, 3)) * s, table) for s in (1, 2))
        found = ja.over_samples(ja.attributions.saliency(), second, batch_size=8, **ONE_DEVICE)(XS, LABELS)
        np.testing.assert_allclose(found[0], [2, 4, 6], rtol=1e-6)
        _, static = networks.split(first)
        assert static.holds_arrays() == isinstance(table, np.ndarray)
        assert static == static  # noqa: PLR0124


def test_random_keys_inside_of_a_network_are_arrays_too():
    network = Partial(lambda key, x: x + jax.random.normal(key, (3,)), KEY)
    arrays, static = networks.split(network)
    assert jnp.issubdtype(arrays[0].dtype, jnp.integer)
    np.testing.assert_allclose(networks.merge(arrays, static)(XS[0]), network(XS[0]))


def test_a_closure_is_no_pytree():
    with pytest.raises(TypeError, match=r"callable pytree.*got function"):
        networks.split(lambda x: x)


def test_arrays_are_found_in_closures_defaults_and_fields():
    weights = np.ones(3)

    def with_default(x, w=weights):
        return w @ x

    class Holder:
        def __init__(self):
            self.inside = {"list": [weights]}

        def __call__(self, x):
            return x

    for function in (lambda x: weights @ x, with_default, functools.partial(jnp.dot, weights), Holder().__call__):
        assert networks.holds_arrays(function)
    assert not networks.holds_arrays(lambda x: jnp.sum(x))  # noqa: PLW0108 (a closure over a module alone)
