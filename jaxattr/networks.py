"""Split networks of any framework into arrays and the rest.

A compiled program takes arrays as arguments; everything else of a network (activation functions, numbers that choose a
branch, the structure itself) is a part of the program. Any callable pytree is taken apart so: a Partial, an Equinox
module, a registered dataclass, an NNX module after ``eval()``. New weights are then no new program.
"""

import functools
import types
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from jaxattr import _given
from jaxattr.types import LogitsFn

# The search for arrays in closures visits at most this many objects.
_MAX_VISITED = 1000


class Static:
    """The parts of a network beside its arrays: hashable, and equal for networks that one program serves.

    Attributes:
      treedef: the structure of the callable pytree.
      leaves: its leaves, with an ``_Array`` in the place of each array.
    """

    def __init__(self, treedef: Any, leaves: tuple[Any, ...]):
        self.treedef, self.leaves = treedef, leaves
        try:
            self._hash = hash((treedef, leaves))
        # Lists as hyperparameters or arrays in static fields have no hash: equality decides alone.
        except TypeError:
            self._hash = hash(len(leaves))

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: Any) -> bool:
        if not isinstance(other, Static):
            return NotImplemented
        if self is other:
            return True
        try:
            return bool(self.treedef == other.treedef and self.leaves == other.leaves)
        # Arrays in static fields have no equality that is one truth value: such networks are programs of their own.
        except (TypeError, ValueError):
            return False

    def __repr__(self) -> str:
        return f"Static({self.treedef}, {self.leaves})"

    def holds_arrays(self) -> bool:
        """Return whether arrays are inside: in the closure of a function, or in a field that is declared static."""
        seen: set[int] = set()
        return any(_holds_arrays(one, seen) for one in (*_auxiliary(self.treedef), *self.leaves))


class _Array(NamedTuple):
    """The place of an array; ``key`` names the generator of a typed random key."""

    key: str | None = None


class _Unbound(NamedTuple):
    """A linen module that was bound, as a function of its variables; equal for equal modules."""

    module: Any

    def __call__(self, variables: Any, x: Any) -> Any:
        return self.module.apply(variables, x)

    def __hash__(self) -> int:
        # Modules with lists in their fields, such as `nn.Sequential`, have no hash of their own.
        return hash(type(self.module))


def is_callable_pytree(logits_fn: Any) -> bool:
    """Return whether a network is a pytree whose arrays can be arguments of a compiled program.

    Example:
      >>> import jax.numpy as jnp
      >>> is_callable_pytree(Partial(jnp.dot, jnp.ones(3))), is_callable_pytree(lambda x: x)
      (True, False)
    """
    return callable(logits_fn) and not jax.tree_util.all_leaves([logits_fn])


def as_pytree(logits_fn: LogitsFn) -> LogitsFn:
    """Return the function as a callable pytree of its arrays, where they are accessible.

    A bound linen module becomes a function of its variables, a ``functools.partial`` and the method of a pytree become
    Partials. Anything else comes back as it is.

    Example:
      >>> import functools
      >>> import jax.numpy as jnp
      >>> is_callable_pytree(as_pytree(functools.partial(jnp.dot, jnp.ones(3))))
      True
    """
    if is_callable_pytree(logits_fn):
        return logits_fn
    if _given.is_linen(logits_fn) and getattr(logits_fn, "scope", None) is not None:
        module, variables = logits_fn.unbind()  # pyright: ignore[reportFunctionMemberAccess]
        return Partial(_Unbound(module), variables)
    if isinstance(logits_fn, functools.partial):
        return Partial(logits_fn.func, *logits_fn.args, **logits_fn.keywords)
    if isinstance(logits_fn, types.MethodType) and not jax.tree_util.all_leaves([logits_fn.__self__]):
        return Partial(logits_fn.__func__, logits_fn.__self__)
    return logits_fn


def split(logits_fn: LogitsFn) -> tuple[list[Any], Static]:
    """Take a callable pytree apart.

    Args:
      logits_fn: a callable pytree, or what :func:`as_pytree` makes one of.

    Returns:
      ``(arrays, static)``: the leaves that are arrays of JAX or NumPy, random keys as plain numbers; and the rest,
      hashable and equal for networks that differ in their arrays alone.

    Raises:
      TypeError: if ``logits_fn`` is no pytree, such as a closure.

    Example:
      >>> import jax.numpy as jnp
      >>> arrays, static = split(Partial(jnp.dot, jnp.ones(3)))
      >>> other, equal = split(Partial(jnp.dot, jnp.zeros(3)))
      >>> len(arrays), static == equal, float(merge(arrays, static)(jnp.ones(3)))
      (1, True, 3.0)
    """
    logits_fn = as_pytree(logits_fn)
    if not is_callable_pytree(logits_fn):
        raise TypeError(f"a network must be a callable pytree to be taken apart, got {type(logits_fn).__name__}.")
    leaves, treedef = jax.tree_util.tree_flatten(logits_fn)
    arrays, rest = [], []
    for leaf in leaves:
        if not isinstance(leaf, (jax.Array, np.ndarray, np.generic)):
            rest.append(leaf)
        elif isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            # Convert keys to numbers: keys cannot be put on the devices of other processes.
            arrays.append(jax.random.key_data(leaf))
            rest.append(_Array(str(jax.random.key_impl(leaf))))
        else:
            arrays.append(leaf)
            rest.append(_Array())
    return arrays, Static(treedef, tuple(rest))


def merge(arrays: list[Any], static: Static) -> LogitsFn:
    """Invert :func:`split`, also for arrays that are being traced."""
    given = iter(arrays)

    def leaf(one: Any) -> Any:
        if not isinstance(one, _Array):
            return one
        array = next(given)
        return array if one.key is None else jax.random.wrap_key_data(array, impl=one.key)

    return jax.tree_util.tree_unflatten(static.treedef, [leaf(one) for one in static.leaves])


def _auxiliary(treedef: Any) -> list[Any]:
    """Return the static data of a pytree's nodes."""
    node = treedef.node_data()
    own = [] if node is None else [node[1]]
    return [*own, *(one for child in treedef.children() for one in _auxiliary(child))]


def _holds_arrays(value: Any, seen: set[int]) -> bool:
    if isinstance(value, (jax.Array, np.ndarray)):
        return True
    if id(value) in seen or isinstance(value, (type, types.ModuleType, str, bytes, int, float)):
        return False
    seen.add(id(value))
    # Assume arrays when in doubt: the price is a program that is compiled again.
    return len(seen) > _MAX_VISITED or any(_holds_arrays(inner, seen) for inner in _inside(value))


def holds_arrays(function: Callable[..., Any]) -> bool:
    """Return whether a function holds arrays, in closures, defaults or fields, that its compiled program would keep."""
    return _holds_arrays(function, set())


def _inside(value: Any) -> list[Any]:
    if isinstance(value, types.FunctionType):
        cells = [cell.cell_contents for cell in value.__closure__ or () if cell != types.CellType()]
        return [*cells, *(value.__defaults__ or ()), *(value.__kwdefaults__ or {}).values()]
    if isinstance(value, types.MethodType):
        return [value.__self__, value.__func__]
    if isinstance(value, functools.partial):
        return [value.func, *value.args, *value.keywords.values()]
    if isinstance(value, dict):
        return list(value.values())
    if isinstance(value, (list, tuple, set, frozenset)):
        return list(value)
    return list(getattr(value, "__dict__", {}).values())
