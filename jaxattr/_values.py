"""Make methods values: equal calls of a constructor give one object, whose arrays are its leaves for JAX.

Programs are cached by the identity of the methods in them. With one object for equal calls, identity is equality, and
the caches (JAX's own and those of this library) need not know what a method is made of. The table of objects is weak:
it keeps no method alive, except for the last few that hold nothing but numbers and names.
"""

import functools
import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

import jax
import jax.core
import jax.numpy as jnp
import numpy as np

from jaxattr._frozen import Frozen, Is, identity, is_number, spec_of
from jaxattr.balls import Ball

if TYPE_CHECKING:
    from jaxattr._spec import Spec

T = TypeVar("T")

# Keep so many methods that hold no arrays, so that a loop that builds its method anew finds the compiled programs.
MAX_KEPT = 32

_lock = threading.RLock()
_known: weakref.WeakValueDictionary[Hashable, Any] = weakref.WeakValueDictionary()
_kept: OrderedDict[Hashable, Any] = OrderedDict()
# Attributes of a method that belong to it and not to its copies.
_OWN = ("spec", "_parts", "_jaxattr_programs")


class Value:
    """A base of objects that constructors under :func:`jaxattr.described` build.

    Its leaves for JAX are the arrays and random keys among the constructor's arguments, at any depth. Numbers stay a
    part of the structure. With other leaves (tracers, say), the constructor builds the method again.

    Attributes:
      spec: how it was built; ``None`` for an object that no such constructor has built.
    """

    spec: "Spec | None" = None

    def __init_subclass__(cls, **options: Any):
        super().__init_subclass__(**options)
        jax.tree_util.register_pytree_node(cls, _flatten, functools.partial(_unflatten, cls))

    def __setattr__(self, name: str, value: Any):
        # Private attributes are what caches note.
        if "spec" in vars(self) and not name.startswith("_"):
            raise AttributeError(
                f"`{self!r}` is one object for all who build it, and its `{name}` cannot be changed: build another one."
            )
        super().__setattr__(name, value)

    def __reduce_ex__(self, protocol: Any):
        # Functions inside of a method cannot be sent to another process; the call that has built it can.
        if self.spec is None:
            return super().__reduce_ex__(protocol)
        return _call_again, (self.spec.constructor, self.spec.required, self.spec.options)


def _call_again(constructor: Callable[..., Any], required: tuple[Any, ...], options: dict[str, Any]) -> Any:
    return constructor(*required, **options)


def with_spec(built: T, spec: "Spec") -> T:
    """Return an object with its spec: the same object, or a copy if another constructor has built it already."""
    if vars(built).get("spec") is not None:
        if not isinstance(built, Value):
            return built
        built = copied(built)
    vars(built)["spec"] = spec
    return built


def copied(value: T, **changes: Any) -> T:
    """Return a copy of an object with other attributes, which does not know how it was built."""
    new = object.__new__(type(value))
    vars(new).update({name: each for name, each in vars(value).items() if name not in _OWN} | changes)
    return new


# One object for equal calls


def interned(key: Hashable, make: Callable[[], T], *, keep: bool = False) -> T:
    """Return the object of a key, made where none is alive.

    Args:
      key: what :func:`jaxattr._frozen.identity` returns.
      make: makes the object.
      keep: whether to keep the object alive while it is one of the last few.
    """
    found = _look_up(key)
    if found is None:
        # Constructors run without the lock, because they build other methods.
        made = make()
        with _lock:
            found = _look_up(key)
            if found is None:
                _known[key] = found = made
    if keep:
        with _lock:
            _kept[key] = found
            _kept.move_to_end(key)
            dropped = [_kept.popitem(last=False) for _ in range(len(_kept) - MAX_KEPT)]
        del dropped
    return found


def _look_up(key: Hashable) -> Any:
    with _lock:
        found = _known.get(key)
    if found is None or found.spec is None:
        return found
    # A list or a NumPy array inside of a method may have been written to since: then this is another method.
    spec = found.spec
    return found if identity(spec.constructor, spec.required, spec.options)[0] == key else None


# Arrays as leaves


class _Hole(Frozen):
    """The place of an array."""

    def __repr__(self) -> str:
        return "<array>"


_HOLE = _Hole()


class _Structure(Frozen):
    """A value without its arrays; equal for values that differ in their arrays alone.

    Attributes:
      kind: class of the value.
      build: the function that builds it of its parts.
      parts: what it is built of, with a place in the stead of each array.
      shared: whether nothing in the parts holds an array, so that methods of this structure may share what is kept.
    """

    def __init__(self, kind: type, build: Callable[..., Any], *parts: Any):
        self.kind, self.build, self.parts = kind, build, parts
        key, self.shared, self.plain = identity(build, parts, {})
        self._key = Is(self) if key is None else (kind, key)

    def __eq__(self, other: Any) -> bool:
        return isinstance(other, _Structure) and self._key == other._key

    def __hash__(self) -> int:
        return hash(self._key)

    def __repr__(self) -> str:
        return f"<structure of a {self.kind.__name__}>"


def _is_leaf(value: Any) -> bool:
    return isinstance(value, (jax.Array, np.ndarray)) and not is_number(value)


def _without_arrays(value: Any, leaves: list[Any]) -> Any:
    """Return a value with a place in the stead of each of its arrays, which are appended to ``leaves``."""
    before = len(leaves)
    if _is_leaf(value):
        leaves.append(value)
        return _HOLE
    if type(value) in (tuple, list):
        return type(value)([_without_arrays(each, leaves) for each in value])
    if type(value) is dict:
        return {name: _without_arrays(each, leaves) for name, each in value.items()}
    if isinstance(value, Ball):
        attributes = {name: _without_arrays(each, leaves) for name, each in vars(value).items()}
        return value if len(leaves) == before else _Structure(type(value), _ball, (type(value),), attributes)
    spec = spec_of(value)
    if spec is not None:
        required, options = _without_arrays(spec.required, leaves), _without_arrays(spec.options, leaves)
        return value if len(leaves) == before else _Structure(type(value), spec.constructor, required, options)
    return value


def _with_arrays(value: Any, leaves: Iterator[Any]) -> Any:
    """Invert :func:`_without_arrays`."""
    if value is _HOLE:
        return next(leaves)
    if type(value) in (tuple, list):
        return type(value)([_with_arrays(each, leaves) for each in value])
    if type(value) is dict:
        return {name: _with_arrays(each, leaves) for name, each in value.items()}
    if not isinstance(value, _Structure):
        return value
    required, options = [_with_arrays(part, leaves) for part in value.parts]
    return value.build(*required, **options)


def _ball(kind: type[Ball], **attributes: Any) -> Ball:
    # Skip the checks: they were passed already.
    ball = object.__new__(kind)
    vars(ball).update(attributes)
    return ball


def _flatten(method: Any) -> tuple[tuple[Any, ...], Any]:
    own = vars(method)
    if "_parts" not in own:
        leaves: list[Any] = []
        structure = _without_arrays(method, leaves)
        own["_parts"] = (tuple(leaves), structure) if leaves else None
    # A method without arrays is all structure.
    return own["_parts"] or ((), Is(method))


def _unflatten(kind: type, structure: Any, leaves: Any) -> Any:
    if isinstance(structure, Is):
        return structure.value
    with jax.ensure_compile_time_eval():
        leaves = tuple(jnp.asarray(leaf) if is_number(leaf) else leaf for leaf in leaves)
    if all(map(_is_leaf, leaves)):
        return _with_arrays(structure, iter(leaves))
    # JAX also unflattens with placeholders that are no arrays: this has a structure, and cannot be called.
    skeleton = object.__new__(kind)
    vars(skeleton)["_parts"] = (leaves, structure)
    return skeleton


def structure_of(method: Any) -> _Structure | None:
    """Return the structure of a method that holds arrays, ``None`` for any other object."""
    structure = _flatten(method)[1] if isinstance(method, Value) else None
    return structure if isinstance(structure, _Structure) else None
