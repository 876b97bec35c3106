"""Define rules that replace operations with kinks by smooth ones, for :mod:`jaxattr.programs.smooth`."""

import functools
from collections.abc import Callable, Collection, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.extend.core import ClosedJaxpr, Literal

from jaxattr import _activations, _windows
from jaxattr.programs import kinks, names, source
from jaxattr.programs.interpreter import Equation, Interpreter, Path, Rule, body, function, trace


class Smoother(Interpreter):
    """An interpreter that replaces the operations ``at`` the given paths by smooth ones.

    Args:
      beta: sharpness of all of them; a number, or a traced one.
      pooling: see :func:`jaxattr.programs.smooth.smooth`.
      at: as in :class:`~jaxattr.programs.interpreter.Interpreter`.
    """

    def __init__(self, beta: Any, pooling: str, at: Collection[Path]):
        super().__init__(_PRIMITIVES, _FUNCTIONS, at)
        self.beta, self.pooling = beta, pooling
        # Map the identity of a result, which is kept alive, to the operation that made it and its operands.
        self._origins: dict[int, tuple[Any, str, tuple[Any, ...]]] = {}

    def within(self, at: Collection[Path]) -> "Smoother":
        """Return a smoother for other paths, with a copy of the remembered operations."""
        other = Smoother(self.beta, self.pooling, at)
        other._origins = dict(self._origins)
        return other

    def walk(self, program: ClosedJaxpr, values: Sequence[Any], path: Path) -> list[Any]:
        """Evaluate a program, and then forget the operations remembered in it, as JAX forgets its tracers."""
        before = self._origins
        self._origins = dict(before)
        try:
            return super().walk(program, values, path)
        finally:
            self._origins = before

    def apply(self, equation: Equation, *values: Any) -> list[Any]:
        """Evaluate an operation, and remember it if a choice may be recognized by it."""
        results = super().apply(equation, *values)
        if equation.primitive.name in _REMEMBERED:
            self._origins[id(results[0])] = (results[0], equation.primitive.name, values)
        return results

    def origin(self, value: Any) -> tuple[str, tuple[Any, ...]]:
        """Return the operation that made a value, and its operands; an empty name where it is not known."""
        _, name, operands = self._origins.get(id(value), (None, "", ()))
        return name, operands

    def core(self, value: Any) -> Any:
        """Return a value as it was before it was broadcast or converted."""
        while self.origin(value)[0] in _CARRYING:
            value = self.origin(value)[1][0]
        return value

    def number(self, value: Any) -> float | None:
        """Return a value as a number, or ``None`` unless it is one known number."""
        value = self.core(value)
        known = isinstance(value, (int, float, np.generic, np.ndarray)) and np.size(value) == 1
        return float(np.asarray(value).item()) if known else None

    def scaled(self, function: Callable[..., Array], *values: Any) -> Array:
        """Evaluate ``function(beta * values) / beta``, which gives a function of sharpness 1 the sharpness ``beta``."""
        dtype = jnp.result_type(*values)
        beta = jnp.asarray(self.beta, dtype) if isinstance(self.beta, jax.Array) else self.beta
        return function(*(jnp.asarray(value, dtype) * beta for value in values)) / beta

    def plus(self, z: Any) -> Array:
        """Return the smooth ``max(z, 0)``."""
        return self.scaled(_activations.softplus, z)

    def larger(self, a: Any, b: Any) -> Array:
        """Return the smooth ``max(a, b)``."""
        for z, other in ((a, b), (b, a)):
            if self.number(other) == 0:
                return self.plus(z)
        return self.scaled(_activations.larger, a, b)

    def smaller(self, a: Any, b: Any) -> Array:
        """Return the smooth ``min(a, b)``."""
        return -self.larger(*(0.0 if self.number(value) == 0 else -value for value in (a, b)))

    def between(self, z: Any, low: float, high: float) -> Array:
        """Return the smooth ``clip(z, low, high)``."""
        return self.scaled(_activations.between, z, low, high)

    def elu(self, z: Any, scale: Any, width: Any) -> Array:
        """Return the smooth ELU: ``z`` where it is positive, ``scale * (exp(z / width) - 1)`` elsewhere."""
        return self.plus(z) + scale * jnp.expm1(-self.plus(-z) / width)


# These operations identify a choice between two numbers as a maximum or an activation.
_CARRYING = ("broadcast_in_dim", "convert_element_type", "reshape", "squeeze", "copy")
_COMPARING = {"gt": 1, "ge": 1, "lt": -1, "le": -1}
_REMEMBERED = frozenset((*_CARRYING, *_COMPARING, "mul", "neg"))


def _real(rule: Callable[..., Any]) -> Rule:
    """Restrict a rule to floating-point numbers and to one result."""

    @functools.wraps(rule)
    def asked(smoother: Smoother, equation: Equation, *values: Any) -> Any:
        if not all(jnp.issubdtype(atom.aval.dtype, jnp.floating) for atom in (*equation.invars[:1], *equation.outvars)):
            return NotImplemented
        result = rule(smoother, equation, *values)
        return result if result is NotImplemented else [result.astype(equation.outvars[0].aval.dtype)]

    return asked


# Define rules for primitive operations


@_real
def _max(smoother: Smoother, equation: Equation, a: Any, b: Any) -> Array:
    return smoother.larger(a, b) if equation.primitive.name == "max" else smoother.smaller(a, b)


@_real
def _abs(smoother: Smoother, _: Equation, z: Any) -> Array:
    return smoother.scaled(_activations.larger, z, -z)


def _clamp(smoother: Smoother, equation: Equation, low: Any, z: Any, high: Any) -> Any:
    if not jnp.issubdtype(equation.outvars[0].aval.dtype, jnp.floating):
        return NotImplemented
    return [_clipped(smoother, z, low, high).astype(equation.outvars[0].aval.dtype)]


def _clipped(smoother: Smoother, z: Any, low: Any, high: Any) -> Array:
    least, most = smoother.number(low), smoother.number(high)
    if least is not None and most is not None and least < most:
        return smoother.between(z, least, most)
    return smoother.smaller(smoother.larger(z, low), high)


@_real
def _reduce_max(smoother: Smoother, equation: Equation, x: Any) -> Array:
    axes = tuple(map(int, equation.params["axes"]))
    if smoother.pooling == "average":
        return jnp.mean(x, axes)
    count = np.prod([x.shape[axis] for axis in axes])
    return _extreme(smoother, equation, x, lambda z: _windows.log_sum_exp_along(z, axes), np.asarray(count))


@_real
def _reduce_window_max(smoother: Smoother, equation: Equation, x: Any) -> Array:
    options = equation.params
    windows = _windows.Windows(
        options["window_dimensions"],
        options["window_strides"],
        options["padding"],
        options["base_dilation"],
        options["window_dilation"],
    )
    if smoother.pooling == "average":
        return _windows.mean(x, windows)
    counts = _windows.counts(x.shape, windows)
    return _extreme(smoother, equation, x, lambda z: _windows.log_sum_exp(z, windows), counts)


def _reduce_window(smoother: Smoother, equation: Equation, *values: Any) -> Any:
    """Replace a maximum over windows whose initial value is not known while tracing, such as an argument."""
    inside = [each.primitive.name for each in equation.params["jaxpr"].eqns]
    if len(values) != 2 or len(inside) != 1 or inside[0] not in ("max", "min"):
        return NotImplemented
    results = _reduce_window_max(smoother, equation, values[0])
    if results is NotImplemented or smoother.pooling == "average":
        return results
    aval, join = equation.outvars[0].aval, smoother.larger if inside[0] == "max" else smoother.smaller
    return [join(results[0], values[1]).astype(aval.dtype)]


def _extreme(smoother: Smoother, equation: Equation, x: Array, of: Callable[[Array], Array], counts: Any) -> Array:
    """Return the smooth maximum or minimum of groups; ``counts`` has the number of entries of each."""
    inside = equation.params["jaxpr"].eqns if "jaxpr" in equation.params else ()
    name = inside[0].primitive.name if inside else equation.primitive.name
    sign = -1 if name.endswith("min") else 1

    def function(z):
        total = of(sign * z)
        if smoother.pooling == "logmeanexp":
            total = total - np.log(counts).astype(z.dtype)
        return sign * total

    return smoother.scaled(function, x)


@_real
def _cummax(smoother: Smoother, equation: Equation, x: Any) -> Array:
    options, sign = equation.params, -1 if equation.primitive.name == "cummin" else 1
    return smoother.scaled(
        lambda z: sign * lax.cumlogsumexp(sign * z, axis=options["axis"], reverse=options["reverse"]), x
    )


def _select(smoother: Smoother, equation: Equation, which: Any, *cases: Any) -> Any:
    """Replace a choice that is a maximum, ``where(a > b, a, b)``, or an activation, ``where(z > 0, z, slope * z)``."""
    aval = equation.outvars[0].aval
    name, compared = smoother.origin(smoother.core(which))
    if len(cases) != 2 or name not in _COMPARING or not jnp.issubdtype(aval.dtype, jnp.floating):
        return NotImplemented
    # Order the operands such that the comparison is `a > b`.
    a, b = (smoother.core(value) for value in compared[:: _COMPARING[name]])
    lower, upper = map(smoother.core, cases)
    if _same(smoother, upper, a) and _same(smoother, lower, b):
        result = smoother.larger(a, b)
    elif _same(smoother, upper, b) and _same(smoother, lower, a):
        result = smoother.smaller(a, b)
    else:
        if smoother.number(a) == 0:
            a, b, lower, upper = b, a, upper, lower
        below, above = (_factor(smoother, case, a) for case in (lower, upper))
        if smoother.number(b) != 0 or below is None or above is None:
            return NotImplemented
        result = below * a + (above - below) * smoother.plus(a)
    return [jnp.broadcast_to(result, aval.shape).astype(aval.dtype)]


def _same(smoother: Smoother, a: Any, b: Any) -> bool:
    number = smoother.number(a)
    return a is b or (number is not None and number == smoother.number(b))


def _factor(smoother: Smoother, value: Any, z: Any) -> Any:
    """Return the factor by which a value is a multiple of z, or ``None``."""
    if value is z or smoother.number(value) == 0:
        return 1.0 if value is z else 0.0
    name, operands = smoother.origin(value)
    if name == "neg":
        return -1.0 if smoother.core(operands[0]) is z else None
    if name == "mul":
        for factor, other in (operands, operands[::-1]):
            if smoother.core(other) is z:
                return factor
    return None


_PRIMITIVES: dict[str, Rule] = {
    "max": _max,
    "min": _max,
    "abs": _abs,
    "clamp": _clamp,
    "reduce_max": _reduce_max,
    "reduce_min": _reduce_max,
    "reduce_window_max": _reduce_window_max,
    "reduce_window_min": _reduce_window_max,
    "reduce_window": _reduce_window,
    "cummax": _cummax,
    "cummin": _cummax,
    "select_n": _select,
}


# Define rules for functions that JAX traces as a unit


def _inside(smoother: Smoother, equation: Equation, *values: Any) -> Any:
    """Evaluate a function after replacing its operations with kinks one by one."""
    inner = body(equation)
    found = kinks.find(inner, [True] * len(values)) if inner else []
    if inner is None or not found:
        return smoother.bind(equation, *values)

    def evaluate(*values: Any) -> list[Any]:
        return smoother.within([each.path for each in found]).walk(inner, values, ())

    # Leave a function as it is if some kinks cannot be replaced, so that the refusal names the function.
    program, _ = trace(evaluate, *values)
    left = kinks.find(program, [True] * len(values))
    return smoother.bind(equation, *values) if left else evaluate(*values)


def _of_jax(rule: Rule) -> Rule:
    """Restrict a rule to functions of JAX; other functions of the same name are entered."""

    @functools.wraps(rule)
    def asked(smoother: Smoother, equation: Equation, *values: Any) -> Any:
        named = function(equation)
        known = named is not None and named.file is not None and source.package(named.file) == "jax"
        answer = rule(smoother, equation, *values) if known else NotImplemented
        return _inside(smoother, equation, *values) if answer is NotImplemented else answer

    return asked


def _parameter(equation: Equation, values: Any) -> Any:
    """Return the second argument of an activation: an operand, or the first factor that its program contains."""
    if len(values) > 1:
        return values[1]
    inner = body(equation)
    for each in inner.jaxpr.eqns if inner else ():
        if each.primitive.name == "mul":
            for atom in each.invars:
                if isinstance(atom, Literal):
                    return atom.val
    return None


def _activation(rule: Callable[..., Any]) -> Rule:
    return _of_jax(_real(rule))


@_activation
def _relu(smoother: Smoother, _: Equation, z: Any) -> Array:
    return smoother.plus(z)


@_activation
def _relu6(smoother: Smoother, _: Equation, z: Any) -> Array:
    return smoother.between(z, 0.0, 6.0)


@_activation
def _hard_tanh(smoother: Smoother, _: Equation, z: Any) -> Array:
    return smoother.between(z, -1.0, 1.0)


@_activation
def _hard_sigmoid(smoother: Smoother, _: Equation, z: Any) -> Array:
    return smoother.between(z + 3, 0.0, 6.0) / 6


@_activation
def _hard_silu(smoother: Smoother, _: Equation, z: Any) -> Array:
    return z * smoother.between(z + 3, 0.0, 6.0) / 6


@_activation
def _leaky_relu(smoother: Smoother, equation: Equation, *values: Any) -> Any:
    z, slope = values[0], _parameter(equation, values)
    return NotImplemented if slope is None else slope * z + (1 - slope) * smoother.plus(z)


@_activation
def _elu(smoother: Smoother, equation: Equation, *values: Any) -> Any:
    alpha = _parameter(equation, values)
    return NotImplemented if alpha is None else smoother.elu(values[0], alpha, 1.0)


@_activation
def _celu(smoother: Smoother, equation: Equation, *values: Any) -> Any:
    alpha = _parameter(equation, values)
    return NotImplemented if alpha is None else smoother.elu(values[0], alpha, alpha)


@_activation
def _selu(smoother: Smoother, _: Equation, z: Any) -> Array:
    # Klambauer et al. 2017 give these constants.
    return 1.0507009873554804934193349852946 * smoother.elu(z, 1.6732632423543772848170429916717, 1.0)


@_of_jax
def _clip(smoother: Smoother, equation: Equation, *values: Any) -> Any:
    if len(values) != 3 or not jnp.issubdtype(equation.outvars[0].aval.dtype, jnp.floating):
        return NotImplemented
    z, low, high = values
    return [_clipped(smoother, z, low, high).astype(equation.outvars[0].aval.dtype)]


_FUNCTIONS: dict[str, Rule] = {
    **dict.fromkeys(names.KINKED_FUNCTIONS, _inside),
    "relu": _relu,
    "relu6": _relu6,
    "hard_tanh": _hard_tanh,
    "hard_sigmoid": _hard_sigmoid,
    "hard_silu": _hard_silu,
    "hard_swish": _hard_silu,
    "leaky_relu": _leaky_relu,
    "elu": _elu,
    "celu": _celu,
    "selu": _selu,
    "clip": _clip,
}
