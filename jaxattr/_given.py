"""Refuse arguments that are no method or network, with what they seem to be and what to write.

These checks look at the object and its signature alone. They run where a method is built, long before a compiler would
complain of something that the user never wrote.
"""

import collections.abc
import importlib
import inspect
import sys
import typing
from typing import Any

import jax
import numpy as np

from jaxattr.types import Attack, AttributionFn, Bound

_ATTRIBUTION = "an attribution `attribute(logits_fn, x, label) -> map`, such as `jaxattr.attributions.saliency()`"
_BOUND = "a bound `bound(logits_fn, x, label, key)`, such as `jaxattr.bounds.singular_value(attribute, ball)`"
_ATTACK = "an attack `attack(logits_fn, x, label, key)`, such as `jaxattr.attacks.pgd(jaxattr.LInf(8 / 255))`"
_METHOD = (
    "an attribution, a bound or an attack, such as `jaxattr.attributions.saliency()` or `jaxattr.attacks.pgd(ball)`"
)
# Functions that return one of these are constructors.
_ANNOTATIONS = ("Attribution", "AttributionFn", "Method", "Callable")
# The registries of these packages know the names of constructors; the values are their arguments in messages.
_PACKAGES = {"attributions": "()", "bounds": "(attribute, ball)", "attacks": "(ball, ...)"}


def attribution(value: Any, name: str = "attribute") -> Any:
    """Return ``value`` if it can be called as an attribution.

    Args:
      value: what was given.
      name: of the argument, for the message.

    Raises:
      TypeError: if it is a name, an array, a constructor without its parentheses, a bound or an attack, or a function
        that does not take ``(logits_fn, x, label)``.

    Example:
      >>> import jaxattr as ja
      >>> attribution(ja.attributions.saliency)
      Traceback (most recent call last):
      TypeError: `attribute` must be an attribution ... got the constructor `saliency`, ... write `saliency()`.
    """
    _refuse_common(value, name, _ATTRIBUTION, "attributions")
    if is_method(value):
        raise TypeError(f"`{name}` must be {_ATTRIBUTION}; got {value!r}, which is a bound or an attack.")
    if not is_attribution(value):
        _takes(3, value, name, _ATTRIBUTION)
    return value


def bound(value: Any, name: str = "bound") -> Any:
    """Return ``value`` if it can be called as a bound (or an attack: they take the same arguments)."""
    return _of_four_arguments(value, name, _BOUND, "bounds")


def attack(value: Any, name: str = "attack") -> Any:
    """Return ``value`` if it can be called as an attack (or a bound)."""
    return _of_four_arguments(value, name, _ATTACK, "attacks")


def method(value: Any, name: str = "method") -> Any:
    """Return ``value`` if it can be called as an attribution, a bound or an attack."""
    _refuse_common(value, name, _METHOD, *_PACKAGES)
    if not is_method(value) and not is_attribution(value):
        signature = signature_of(value)
        # A plain function may take a key as its fourth argument, or by that name.
        if signature is None or not (_binds(signature, 4) or _binds(signature, 4, key=None)):
            _takes(3, value, name, _METHOD)
    return value


def network(value: Any, name: str = "logits_fn") -> Any:
    """Return ``value`` if it can be called on one input.

    Raises:
      TypeError: if it is no function of one argument: a dictionary of weights, a Flax module without its variables,
        a method in its place, or a function that takes weights, too.
    """
    if is_method(value) or is_attribution(value):
        raise TypeError(
            f"`{name}` must be callable on one input, `(*shape) -> (classes,)`, got the method {value!r}. The method"
            " goes first: `over_samples(method, logits_fn)`, `method(logits_fn, x, label, key)`."
        )
    if isinstance(value, type):
        raise TypeError(
            f"`{name}` must be callable on one input, got the class {value.__name__}: build one of it first."
        )
    if not callable(value):
        raise TypeError(f"`{name}` must be callable on one input, got {_kind(value)}. {_cure_of_no_function(value)}")
    if is_linen(value) and getattr(value, "scope", None) is None:
        raise TypeError(
            f"`{name}` is the Flax module {type(value).__name__} without its variables. A function of ONE input is"
            f" made of both by `jaxattr.models.logits_fn(module, variables)`, or by"
            " `jax.tree_util.Partial(lambda variables, x: module.apply(variables, x[None])[0], variables)`."
        )
    _refuse_constructor(value, name, "callable on one input")
    signature = signature_of(value)
    if signature is not None and not _binds(signature, 1):
        raise TypeError(
            f"`{name}` must be callable on ONE input, but {_called(value)} takes {_arguments(signature)}. What comes"
            " before the input (weights, variables) goes into a Partial, `jax.tree_util.Partial(apply, variables)`:"
            " its arrays stay arguments of compiled programs."
        )
    return value


def is_method(value: Any) -> bool:
    """Return whether ``value`` is a bound or an attack of this library."""
    # Decide by fields, since `method.py` depends on this file.
    return hasattr(value, "needs_key") and hasattr(value, "ball")


def is_attribution(value: Any) -> bool:
    """Return whether ``value`` is an attribution of this library, rather than a plain function."""
    return not isinstance(value, type) and hasattr(value, "field") and hasattr(value, "multiplier")


def is_linen(value: Any) -> bool:
    """Return whether ``value`` is a Flax linen module, without importing Flax."""
    linen = sys.modules.get("flax.linen")
    return linen is not None and isinstance(value, linen.Module)


def signature_of(value: Any) -> inspect.Signature | None:
    """Return the signature of a callable, ``None`` where it has none (some built-in functions)."""
    try:
        return inspect.signature(value)
    except (TypeError, ValueError):
        return None


def takes(count: int, value: Any, **keywords: Any) -> bool:
    """Return whether a callable accepts ``count`` arguments, ``keywords`` among them, as far as is known."""
    signature = signature_of(value)
    return signature is None or _binds(signature, count, **keywords)


def _refuse_common(value: Any, name: str, wanted: str, *packages: str) -> None:
    if isinstance(value, str):
        known = _constructors(*packages)
        advice = f"It is built by `{known[value]}`." if value in known else f"Known names are {', '.join(known)}."
        raise TypeError(f"`{name}` must be {wanted}; got str: {value!r}, where a function is meant. {advice}")
    if isinstance(value, type):
        raise TypeError(f"`{name}` must be {wanted}; got the class {value.__name__}, of which one has to be built.")
    if not callable(value):
        raise TypeError(f"`{name}` must be {wanted}; got {_kind(value)}.")
    if is_linen(value):
        raise TypeError(f"`{name}` must be {wanted}; got the network {type(value).__name__}. The method goes first.")
    if is_method(value) or is_attribution(value):
        return
    _refuse_constructor(value, name, wanted)


def _of_four_arguments(value: Any, name: str, wanted: str, package: str) -> Any:
    _refuse_common(value, name, wanted, package)
    if is_attribution(value):
        raise TypeError(f"`{name}` must be {wanted}; got the attribution {value!r}, of which one is built.")
    if not is_method(value):
        _takes(4, value, name, wanted)
    return value


def _refuse_constructor(value: Any, name: str, wanted: str) -> None:
    signature = signature_of(value)
    if signature is not None and _makes_a_function(signature.return_annotation):
        called = getattr(value, "__name__", repr(value))
        how = "()" if _binds(signature, 0) else "(...)"
        raise TypeError(
            f"`{name}` must be {wanted}; got the constructor `{called}`, whose parentheses are missing: write"
            f" `{called}{how}`."
        )


def _takes(count: int, value: Any, name: str, wanted: str) -> None:
    signature = signature_of(value)
    if signature is None or _binds(signature, count) or _binds(signature, count, key=None):
        return
    looks = ""
    if count > 1 and _binds(signature, 1):
        looks = " That looks like a network: the method goes first, `over_samples(method, logits_fn)`."
    raise TypeError(f"`{name}` must be {wanted}; but {_called(value)} takes {_arguments(signature)}.{looks}")


def _binds(signature: inspect.Signature, count: int, **keywords: Any) -> bool:
    positional = count - len(keywords)
    try:
        signature.bind(*[None] * positional, **keywords)
    except TypeError:
        return False
    return True


def _makes_a_function(annotation: Any) -> bool:
    """Return whether a return annotation declares a method, so that the function is a constructor."""
    if annotation is inspect.Signature.empty:
        return False
    if isinstance(annotation, str):
        return annotation.split("[")[0].split(".")[-1] in _ANNOTATIONS
    if annotation in (AttributionFn, Bound, Attack):
        return True
    origin = typing.get_origin(annotation) or annotation
    return origin is collections.abc.Callable or getattr(origin, "__name__", "") in _ANNOTATIONS


def _constructors(*packages: str) -> dict[str, str]:
    """Map the name of each method to the call that builds it."""
    return {
        name: f"jaxattr.{package}.{name}{_PACKAGES[package]}"
        for package in packages
        for name in importlib.import_module(f"jaxattr.{package}").REGISTRY
    }


def _kind(value: Any) -> str:
    if isinstance(value, (jax.Array, np.ndarray)):
        return f"an array of shape {value.shape}"
    if type(value).__module__.startswith("jaxattr"):
        return repr(value)
    return type(value).__name__


def _called(value: Any) -> str:
    """Format a callable for a message, without its weights."""
    return f"`{getattr(value, '__name__', None) or type(value).__name__}`"


def _arguments(signature: inspect.Signature) -> str:
    plain = [p.replace(annotation=p.empty) for p in signature.parameters.values()]
    return str(inspect.Signature(plain))


def _cure_of_no_function(value: Any) -> str:
    if callable(getattr(value, "apply", None)) and hasattr(value, "init"):
        return (
            "For a pair of `init` and `apply`, as Haiku's `transform` returns:"
            " `jax.tree_util.Partial(lambda params, x: network.apply(params, None, x[None])[0], params)`."
        )
    return (
        "For weights and the function that takes them: `jax.tree_util.Partial(apply, variables)`; for a Flax module"
        " `jaxattr.models.logits_fn(module, variables)`."
    )
