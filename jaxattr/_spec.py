"""Know of a method how it was built: the name of its constructor, and the options that differ from their defaults."""

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, ParamSpec, TypeVar

import jax
import numpy as np

from jaxattr import _values
from jaxattr._frozen import identity

P = ParamSpec("P")
T = TypeVar("T")


class Spec(NamedTuple):
    """The call that built a method.

    Attributes:
      name: of the constructor.
      required: values of the arguments without a default, in order.
      options: values of the other arguments, by name, where they differ from their defaults.
      constructor: the function that was called.
      plain: whether all values are plain ones, such as numbers and names: nothing in them holds an array.
    """

    name: str
    required: tuple[Any, ...]
    options: dict[str, Any]
    constructor: Callable[..., Any]
    plain: bool = False

    def __str__(self) -> str:
        values = [*map(_shown, self.required), *(f"{name}={_shown(value)}" for name, value in self.options.items())]
        return f"{self.name}({', '.join(values)})"

    def again(self) -> Any:
        """Call the constructor again."""
        return self.constructor(*self.required, **self.options)


def described(constructor: Callable[P, T]) -> Callable[P, T]:
    """Make the methods of a constructor values, which know how they were built.

    Equal calls return the same method while it lives, so that methods compare by value and equal ones are compiled
    once. Arguments are equal if they are equal numbers, strings, balls or methods, arrays of the same type and content,
    or the same function. A method prints as it was built (``method.spec``), and its arrays and random keys are its
    leaves for JAX.

    Example:
      >>> import jaxattr as ja
      >>> ja.attacks.ifia(ja.L2(0.1, box=None), ja.attributions.integrated_gradients(num_steps=7), num_steps=200)
      ifia(L2(0.1, box=None), integrated_gradients(num_steps=7))
      >>> ja.attributions.integrated_gradients(50) is ja.attributions.integrated_gradients(rule="midpoint")
      True
    """
    signature = inspect.signature(constructor)

    @functools.wraps(constructor)
    def build(*args: P.args, **kwargs: P.kwargs) -> T:
        required, options = _sorted(signature, signature.bind(*args, **kwargs).arguments)
        key, _, plain = identity(build, required, options)
        spec = Spec(constructor.__name__, required, options, build, plain)
        if key is None:
            return _values.with_spec(constructor(*args, **kwargs), spec)

        def make() -> T:
            # Arrays that a constructor computes are constants, also while JAX is tracing.
            with jax.ensure_compile_time_eval():
                return _values.with_spec(constructor(*args, **kwargs), spec)

        return _values.interned(key, make, keep=plain)

    return build


def _sorted(signature: inspect.Signature, given: Mapping[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return the values of required arguments, and those of the others where they differ from their defaults."""
    required, options = [], {}
    for name, parameter in signature.parameters.items():
        if parameter.kind is parameter.VAR_POSITIONAL:
            required += given.get(name, ())
        elif parameter.kind is parameter.VAR_KEYWORD:
            options.update(given.get(name, {}))
        elif parameter.default is parameter.empty and parameter.kind is not parameter.KEYWORD_ONLY:
            required.append(given[name])
        elif name in given and not same(given[name], parameter.default):
            options[name] = given[name]
    return tuple(required), options


def same(value: Any, default: Any) -> bool:
    """Return whether a value is the default; arrays, which have no single answer, are not."""
    if value is default or type(value) is not type(default):
        return value is default
    try:
        return bool(value == default)
    # Arrays, and tuples of them, have no single answer.
    except ValueError:
        return False


def _is_array(value: Any) -> bool:
    return isinstance(value, jax.Array | np.ndarray)


def _shown(value: Any) -> str:
    """Format a value as it is written in code; arrays by type and shape, functions by name."""
    if _is_array(value):
        return f"<{value.dtype} array of shape {tuple(value.shape)}>"
    spec = getattr(value, "spec", None)
    if isinstance(spec, Spec):
        return str(spec)
    if inspect.isfunction(value):
        return value.__name__
    if isinstance(value, tuple | list):
        inner = ", ".join(map(_shown, value))
        if isinstance(value, list):
            return f"[{inner}]"
        return f"({inner}{',' if len(value) == 1 else ''})"
    return repr(value)
