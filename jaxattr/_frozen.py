"""Compare the arguments of constructors by value: a hashable key that is equal for equal arguments."""

import enum
import hashlib
import sys
import types
from collections.abc import Callable, Hashable
from typing import TYPE_CHECKING, Any

import jax
import jax.core
import jax.numpy as jnp
import numpy as np

from jaxattr.balls import Ball

if TYPE_CHECKING:
    from jaxattr._spec import Spec


def spec_of(value: Any) -> "Spec | None":
    """Return how an object was built, ``None`` where no constructor of a method has built it."""
    spec: Any = getattr(value, "spec", None)
    return spec if hasattr(spec, "constructor") and hasattr(spec, "plain") else None


class NoIdentity(Exception):
    """Raised for values that cannot be compared by value."""


class Is:
    """A value that is compared by identity."""

    __slots__ = ("value",)

    def __init__(self, value: Any):
        self.value = value

    def __eq__(self, other: Any) -> bool:
        return isinstance(other, Is) and self.value is other.value

    def __hash__(self) -> int:
        return id(self.value)


def identity(
    constructor: Callable[..., Any], required: tuple[Any, ...], options: dict[str, Any]
) -> tuple[Hashable, bool, bool]:
    """Return a key that is equal for equal calls, and whether arguments, and the whole call, are plain.

    Arguments that are plain hold no array, and no function that could hold one in its closure; for a call to be plain
    the constructor must be no such function either. The key is ``None`` if an argument has none, such as a tracer.
    """
    reader = Reader()
    try:
        key = Is(constructor), reader.frozen(required), reader.frozen(options)
    except NoIdentity:
        return None, False, False
    return key, reader.plain, reader.plain and _is_importable(constructor)


class Frozen:
    """A base of arguments that are their own keys, equal by value.

    Attributes:
      plain: whether nothing in it holds an array.
    """

    plain: bool = True


_NUMBERS = (bool, int, float, complex)


class Reader:
    """A reader of arguments that makes a hashable key of them, and notes whether they are plain."""

    def __init__(self):
        self.plain = True

    def frozen(self, value: Any) -> Hashable:
        """Return a key of one argument.

        Raises:
          NoIdentity: if there is none.
        """
        if isinstance(value, Frozen):
            self.plain &= value.plain
            return value
        if type(value) in _NUMBERS:
            # 1, 1.0 and True are equal, as 0.0 and -0.0 are; their representations differ.
            return type(value), repr(value)
        if value is None or isinstance(value, (str, bytes, enum.Enum, np.dtype)):
            return type(value), value
        if isinstance(value, (jax.Array, np.ndarray, np.generic)):
            return self._array(value)
        if isinstance(value, Ball) or type(value) in (tuple, list, dict):
            return type(value), *map(self.frozen, _inside(value))
        return self._object(value)

    def _object(self, value: Any) -> Hashable:
        spec = spec_of(value)
        if spec is not None:
            self.plain &= spec.plain
        elif callable(value):
            self.plain &= isinstance(value, type) or _is_importable(value)
        else:
            raise NoIdentity
        return Is(value)

    def _array(self, value: Any) -> Hashable:
        if isinstance(value, jax.core.Tracer) or value.dtype == object:
            raise NoIdentity
        if isinstance(value, np.generic):
            return type(value), value.dtype.str, value.tobytes()
        self.plain &= is_number(value)
        if isinstance(value, np.ndarray):
            return np.ndarray, value.dtype.str, value.shape, _digest(value)
        if value.is_deleted() or not value.is_fully_addressable:
            raise NoIdentity
        kind = str(value.dtype)
        if jnp.issubdtype(value.dtype, jax.dtypes.prng_key):
            with jax.ensure_compile_time_eval():
                value = jax.random.key_data(value)
        place = value.shape, value.weak_type, value.sharding, value.committed
        return jax.Array, kind, *place, _digest(np.asarray(value))


def is_number(value: Any) -> bool:
    """Return whether an array is a number, a part of a method's structure, as Python's numbers are."""
    return isinstance(value, np.ndarray) and value.ndim == 0


def _inside(value: Any) -> list[Any]:
    if isinstance(value, (tuple, list)):
        return list(value)
    items = value.items() if isinstance(value, dict) else sorted(vars(value).items())
    return [one for item in items for one in item]


def _digest(values: np.ndarray) -> bytes:
    return hashlib.sha256(np.ascontiguousarray(values).tobytes()).digest()


def _is_importable(function: Any) -> bool:
    """Return whether a function is an attribute of its module, and lives as long as that."""
    if not isinstance(function, types.FunctionType):
        return False
    found: Any = sys.modules.get(function.__module__)
    for name in function.__qualname__.split("."):
        found = getattr(found, name, None)
    return found is function
