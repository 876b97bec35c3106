"""Describe a number in a traced program without running it: the values in the search for kinks.

A :class:`Value` knows whether it depends on the input, which kinks lie on the way to it, and an interval that holds it.
The interval settles most of what looks like a kink and is none: ``max(0, variance)`` of a normalization layer, ``abs``
of a sum of exponentials, ``clip`` of a sigmoid to [0, 1].

**Kinks that cancel.** The maximum that a softmax subtracts is a kink of its own, and none of the softmax. A kinked
number m is therefore carried as a *term* for as long as the value is linear in it, ``v + c m``, or exponential,
``v * exp(c m)``, with v free of m. ``exp`` and ``log`` turn one form into the other, sums, products and quotients add
the c; where they add up to 0, m is gone. Any other operation makes its kinks part of the value for good. So does a
sum over an axis along which m varies: a *layout* says on which axes of the value those of m lie.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, TypeAlias

import jax.numpy as jnp
import numpy as np

Interval = tuple[float, float]
ANYTHING: Interval = (-math.inf, math.inf)


@dataclasses.dataclass(eq=False, frozen=True)
class Value:
    """An abstract number, or array of numbers.

    Attributes:
      depends: whether it depends on the input.
      kinks: the kinks on the way to it, one bit each.
      terms: kinked terms that may still cancel, in their layouts, with the factor of each.
      exponential: whether the terms stand in an exponent.
      low: lower limit of all entries, NaN apart.
      high: upper limit of all entries.
      operation: name of the operation that made it.
      operands: operands of that operation.
      options: options of that operation.
    """

    depends: bool = False
    kinks: int = 0
    terms: "Terms" = dataclasses.field(default_factory=dict)
    exponential: bool = False
    low: float = -math.inf
    high: float = math.inf
    operation: str = ""
    operands: tuple["Value", ...] = ()
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def all_kinks(self) -> int:
        """Return the kinks on the way to it, if nothing cancels any more."""
        found = self.kinks
        for term, _ in self.terms:
            found |= term.kinks
        return found

    @property
    def number(self) -> float | None:
        """Return its value, where all entries are known to be one number."""
        return self.low if self.low == self.high and math.isfinite(self.low) else None

    def settled(self) -> "Value":
        """Return the value without terms, for use where nothing can cancel any more."""
        return dataclasses.replace(self, kinks=self.all_kinks, terms={}, exponential=False) if self.terms else self


@dataclasses.dataclass(eq=False)
class Term:
    """A kinked number that may cancel; its kinks grow while a loop is followed."""

    kinks: int
    frozen: bool = False
    """True if it is the result of ``stop_gradient``."""


Layout: TypeAlias = tuple[int, ...]
"""A layout maps the axes of a term that are longer than 1 to axes of the value."""

Terms: TypeAlias = Mapping[tuple[Term, Layout], float]


def whole(aval: Any) -> Layout:
    """Return the layout of a term in itself."""
    return tuple(axis for axis, size in enumerate(aval.shape) if size > 1)


def known(value: Any) -> Value:
    """Return the value of a program's constant."""
    if isinstance(value, (bool, int, float, np.number, np.bool_)) or (
        isinstance(value, np.ndarray) and value.ndim == 0 and value.dtype.kind in "biuf"
    ):
        number = float(value)
        return Value(low=number, high=number) if not math.isnan(number) else Value()
    return Value()


def is_discrete(aval: Any) -> bool:
    """Return whether numbers of this type can only change by jumps."""
    return not jnp.issubdtype(aval.dtype, jnp.inexact)


def bits(aval: Any) -> float:
    """Return the bits of a number of this type, each part of a complex one; infinity where nothing is rounded."""
    return math.inf if is_discrete(aval) else jnp.finfo(aval.dtype).bits


def is_complex(aval: Any) -> bool:
    """Return whether numbers of this type are complex."""
    return jnp.issubdtype(aval.dtype, jnp.complexfloating)


_SAME_ENTRIES = """
broadcast_in_dim reshape transpose squeeze expand_dims slice rev copy copy_p convert_element_type reduce_precision
sharding_constraint mesh_cast pvary pcast name
"""
SAME = frozenset(_SAME_ENTRIES.split())
"""Operations whose result has the entries of the one operand, in other places; their layouts are known."""

_SHAPING = SAME - {"slice", "rev", "transpose"}


def core(value: Value) -> Value:
    """Return the value before it was broadcast, reshaped, converted or copied."""
    while value.operation in _SHAPING:
        value = value.operands[0]
    return value


def same(a: Value, b: Value) -> bool:
    """Return whether two values are the same array, up to its shape."""
    return core(a) is core(b)


def is_infinite(value: Value) -> bool:
    """Return whether all entries are known to be the same infinity."""
    return value.low == value.high and math.isinf(value.low)
