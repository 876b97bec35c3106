"""The library's annotations of arrays, shapes and dtypes, checked at every call in the tests."""

import doctest
import functools
import inspect
import types
from collections.abc import Callable
from typing import Any, Union, get_args, get_origin

import beartype
import jaxtyping
import numpy as np


def check(package: str) -> None:
    """Have every function of a package checked that is imported from now on.

    What an annotation does not admit, the function has to refuse in its own words; if it goes on instead, the
    annotation is wrong, and jaxtyping's error is raised. Arrays of NumPy are taken wherever those of JAX are.
    """
    jaxtyping.jaxtyped = functools.partial(_checked, decorator=jaxtyping.jaxtyped)
    jaxtyping.install_import_hook(package, "annotations.arrays")
    _find_examples_of_checked_functions()


def arrays(function: Callable[..., Any]) -> Callable[..., Any]:
    """Beartype for the annotations that are jaxtyping's; the others are pyright's business."""
    kinds = {name: kind for name, kind in function.__annotations__.items() if _is_of_arrays(kind)}
    function.__annotations__ = {name: _or_of_numpy(kind) for name, kind in kinds.items()}
    return beartype.beartype(function)


def _is_array(kind: Any) -> bool:
    return inspect.isclass(kind) and issubclass(kind, jaxtyping.AbstractArray)


def _is_of_arrays(kind: Any) -> bool:
    return _is_array(kind) or any(map(_is_of_arrays, get_args(kind)))


def _or_of_numpy(kind: Any) -> Any:
    if _is_array(kind):
        return kind.dtype[kind.array_type | np.ndarray, kind.dim_str]
    if isinstance(kind, types.UnionType) or get_origin(kind) is Union:
        return Union[tuple(map(_or_of_numpy, get_args(kind)))]  # noqa: UP007  (of as many as there are)
    return kind


def _checked(*, typechecker: Any, decorator: Any) -> Callable[[Any], Any]:
    def decorate(target: Any) -> Any:
        if not inspect.isclass(target):
            return _or_refused(decorator(typechecker=typechecker)(target), target)
        refuses = target.__init__
        checked = decorator(typechecker=typechecker)(target)
        if checked.__init__ is not refuses:
            checked.__init__ = _or_refused(checked.__init__, refuses)
        return checked

    return decorate


def _or_refused(checked: Callable[..., Any], function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        try:
            return checked(*args, **kwargs)
        except jaxtyping.TypeCheckError as error:
            # Once, where it comes from, and not again in each function around.
            if not getattr(error, "was_accepted", False):
                function(*args, **kwargs)
                error.was_accepted = True  # pyright: ignore[reportAttributeAccessIssue]
            raise

    return call


def _find_examples_of_checked_functions() -> None:
    # The wrapper is of this module, and doctest looks for the functions of the module that it examines.
    belongs_to = doctest.DocTestFinder._from_module  # pyright: ignore[reportAttributeAccessIssue]

    def unwrapped(self: doctest.DocTestFinder, module: Any, value: Any) -> bool:
        return belongs_to(self, module, inspect.unwrap(value) if inspect.isfunction(value) else value)

    doctest.DocTestFinder._from_module = unwrapped  # pyright: ignore[reportAttributeAccessIssue]
