"""Abstract values: what is known of constants, types and shapes."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from abstract import searched

from jaxattr.programs import values
from jaxattr.programs.values import Term, Value


def aval(shape=(), dtype=np.float32):
    return jax.ShapeDtypeStruct(shape, dtype)


@pytest.mark.parametrize("value", [3, -0.5, True, np.float16(2), np.array(7), math.inf])
def test_a_number_of_a_program_is_known(value):
    found = values.known(value)
    assert found.low == found.high == float(value)
    assert found.number == (None if math.isinf(value) else float(value))
    assert not found.depends
    assert values.is_infinite(found) == math.isinf(value)


@pytest.mark.parametrize("value", [math.nan, np.ones(2), 1j, "a"])
def test_nothing_is_known_of_the_rest(value):
    found = values.known(value)
    assert (found.low, found.high) == values.ANYTHING
    assert found.number is None


@pytest.mark.parametrize(
    ("dtype", "bits", "discrete", "is_complex"),
    [
        (np.float32, 32, False, False),
        (jnp.bfloat16, 16, False, False),
        (np.complex64, 32, False, True),
        (np.int8, math.inf, True, False),
        (np.bool_, math.inf, True, False),
    ],
)
def test_types(dtype, bits, discrete, is_complex):
    assert values.bits(aval(dtype=dtype)) == bits
    assert values.is_discrete(aval(dtype=dtype)) == discrete
    assert values.is_complex(aval(dtype=dtype)) == is_complex


def test_layout_of_a_term_in_itself():
    assert values.whole(aval((1, 3, 2))) == (1, 2)
    assert values.whole(aval()) == ()


def test_settled_values_keep_the_kinks_of_their_terms():
    value = Value(True, kinks=1, terms={(Term(2), ()): 1.0, (Term(4), ()): -1.0}, exponential=True)
    settled = value.settled()
    assert value.all_kinks == settled.kinks == settled.all_kinks == 7
    assert not settled.terms
    assert not settled.exponential


def test_the_same_array_in_another_shape():
    """The operands of x * x, through reshapes and broadcasts, are one array; slices and transposes are others."""

    def operands(fn):
        _, result = searched(fn, (2, 3))
        return values.core(result).operands

    same = operands(lambda x: x.reshape(6) * jnp.broadcast_to(x, (1, 2, 3)).reshape(6))
    assert values.same(*same)
    assert not values.same(*operands(lambda x: x.reshape(3, 2) * x.T))
    assert not values.same(*operands(lambda x: x[0] * x[1]))
