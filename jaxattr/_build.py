"""Build methods from text such as ``integrated_gradients(num_steps=5, rule='gauss_legendre')``.

Commands, configurations and records name methods by such text. :func:`parse` reads it without building anything, and
refuses names and options that do not exist; :func:`build` builds the method, with the arguments that the text leaves to
its surroundings (an attribution, a ball, a random key).
"""

import ast
import difflib
import functools
import inspect
import operator
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from jaxattr import attacks, attributions, bounds, metrics, outputs
from jaxattr._spec import same
from jaxattr.balls import L2, LInf

Registry = Mapping[str, Callable[..., Any]]

_ARITHMETIC = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv}


class Call:
    """A call of a constructor, as text names it: nothing is built yet.

    Two calls are equal if their canonical texts and their constructors are.

    Attributes:
      name: of the constructor.
      constructor: the function that builds the method.
      arguments: the values that the text gives, by parameter and in the constructor's order. A nested call is a
        :class:`Call`; values of a ``*parameter`` are one tuple.
    """

    def __init__(
        self,
        name: str,
        constructor: Callable[..., Any],
        arguments: Mapping[str, Any] | None = None,
        *,
        bind: bool = False,
        reference: bool = False,
    ):
        self.name, self.constructor, self.arguments = name, constructor, dict(arguments or {})
        # A function that text names without calling it is passed on as it is.
        self._bind, self._reference = bind, reference
        self._signature = _signature(constructor)

    def __str__(self) -> str:
        """Return the canonical text: required values first, then options that differ from their defaults."""
        inside = self._inside()
        return f"{self.name}({inside})" if inside else self.name

    def __repr__(self) -> str:
        return f"Call({str(self)!r})"

    def __eq__(self, other: Any) -> bool:
        if not isinstance(other, Call):
            return NotImplemented
        return self.constructor is other.constructor and str(self) == str(other)

    def __hash__(self) -> int:
        return hash(str(self))

    def accepts(self, name: str) -> bool:
        """Return whether the constructor has a parameter of this name."""
        return name in self._signature.parameters and not self._reference

    def replace(self, arguments: Mapping[str, Any]) -> "Call":
        """Return the call with other arguments."""
        return Call(self.name, self.constructor, arguments, bind=self._bind, reference=self._reference)

    def build(self, **context: Any) -> Any:
        """Build the method.

        Args:
          **context: values by the names of parameters. A required parameter that the text leaves open takes its value
            from here, in nested calls, too; so does ``key`` wherever a constructor has a parameter of that name.

        Raises:
          ValueError: if a required parameter is neither in the text nor in the context, or by the constructor.
          TypeError: by the constructor.
        """
        if self._reference:
            return self.constructor
        given = {name: _built(value, context) for name, value in self.arguments.items()}
        if self._bind:
            return functools.partial(self.constructor, **given) if given else self.constructor
        missing, positional, keywords = [], [], {}
        for name, parameter in self._signature.parameters.items():
            required = _is_required(parameter)
            if name not in given and name in context and (required or name == "key"):
                given[name] = context[name]
            if name not in given:
                missing += [name] if required else []
            elif parameter.kind is parameter.VAR_POSITIONAL:
                positional += given[name]
            elif required and parameter.kind is not parameter.KEYWORD_ONLY:
                positional.append(given[name])
            else:
                keywords[name] = given[name]
        if missing:
            raise ValueError(
                f"`{self}` lacks {_listed(missing)}: give it in the text, as in"
                f" `{self.name}({', '.join(f'{name}=...' for name in missing)})`, or to `build` as"
                f" `{missing[0]}=`. `{self.name}` accepts {_options(self._signature)}."
            )
        try:
            return self.constructor(*positional, **keywords)
        except (TypeError, ValueError) as error:
            # Errors of JAX have constructors of their own, and say where they come from.
            if type(error) not in (TypeError, ValueError):
                raise
            raise type(error)(f"`{self}`: {error}") from error

    def _inside(self) -> str:
        shown, in_order = [], True
        for name, parameter in self._signature.parameters.items():
            if name not in self.arguments:
                in_order &= not _is_required(parameter)
                continue
            value = self.arguments[name]
            if parameter.kind is parameter.VAR_POSITIONAL:
                shown += map(_text, value)
            elif _is_required(parameter):
                in_order &= parameter.kind is not parameter.KEYWORD_ONLY
                shown.append(_text(value) if in_order else f"{name}={_text(value)}")
            elif isinstance(value, Call) or not same(value, parameter.default):
                shown.append(f"{name}={_text(value)}")
        return ", ".join(shown)

    def _nested(self) -> str:
        return self.name if self._reference else f"{self.name}({self._inside()})"


def parse(registry: Registry, text: str, *, bind: bool = False) -> Call:
    """Read a method from text, such as ``ifia(dissimilarity=top_k(100), num_steps=20)`` or just ``saliency``.

    The text is a call, or a name alone, of an entry of the registry. Its values are numbers (``8 / 255`` is one),
    strings, ``None``, booleans, tuples and lists; calls of any method, dissimilarity, objective or ball of the library
    or of the registry; and names of outputs and metrics.

    Args:
      registry: constructors by name, such as ``jaxattr.attributions.REGISTRY``.
      text: the call.
      bind: for registries of plain functions, such as ``jaxattr.metrics.REGISTRY``: ``kendall_tau(nonzero_only=True)``
        is that function with its option set.

    Returns:
      A :class:`Call`. ``str(call)`` is the canonical text, the same for equal calls.

    Raises:
      ValueError: if the text is no such call, or a name or an option does not exist.

    Example:
      >>> import jaxattr as ja
      >>> call = ja.parse(ja.attributions.REGISTRY, "integrated_gradients(50, baseline=0.5, rule='midpoint')")
      >>> str(call), call.accepts("key")
      ('integrated_gradients(baseline=0.5)', False)
      >>> call.build()
      integrated_gradients(baseline=0.5)
    """
    if not isinstance(text, str):
        raise ValueError(f"a method is named by text such as `saliency`, got {type(text).__name__}: {text!r}.")
    try:
        expression = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError) as error:
        reason = error.msg if isinstance(error, SyntaxError) else str(error)
        raise ValueError(
            f"`{text}` is not a call such as `name(option=value)`: {reason}. Names are {_listed(registry)}."
        ) from error
    return _Reader(text, registry, bind).top(expression)


def build(registry: Registry, text: str, *, bind: bool = False, **context: Any) -> Any:
    """Build a method from text, :func:`parse` and :meth:`Call.build` in one.

    Args:
      registry: constructors by name, such as ``jaxattr.attacks.REGISTRY``.
      text: the call, such as ``ifia(dissimilarity=top_k(100), num_steps=20)``.
      bind: see :func:`parse`.
      **context: values of parameters that the text leaves open, such as ``ball``, ``attribute`` and ``key``.

    Returns:
      The method.

    Raises:
      ValueError: if the text is no call of the registry, or a value is missing; by the constructor.
      TypeError: by the constructor.

    Example:
      >>> import jaxattr as ja
      >>> ja.build(
      ...     ja.attacks.REGISTRY,
      ...     "ifia(dissimilarity=top_k(100), num_steps=20)",
      ...     ball=ja.LInf(0.1),
      ...     attribute=ja.attributions.saliency(),
      ... ).name
      'ifia'
      >>> ja.build(ja.metrics.REGISTRY, "kendall_tau(nonzero_only=True)", bind=True).keywords
      {'nonzero_only': True}
    """
    return parse(registry, text, bind=bind).build(**context)


def constructors() -> dict[str, Callable[..., Any]]:
    """Return all constructors of the library that text can call, by name."""
    return {
        "L2": L2,
        "LInf": LInf,
        **attributions.REGISTRY,
        "explaining": outputs.explaining,
        **bounds.REGISTRY,
        **{name: getattr(bounds, name) for name in ("corrected", "label_constrained", "rank_guarantee", "smallest")},
        **attacks.REGISTRY,
        **{name: getattr(attacks, name) for name in ("restarts", "worst_direction")},
        **attacks.DISSIMILARITIES,
        **attacks.OBJECTIVES,
    }


def functions() -> dict[str, Callable[..., Any]]:
    """Return the functions that text can name without a call: metrics and outputs."""
    return {**metrics.REGISTRY, **outputs.REGISTRY}


class _Reader:
    """A reader of one text."""

    def __init__(self, text: str, registry: Registry, bind: bool):
        self._text, self._registry, self._bind = text, registry, bind
        self._functions = functions()
        self._constructors = {**constructors(), **({} if bind else registry)}

    def top(self, node: ast.expr) -> Call:
        """Read the outermost call, whose name is one of the registry."""
        name, positional, keywords = self._parts(node)
        if name not in self._registry:
            raise self._unknown(name, self._registry)
        return self._call(name, self._registry[name], positional, keywords, self._bind)

    def _value(self, node: ast.expr) -> Any:
        if isinstance(node, (ast.Tuple, ast.List)):
            values = [self._value(one) for one in node.elts]
            return tuple(values) if isinstance(node, ast.Tuple) else values
        if isinstance(node, ast.Name):
            if node.id in self._functions:
                return Call(node.id, self._functions[node.id], reference=True)
            return self._nested(node)
        if isinstance(node, ast.Call):
            return self._nested(node)
        if isinstance(node, ast.BinOp) and type(node.op) in _ARITHMETIC:
            sides = self._value(node.left), self._value(node.right)
            if all(isinstance(side, (int, float)) for side in sides):
                try:
                    return _ARITHMETIC[type(node.op)](*sides)
                except ArithmeticError as error:
                    raise self._refused(node, str(error)) from error
        try:
            return ast.literal_eval(node)
        except ValueError as error:
            raise self._refused(node, "it is no number, string, tuple, list, call or name") from error

    def _nested(self, node: ast.expr) -> Call:
        name, positional, keywords = self._parts(node)
        if name in self._constructors:
            return self._call(name, self._constructors[name], positional, keywords, bind=False)
        if name in self._functions:
            return self._call(name, self._functions[name], positional, keywords, bind=True)
        raise self._unknown(name, {**self._constructors, **self._functions})

    def _parts(self, node: ast.expr) -> tuple[str, list[ast.expr], list[ast.keyword]]:
        """Return the name and the arguments of a call, or of a name alone."""
        called = node.func if isinstance(node, ast.Call) else node
        if not isinstance(called, ast.Name):
            raise self._refused(node, "a call such as `name(option=value)` is wanted")
        return (called.id, node.args, node.keywords) if isinstance(node, ast.Call) else (called.id, [], [])

    def _call(
        self,
        name: str,
        constructor: Callable[..., Any],
        positional: list[ast.expr],
        keywords: list[ast.keyword],
        bind: bool,
    ) -> Call:
        signature = _signature(constructor)
        parameters = {
            key: parameter for key, parameter in signature.parameters.items() if not (bind and _is_required(parameter))
        }
        given: dict[str, Any] = {}
        slots = [] if bind else [one for one in parameters.values() if one.kind is not one.KEYWORD_ONLY]
        for node in positional:
            if isinstance(node, ast.Starred):
                raise self._refused(node, "arguments are written out")
            if not slots or slots[0].kind is inspect.Parameter.VAR_KEYWORD:
                count = len(positional) - len(positional[positional.index(node) :])
                raise self._refused(
                    node,
                    f"`{name}` takes {count or 'no'} values without a name: it accepts {_options(signature, bind)}",
                )
            value = self._value(node)
            if slots[0].kind is inspect.Parameter.VAR_POSITIONAL:
                given[slots[0].name] = (*given.get(slots[0].name, ()), value)
            else:
                given[slots.pop(0).name] = value
        for keyword in keywords:
            if keyword.arg is None:
                raise self._refused(keyword.value, "options are written out")
            parameter = parameters.get(keyword.arg)
            if parameter is None or parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
                raise ValueError(
                    f"`{self._text}`: `{name}` has no option `{keyword.arg}`{_nearest(keyword.arg, parameters)}."
                    f" It accepts {_options(signature, bind)}."
                )
            if keyword.arg in given:
                raise ValueError(f"`{self._text}`: `{name}` is given `{keyword.arg}` twice.")
            given[keyword.arg] = self._value(keyword.value)
        in_order = {key: given[key] for key in signature.parameters if key in given}
        return Call(name, constructor, in_order, bind=bind)

    def _unknown(self, name: str, known: Iterable[str]) -> ValueError:
        return ValueError(f"`{self._text}`: there is no `{name}`{_nearest(name, known)}. Names are {_listed(known)}.")

    def _refused(self, node: ast.AST, reason: str) -> ValueError:
        return ValueError(f"`{self._text}`: `{ast.unparse(node)}` is not accepted, {reason}.")


def _signature(constructor: Callable[..., Any]) -> inspect.Signature:
    return inspect.signature(constructor)


def _is_required(parameter: inspect.Parameter) -> bool:
    variable = parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
    return parameter.default is parameter.empty and not variable


def _built(value: Any, context: Mapping[str, Any]) -> Any:
    if isinstance(value, Call):
        return value.build(**context)
    if isinstance(value, (tuple, list)):
        return type(value)(_built(one, context) for one in value)
    return value


def _text(value: Any) -> str:
    """Return a value as it is written in code."""
    if isinstance(value, Call):
        return value._nested()
    if isinstance(value, list):
        return f"[{', '.join(map(_text, value))}]"
    if isinstance(value, tuple):
        return f"({', '.join(map(_text, value))}{',' if len(value) == 1 else ''})"
    return repr(value)


def _options(signature: inspect.Signature, bind: bool = False) -> str:
    """List the parameters of a constructor, with their defaults."""
    shown = []
    for name, parameter in signature.parameters.items():
        if parameter.kind is parameter.VAR_POSITIONAL:
            shown.append(f"*{name}")
        elif not _is_required(parameter):
            shown.append(f"{name}={parameter.default!r}")
        elif not bind:
            shown.append(name)
    return ", ".join(shown) or "no options"


def _listed(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def _nearest(name: str, known: Iterable[str]) -> str:
    # `steps` is short for `num_steps`, although more letters of `step_size` agree.
    near = [one for one in known if name in one] or difflib.get_close_matches(name, list(known), 1)
    return f" (did you mean `{near[0]}`?)" if near else ""
