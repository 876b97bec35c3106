"""Know of a method how it was built: the name of its constructor, and the options that differ from their defaults."""

import functools
import inspect
from collections.abc import Callable
from typing import Any, NamedTuple, ParamSpec, TypeVar

import jax
import numpy as np

P = ParamSpec("P")
T = TypeVar("T")


class Spec(NamedTuple):
    """The call that built a method.

    Attributes:
      name: of the constructor.
      required: values of the arguments without a default, in order.
      options: values of the other arguments, by name, where they differ from their defaults.
    """

    name: str
    required: tuple[Any, ...]
    options: dict[str, Any]

    def __str__(self) -> str:
        values = [*map(_shown, self.required), *(f"{name}={_shown(value)}" for name, value in self.options.items())]
        return f"{self.name}({', '.join(values)})"


def described(constructor: Callable[P, T]) -> Callable[P, T]:
    """Let a constructor tell the method that it returns how it was built, as the method's ``spec``.

    Example:
      >>> import jaxattr as ja
      >>> ja.attacks.ifia(ja.L2(0.1, box=None), ja.attributions.integrated_gradients(num_steps=7), num_steps=200)
      ifia(L2(0.1, box=None), integrated_gradients(num_steps=7))
    """
    signature = inspect.signature(constructor)

    @functools.wraps(constructor)
    def build(*args: P.args, **kwargs: P.kwargs) -> T:
        built = constructor(*args, **kwargs)
        given = signature.bind(*args, **kwargs).arguments
        required, options = [], {}
        for name, parameter in signature.parameters.items():
            if parameter.kind is inspect.Parameter.VAR_POSITIONAL:
                required += given.get(name, ())
            elif parameter.default is inspect.Parameter.empty:
                required.append(given[name])
            elif name in given and not same(given[name], parameter.default):
                options[name] = given[name]
        built.spec = Spec(constructor.__name__, tuple(required), options)  # pyright: ignore[reportAttributeAccessIssue]
        return built

    return build


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
    if isinstance(value, tuple | list) and any(map(_is_array, value)):
        inner = ", ".join(map(_shown, value))
        return f"[{inner}]" if isinstance(value, list) else f"({inner})"
    return repr(value)
