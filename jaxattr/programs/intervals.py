"""Bound the results of operations by intervals, from intervals of their operands.

Numbers are taken as finite and exact: a variance that rounding makes negative counts as non-negative.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp

from jaxattr.programs.interpreter import Equation
from jaxattr.programs.values import ANYTHING, SAME, Interval, Value, core, is_infinite, known, same


def interval(name: str, equation: Equation, values: Sequence[Value]) -> Interval:
    """Return an interval that holds the results of an operation."""
    try:
        low, high = _INTERVALS[name](equation, *values) if name in _INTERVALS else ANYTHING
    except (OverflowError, ValueError, ZeroDivisionError):
        return ANYTHING
    return ANYTHING if math.isnan(low) or math.isnan(high) else (low, high)


_LEAST = math.ulp(0.0)


def _monotone(function: Callable[[float], float], least: float = -math.inf) -> Callable[..., Interval]:
    def of(_, x: Value) -> Interval:
        return function(max(x.low, least)), function(max(x.high, least))

    return of


def _fixed(low: float, high: float) -> Callable[..., Interval]:
    return lambda *_: (low, high)


def _exp(x: float) -> float:
    # An exponential is never 0.
    return math.inf if x > 700 else max(math.exp(x), _LEAST)


def _log(x: float) -> float:
    return -math.inf if x <= 0 else math.log(x)


def _hull(_, *values: Value) -> Interval:
    return min(v.low for v in values), max(v.high for v in values)


def _times(a: Value, b: Value) -> Interval:
    # 0 * inf stands for an entry of 0 times a finite entry, which is 0.
    corners = [0.0 if 0 in (x, y) else x * y for x in (a.low, a.high) for y in (b.low, b.high)]
    return min(corners), max(corners)


def _mul(_, a: Value, b: Value) -> Interval:
    low, high = _times(a, b)
    return (max(low, 0.0), high) if same(a, b) else (low, high)


def _div(_, a: Value, b: Value) -> Interval:
    if b.low < 0 < b.high:
        return ANYTHING
    inverse = [math.inf if x == 0 else 1 / x for x in (b.low, b.high)]
    if b.high <= 0:
        inverse = [-math.inf if x == 0 else 1 / x for x in (b.low, b.high)]
    return _times(a, Value(low=min(inverse), high=max(inverse)))


def _sub(_, a: Value, b: Value) -> Interval:
    low, high = a.low - b.high, a.high - b.low
    return (max(low, 0.0), high) if _is_variance(a, b) else (low, high)


def _square(x: Value) -> Interval:
    ends = (x.low * x.low, x.high * x.high)
    return (0.0 if x.low <= 0 <= x.high else min(ends)), max(ends)


def _integer_pow(equation: Equation, x: Value) -> Interval:
    y = equation.params["y"]
    if y == 2:
        return _square(x)
    if y > 0 and y % 2 == 0:
        return 0.0, math.inf
    return (0.0, math.inf) if x.low >= 0 else ANYTHING


def _abs(_, x: Value) -> Interval:
    ends = (abs(x.low), abs(x.high))
    return (0.0 if x.low <= 0 <= x.high else min(ends)), max(ends)


def _sum(equation: Equation, x: Value) -> Interval:
    before, after = equation.invars[0].aval.size, max(equation.outvars[0].aval.size, 1)
    return _times(x, known(float(before // after)))


def _sign_of_sum(_, *values: Value) -> Interval:
    """Bound sums of products, whose number is unknown."""
    if all(v.low >= 0 for v in values):
        return 0.0, math.inf
    return ANYTHING


def _compare(decide: Callable[[Value, Value], bool | None]) -> Callable[..., Interval]:
    def of(_, a: Value, b: Value) -> Interval:
        answer = decide(a, b)
        return (0.0, 1.0) if answer is None else (float(answer), float(answer))

    return of


def _less(a: Value, b: Value) -> bool | None:
    if a.high < b.low:
        return True
    if a.number == 0 and is_norm(b):
        return True
    # Derivatives assume finite numbers, so that infinite ends are never attained.
    if a.low >= b.high or b.high == -math.inf or a.low == math.inf:
        return False
    return True if b.low == math.inf != a.high or a.high == -math.inf else None


def _equal(a: Value, b: Value) -> bool | None:
    if same(a, b):
        # x == x tests for NaN, and numbers are finite.
        return True
    if (a.number == 0 and is_norm(b)) or (b.number == 0 and is_norm(a)):
        return False
    if a.high < b.low or b.high < a.low or is_infinite(a) != is_infinite(b):
        return False
    return True if a.number is not None and a.number == b.number else None


def _not(answer: bool | None) -> bool | None:
    return None if answer is None else not answer


def _is_bool(equation: Equation) -> bool:
    return jnp.issubdtype(equation.outvars[0].aval.dtype, jnp.bool_)


def _bool(decide: Callable[..., float]) -> Callable[..., Interval]:
    return lambda equation, *v: (
        (decide(*(x.low for x in v)), decide(*(x.high for x in v))) if _is_bool(equation) else ANYTHING
    )


def _clamp(_, low: Value, x: Value, high: Value) -> Interval:
    return min(max(x.low, low.low), high.high), max(min(x.high, high.high), low.low)


def _iota(equation: Equation) -> Interval:
    return 0.0, float(equation.params["shape"][equation.params["dimension"]] - 1)


def _first(_, x: Value, *__: Value) -> Interval:
    return x.low, x.high


def _convert(equation: Equation, x: Value) -> Interval:
    dtype = equation.outvars[0].aval.dtype
    if jnp.issubdtype(dtype, jnp.bool_):
        return (0.0, 1.0) if x.number is None else (float(x.number != 0), float(x.number != 0))
    if jnp.issubdtype(dtype, jnp.integer) and x.number is not None:
        return float(int(x.number)), float(int(x.number))
    return x.low, x.high


_INTERVALS: dict[str, Callable[..., Interval]] = {
    **dict.fromkeys(SAME, _first),
    **dict.fromkeys(("reduce_max", "reduce_min", "cummax", "cummin", "stop_gradient"), _first),
    **dict.fromkeys(("dynamic_slice", "gather", "all_gather", "all_to_all", "ppermute", "device_put", "tile"), _first),
    **dict.fromkeys(("dot_general", "conv_general_dilated", "cumprod", "reduce_prod", "cumsum"), _sign_of_sum),
    **dict.fromkeys(("reduce_window_sum", "scatter-add", "psum", "reduce_scatter"), _sign_of_sum),
    **dict.fromkeys(("sin", "cos", "tanh", "erf", "sign"), _fixed(-1.0, 1.0)),
    **dict.fromkeys(("concatenate", "stack", "pad"), _hull),
    "convert_element_type": _convert,
    "select_n": lambda equation, _, *cases: _hull(equation, *cases),
    "neg": lambda _, x: (-x.high, -x.low),
    "add": lambda _, a, b: (a.low + b.low, a.high + b.high),
    "add_any": lambda _, a, b: (a.low + b.low, a.high + b.high),
    "sub": _sub,
    "mul": _mul,
    "div": _div,
    "square": lambda _, x: _square(x),
    "integer_pow": _integer_pow,
    "pow": lambda _, x, __: (0.0, math.inf) if x.low >= 0 else ANYTHING,
    "abs": _abs,
    "exp": _monotone(_exp),
    "exp2": _monotone(lambda x: _exp(x * math.log(2))),
    "expm1": _monotone(lambda x: _exp(x) - 1),
    "log": _monotone(_log),
    "log2": _monotone(lambda x: _log(x) / math.log(2)),
    "one_minus_square": lambda _, x: (1 - max(x.low**2, x.high**2), 1.0),
    "log1p": _monotone(lambda x: _log(1 + x)),
    "sqrt": _monotone(math.sqrt, 0.0),
    "rsqrt": _fixed(0.0, math.inf),
    "logistic": _fixed(_LEAST, 1.0),
    "erfc": _fixed(0.0, 2.0),
    "cosh": _fixed(1.0, math.inf),
    "max": lambda _, a, b: (max(a.low, b.low), max(a.high, b.high)),
    "min": lambda _, a, b: (min(a.low, b.low), min(a.high, b.high)),
    "clamp": _clamp,
    "reduce_sum": _sum,
    "iota": _iota,
    "lt": _compare(_less),
    "gt": _compare(lambda a, b: _less(b, a)),
    "le": _compare(lambda a, b: _not(_less(b, a))),
    "ge": _compare(lambda a, b: _not(_less(a, b))),
    "eq": _compare(_equal),
    "ne": _compare(lambda a, b: _not(_equal(a, b))),
    "is_finite": _fixed(1.0, 1.0),
    "not": lambda equation, x: (1 - x.high, 1 - x.low) if _is_bool(equation) else ANYTHING,
    "and": _bool(min),
    "or": _bool(max),
}


# Recognize variances and norms, which are not negative


def _squared(value: Value) -> Value | None:
    """Return the value whose square this is, or ``None``."""
    value = core(value)
    if value.operation == "square" or (value.operation == "integer_pow" and value.options["y"] == 2):
        return value.operands[0]
    if value.operation == "mul" and same(*value.operands):
        return value.operands[0]
    return None


def _averaged(value: Value) -> tuple[Value, Any] | None:
    """Return the value whose mean this is, with the axes of the mean, or ``None``."""
    value = core(value)
    while value.operation in ("div", "mul", "psum") and not any(v.depends for v in value.operands[1:]):
        value = core(value.operands[0])
    if value.operation != "reduce_sum":
        return None
    axes, entry = value.options["axes"], core(value.operands[0])
    if entry.operation == "select_n" and not entry.operands[0].depends:
        # Look through a mask, which puts zeros in the place of entries that do not count.
        inside = [case for case in entry.operands[1:] if case.number != 0]
        entry = core(inside[0]) if len(inside) == 1 else entry
    return entry, axes


def _is_variance(a: Value, b: Value) -> bool:
    """Return whether ``a - b`` is the mean of a square less the square of the mean."""
    mean = _squared(b)
    of_squares, of_values = _averaged(a), _averaged(mean) if mean is not None else None
    if of_squares is None or of_values is None or of_squares[1] != of_values[1]:
        return False
    squared = _squared(of_squares[0])
    return squared is not None and same(squared, of_values[0])


def is_norm(value: Value) -> bool:
    """Return whether a value is a sum of squares or its root, which touches 0 at single points only."""
    value = core(value)
    while value.operation in ("sqrt", "div", "mul") and not any(v.depends for v in value.operands[1:]):
        value = core(value.operands[0])
    return value.operation == "reduce_sum" and _squared(value.operands[0]) is not None
