"""Keep compiled programs as long as the functions from which they were compiled.

Weights inside of a closure are constants of a compiled program. A cache whose keys hold on to the closure would keep
both for good: the keys here are weak, and the programs reach their functions through weak references alone.
"""

import weakref
from collections.abc import Callable
from functools import lru_cache, partial
from types import MethodType
from typing import Any

import jax

_PROGRAMS: weakref.WeakKeyDictionary = weakref.WeakKeyDictionary()


def compiled(function: Callable[..., Any], *static: Any) -> Any:
    """Return ``jit(partial(function, *static))``, the same object for the same arguments while all of them live.

    Args:
      function: of a module, so that it lives for good.
      static: functions and other objects, in this order its first arguments; those without a hash, such as an instance
        of a plain dataclass, make a new program on each call.
    """
    try:
        if all(_has_value(one) for one in static):
            return _of_values(function, *static)
        programs, references = _PROGRAMS, [weakref.ref(one) for one in static]
        for one in static[:-1]:
            programs = programs.setdefault(one, weakref.WeakKeyDictionary())
        known = programs.setdefault(static[-1], {})
    # An object without a hash, or without weak references, is compiled once for each call.
    except TypeError:
        return jax.jit(partial(function, *static))

    def run(*arguments: Any) -> Any:
        return function(*(reference() for reference in references), *arguments)

    if function not in known:
        known[function] = jax.jit(run)
    return known[function]


def _has_value(static: Any) -> bool:
    """Return whether equality is by value, as of networks made of equal modules: such hold no weights, and are kept."""
    inner = getattr(static, "apply_fn", None)
    by_value = type(static).__eq__ is not object.__eq__ and not isinstance(static, MethodType)
    return by_value and (inner is None or _has_value(inner))


@lru_cache(maxsize=32)
def _of_values(function: Callable[..., Any], *static: Any) -> Any:
    return jax.jit(partial(function, *static))
