"""Track kinked terms of the results of operations, while they may still cancel (:mod:`jaxattr.programs.values`)."""

import dataclasses
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from jaxattr.programs.interpreter import Equation
from jaxattr.programs.values import SAME, Layout, Term, Terms, Value, is_infinite


def terms(name: str, equation: Equation, values: Sequence[Value]) -> tuple[Terms, bool, int]:
    """Return the terms of a result, whether they stand in an exponent, and the kinks of terms that are lost.

    Args:
      name: of the operation.
      equation: the operation.
      values: its operands.
    """
    moved, lost = [], 0
    for index, value in enumerate(values):
        kept, gone = _moved(name, equation, index, value)
        moved.append(dataclasses.replace(value, terms=kept, exponential=value.exponential and bool(kept)))
        lost |= gone
    answer = _TERMS[name](equation, *moved) if name in _TERMS and any(value.terms for value in moved) else None
    if answer is not None:
        return answer[0], answer[1] and bool(answer[0]), lost
    for value in moved:
        lost |= value.all_kinks
    return {}, False, lost


def _same_terms(_, x: Value) -> tuple[Terms, bool]:
    return x.terms, x.exponential


def _of_power(power: Callable[[Equation], float]) -> Callable[..., tuple[Terms, bool] | None]:
    return lambda equation, x: (_scaled(x, power(equation)), True) if x.exponential else None


def _of_exp(factor: float) -> Callable[..., tuple[Terms, bool] | None]:
    return lambda _, x: None if x.exponential else (_scaled(x, factor), True)


def _exponential_alone(_, x: Value) -> tuple[Terms, bool] | None:
    return (x.terms, True) if x.exponential else None


def _moved(name: str, equation: Equation, index: int, value: Value) -> tuple[Terms, int]:
    """Return an operand's terms, with layouts as in the result, and the kinks of terms that have none."""
    if not value.terms:
        return {}, 0
    move = _LAYOUTS.get(name, lambda *_: lambda axis: axis)(equation, index)
    kept: dict[tuple[Term, Layout], float] = {}
    lost = 0
    for (term, layout), share in value.terms.items():
        axes = [axis for axis in map(move, layout) if axis is not None]
        if len(axes) == len(layout):
            kept[term, tuple(map(int, axes))] = share
        else:
            lost |= term.kinks
    return kept, lost


def _dropped(gone: Iterable[Any]) -> Callable[[int], int | None]:
    gone = {int(axis) for axis in gone}
    return lambda axis: None if axis in gone else axis - sum(other < axis for other in gone)


def _inserted(new: Iterable[Any], rank: int) -> Callable[[int], int | None]:
    return [axis for axis in range(rank) if axis not in new].__getitem__


def _if_as_long(equation: Equation, index: int) -> Callable[[int], int | None]:
    before, after = equation.invars[index].aval.shape, equation.outvars[0].aval.shape
    return lambda axis: axis if before[axis] == after[axis] else None


def _reshaped(equation: Equation, _: int) -> Callable[[int], int | None]:
    before, after = equation.invars[0].aval.shape, equation.outvars[0].aval.shape

    def move(axis: int) -> int | None:
        place = (math.prod(before[:axis]), before[axis])
        return next((i for i, size in enumerate(after) if (math.prod(after[:i]), size) == place), None)

    return move


def _contracted(equation: Equation, index: int) -> Callable[[int], int | None]:
    contracted, batch = equation.params["dimension_numbers"]
    free = [
        [axis for axis in range(len(atom.aval.shape)) if axis not in (*contracted[i], *batch[i])]
        for i, atom in enumerate(equation.invars)
    ]
    order = [*batch[index], *([None] * len(free[0]) if index else []), *free[index]]
    return lambda axis: order.index(axis) if axis in order else None


_LAYOUTS: dict[str, Callable[[Equation, int], Callable[[int], int | None]]] = {
    "broadcast_in_dim": lambda equation, _: equation.params["broadcast_dimensions"].__getitem__,
    "reshape": _reshaped,
    "transpose": lambda equation, _: list(equation.params["permutation"]).index,
    "squeeze": lambda equation, _: _dropped(equation.params["dimensions"]),
    "expand_dims": lambda equation, _: _inserted(equation.params["dimensions"], len(equation.outvars[0].aval.shape)),
    "slice": _if_as_long,
    "pad": _if_as_long,
    "rev": lambda equation, _: lambda axis: None if axis in equation.params["dimensions"] else axis,
    "reduce_sum": lambda equation, _: _dropped(equation.params["axes"]),
    "cumsum": lambda equation, _: lambda axis: None if axis == equation.params["axis"] else axis,
    "concatenate": lambda equation, _: lambda axis: None if axis == equation.params["dimension"] else axis,
    "dot_general": _contracted,
}


def _scaled(value: Value, factor: float) -> Terms:
    return {term: factor * share for term, share in value.terms.items()}


def _added(a: Terms, b: Terms, sign: float) -> Terms:
    total = dict(a)
    for term, share in b.items():
        total[term] = total.get(term, 0.0) + sign * share
    return {term: share for term, share in total.items() if abs(share) > 1e-6}


def _of_sum(sign: float) -> Callable[..., tuple[Terms, bool] | None]:
    def rule(_, a: Value, b: Value) -> tuple[Terms, bool] | None:
        return _of_choice(_, a, b) if a.exponential or b.exponential else (_added(a.terms, b.terms, sign), False)

    return rule


def _of_product(sign: float) -> Callable[..., tuple[Terms, bool] | None]:
    def rule(equation: Equation, a: Value, b: Value) -> tuple[Terms, bool] | None:
        if not any(v.terms and not v.exponential for v in (a, b)):
            return _added(a.terms, b.terms, sign), True
        if equation.primitive.name == "mul" and not a.terms and a.number is not None:
            return _scaled(b, a.number), False
        if equation.primitive.name in ("mul", "div") and not b.terms and b.number:
            return _scaled(a, b.number**sign), False
        return None

    return rule


def _of_choice(_, *values: Value) -> tuple[Terms, bool] | None:
    """Keep terms that all cases share, apart from entries that a term would not change."""
    exponential = any(v.exponential for v in values)
    counted = [v for v in values if not (v.number == 0.0 if exponential else is_infinite(v))]
    first = counted[0] if counted else Value()
    alike = all(v.terms.keys() == first.terms.keys() and v.exponential == exponential for v in counted)
    if alike and all(abs(v.terms[t] - first.terms[t]) <= 1e-6 for v in counted for t in first.terms):
        return first.terms, exponential
    return None


_TERMS: dict[str, Callable[..., tuple[Terms, bool] | None]] = {
    **dict.fromkeys(SAME, _same_terms),
    **dict.fromkeys(("add", "add_any"), _of_sum(1.0)),
    **dict.fromkeys(("mul", "dot_general"), _of_product(1.0)),
    **dict.fromkeys(("reduce_sum", "cumsum"), _exponential_alone),
    **dict.fromkeys(("concatenate", "pad"), _of_choice),
    "select_n": lambda equation, _, *cases: _of_choice(equation, *cases),
    "neg": lambda _, x: (x.terms, True) if x.exponential else (_scaled(x, -1.0), False),
    "sub": _of_sum(-1.0),
    "div": _of_product(-1.0),
    "exp": _of_exp(1.0),
    "exp2": _of_exp(math.log(2)),
    "log": lambda _, x: (x.terms, False) if x.exponential else None,
    "integer_pow": _of_power(lambda equation: float(equation.params["y"])),
    "square": _of_power(lambda _: 2.0),
    "sqrt": _of_power(lambda _: 0.5),
    "rsqrt": _of_power(lambda _: -0.5),
    "pow": lambda _, x, y: (_scaled(x, y.number), True) if x.exponential and y.number is not None else None,
}
