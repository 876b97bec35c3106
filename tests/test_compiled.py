"""Compiled programs are kept as long as their functions live, and no longer."""

import dataclasses
import gc
import weakref
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
import pytest

import jaxattr as ja
from jaxattr._compiled import compiled


class Counted:
    """A module's function that counts how often it is traced."""

    def __init__(self):
        self.traces = 0

    def __call__(self, first, second, x):
        self.traces += 1
        return first(second(x))


def test_the_same_functions_share_a_program():
    function = Counted()

    def twice(x):
        return 2 * x

    def shifted(x):
        return x + 1

    first = compiled(function, twice, shifted)
    assert compiled(function, twice, shifted) is first
    assert float(first(3.0)) == 8
    assert float(compiled(function, shifted, twice)(3.0)) == 7
    assert float(first(4.0)) == 10
    assert function.traces == 2


def apply(function, x):
    return function(x)


def test_a_program_goes_with_its_function():
    def use():
        weights = jnp.ones(3)

        def product(x):
            return weights @ x

        assert float(compiled(apply, product)(np.ones(3))) == 3
        return weakref.ref(weights)

    held = use()
    gc.collect()
    assert held() is None


class Scale(NamedTuple):
    by: float

    def __call__(self, x):
        return self.by * x


def test_equal_values_share_a_program():
    assert compiled(apply, Scale(2.0)) is compiled(apply, Scale(2.0))
    assert compiled(apply, Scale(2.0)) is not compiled(apply, Scale(3.0))
    assert float(compiled(apply, Scale(3.0))(2.0)) == 6


class WithoutHash:
    __hash__ = None

    def __call__(self, x):
        return 2 * x


@dataclasses.dataclass
class PlainDataclass:
    """Equal by value, and without a hash."""

    by: float = 2.0

    def __call__(self, x):
        return self.by * x


@dataclasses.dataclass(frozen=True)
class OfAnArray:
    """Equal by value, with a hash that its field does not have."""

    by: np.ndarray = dataclasses.field(default_factory=lambda: np.full((), 2.0, np.float32))

    def __call__(self, x):
        return self.by * x


class WithoutWeakReferences:
    __slots__ = ()

    def __call__(self, x):
        return 2 * x


@pytest.mark.parametrize("kind", [WithoutHash, PlainDataclass, OfAnArray, WithoutWeakReferences])
def test_what_cannot_be_a_key_is_compiled_for_each_call(kind):
    static = kind()
    assert float(compiled(apply, static)(2.0)) == 4
    assert compiled(apply, static) is not compiled(apply, static)


def test_a_network_that_is_a_plain_dataclass_is_measured():
    @dataclasses.dataclass
    class Network:
        by: float

        def __call__(self, variables, xs, *, train=False, key=None):
            del train, key
            return self.by * xs @ variables["params"], {}

    batch = ja.labeled.Batch(jnp.eye(3), jnp.array([0, 1, 1]))
    network, variables = Network(1.0), {"params": jnp.eye(3)}
    assert ja.accuracy.accuracy(network, variables, batch) == pytest.approx(2 / 3)
    # A program that were kept would not see the change.
    network.by = -1.0
    assert ja.accuracy.accuracy(network, variables, batch) < 2 / 3
