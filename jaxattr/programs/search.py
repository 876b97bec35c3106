"""Search for kinks by evaluating a traced program on abstract values in place of numbers."""

import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
from jax.extend.core import ClosedJaxpr

from jaxattr.programs import interpreter, intervals, names, source, terms, values
from jaxattr.programs.interpreter import Equation, Function, Interpreter, Path
from jaxattr.programs.values import Interval, Term, Value

# A floor of at most this size under a norm counts as smooth: it prevents 0 / 0, and differs from the norm on a ball of
# that radius only.
_LARGEST_STABILIZER = 1e-5


class Search(Interpreter):
    """An interpreter that evaluates a program on :class:`~jaxattr.programs.values.Value` and collects its kinks.

    Attributes:
      narrowest: among results that depend on the input the floating-point type of the fewest bits: these, its name, and
        the first such operation (behind those that it is inside of).
    """

    def __init__(self):
        super().__init__()
        self.narrowest: tuple[float, str, tuple[Equation, ...]] = (math.inf, "", ())
        self._found: dict[Path, tuple[int, str, tuple[Equation, ...]]] = {}
        self._terms: dict[Path, Term] = {}
        self._shared: dict[Value, list[tuple[str, Any, Term]]] = {}
        self._chain: list[Equation] = []
        self._comparisons = 0
        self._following: list[Function | None] = []

    def kinks(self) -> Iterator[tuple[int, str, tuple[Equation, ...], Path]]:
        """Iterate over the kinks: bit, name, operation (after those that contain it) and path."""
        return ((bit, name, chain, path) for path, (bit, name, chain) in self._found.items())

    def constant(self, value: Any) -> Value:
        """Return the abstract value of an array that a program holds."""
        return values.known(value)

    def literal(self, atom: Any) -> Value:
        """Return the abstract value of a number that stands in a program."""
        return values.known(atom.val)

    def apply(self, equation: Equation, *operands: Value) -> list[Value]:
        """Return the abstract results of the operation at ``self.path``."""
        name, path = equation.primitive.name, self.path
        if name == "cond" and operands[0].number is not None:
            branch = int(operands[0].number)
            return self._inside(equation, equation.params["branches"][branch], operands[1:], (*path, branch))
        if not any(value.depends for value in operands):
            return self.smooth(equation, operands)
        self._measure(equation)
        if name in ("scan", "while", "cond"):
            return self.enter(equation, *operands)
        inner = interpreter.body(equation)
        if inner is not None:
            return self._call(equation, inner, operands)
        answer = _RULES[name](self, equation, *operands) if name in _RULES else NotImplemented
        if answer is not NotImplemented:
            return answer
        discrete = all(values.is_discrete(var.aval) for var in equation.invars)
        is_smooth = discrete or name in names.SMOOTH or name in names.COMPARISONS
        return self.smooth(equation, operands) if is_smooth else self.kinked(equation, operands)

    def _measure(self, equation: Equation) -> None:
        """Remember an operation whose numbers have fewer bits than any before it."""
        for var in equation.outvars:
            if (bits := values.bits(var.aval)) < self.narrowest[0]:
                self.narrowest = (bits, var.aval.dtype.name, (*self._chain, equation))

    # Evaluate single operations

    def smooth(self, equation: Equation, operands: Sequence[Value]) -> list[Value]:
        """Return the results of an operation without a kink."""
        name = equation.primitive.name
        if name == "optimization_barrier":
            return list(operands)
        made = {"operation": name, "operands": tuple(operands), "options": equation.params}
        low, high = _interval(equation, operands)
        if not any(value.depends for value in operands) or (low == high and math.isfinite(low)):
            return [Value(low=low, high=high, **made) for _ in equation.outvars]
        kept, exponential, before = terms.terms(name, equation, operands)
        after = 0
        for value in operands:
            before |= value.kinks
        if not all(values.is_discrete(var.aval) for var in equation.invars):
            # A conversion to integers or booleans jumps; it counts once the result is used as a number or in a choice.
            after = self._kink(equation) if any(values.is_discrete(var.aval) for var in equation.outvars) else 0
            self._comparisons |= after if name in names.COMPARISONS else 0
        return [
            Value(True, before | (after if values.is_discrete(v.aval) else 0), kept, exponential, low, high, **made)
            for v in equation.outvars
        ]

    def kinked(
        self, equation: Equation, operands: Sequence[Value], function: str = "", results: Sequence[Value] = ()
    ) -> list[Value]:
        """Return the results of an operation with a kink, or of a function that counts as one, given ``results``."""
        if equation.primitive.name in ("reduce_max", "stop_gradient"):
            self._share(equation, operands)
        term = self.term(self._kink(equation, function) | _union(operands))
        term.frozen = equation.primitive.name == "stop_gradient"
        ranges = [(v.low, v.high) for v in results] or [_interval(equation, operands)] * len(equation.outvars)
        return [_of_term(term, var.aval, within) for var, within in zip(equation.outvars, ranges, strict=True)]

    def _share(self, equation: Equation, operands: Sequence[Value]) -> None:
        """Give one term to a maximum that is written twice."""
        term = self._terms.setdefault(self.path, Term(0))
        for other, options, found in self._shared.get(operands[0], ()):
            if (other, options) == (equation.primitive.name, equation.params):
                self._terms[self.path] = found
                return
        self._shared.setdefault(operands[0], []).append((equation.primitive.name, equation.params, term))

    def term(self, kinks: int) -> Term:
        """Return the kinked number at ``self.path``, and add ``kinks`` to it."""
        term = self._terms.setdefault(self.path, Term(0))
        term.kinks |= kinks
        return term

    def choice(self, equation: Equation, by: Value) -> int:
        """Return the kinks of a choice: its own, where a comparison decides; else those of the decision."""
        kinks = by.all_kinks & ~self._comparisons
        return kinks | self._kink(equation) if by.all_kinks & self._comparisons or not kinks else kinks

    def _kink(self, equation: Equation, operation: str = "") -> int:
        """Return the bit of the kink at ``self.path``."""
        new = (1 << len(self._found), operation or equation.primitive.name, (*self._chain, equation))
        return self._found.setdefault(self.path, new)[0]

    # Evaluate programs inside of operations

    def _inside(self, equation: Equation, program: ClosedJaxpr, operands: Sequence[Value], path: Path) -> list[Value]:
        before = self.path
        self._chain.append(equation)
        results = self.walk(program, operands, path)
        self._chain.pop()
        self.path = before
        return results

    def _call(self, equation: Equation, inner: ClosedJaxpr, operands: Sequence[Value]) -> list[Value]:
        named = interpreter.function(equation)
        custom = equation.primitive.name.startswith(("custom_jvp_call", "custom_vjp_call"))
        library = source.package(named.file) if named and named.file else None
        if named and _is_smooth(named, library, custom):
            low, high = names.SMOOTH_FUNCTIONS.get(named.name, values.ANYTHING)
            return [Value(True, _union(operands), low=low, high=high) for _ in equation.outvars]
        results = self._inside(equation, inner, operands, self.path)
        new = _union(results) & ~_union(operands)
        if custom and library is None and not new and named not in self._following:
            rule = self._of_derivative(equation, operands) & ~_union(operands)
            return self.kinked(equation, operands, named.name if named else "", results) if rule else results
        if new and named and named.name in names.KINKED_FUNCTIONS:
            return self.kinked(equation, operands, named.name, results)
        return results

    def _of_derivative(self, equation: Equation, operands: Sequence[Value]) -> int:
        """Return the kinks of a derivative rule that a user has defined."""
        program = _derivative(equation, self)
        if program is None:
            return 0
        # Do not follow the rule again where it calls its own function.
        self._following.append(interpreter.function(equation))
        seeds = [Value(True)] * (len(program.jaxpr.invars) - len(operands))
        results = self._inside(equation, program, [*(v.settled() for v in operands), *seeds], (*self.path, -1))
        self._following.pop()
        return _union(results)

    def _scan(self, path: Path, equation: Equation, *operands: Value) -> list[Value]:
        constants, state, inputs = interpreter.scan_operands(equation, operands)
        constants, state = [v.settled() for v in constants], [v.settled() for v in state]
        entries = [_entry(value) for value in inputs]
        while True:
            results = self._inside(equation, equation.params["jaxpr"], [*constants, *state, *entries], path)
            grown = [_joined(a, b) for a, b in zip(state, results, strict=False)]
            if all(map(_alike, state, grown)):
                return [*grown, *map(_entry, results[len(state) :])]
            state = grown

    def _while(self, path: Path, equation: Equation, *operands: Value) -> list[Value]:
        parts = interpreter.while_operands(equation, operands)
        of_condition, of_body, state = ([v.settled() for v in part] for part in parts)
        options = equation.params
        while True:
            going = self._inside(equation, options["cond_jaxpr"], [*of_condition, *state], (*path, 0))[0]
            results = self._inside(equation, options["body_jaxpr"], [*of_body, *state], (*path, 1))
            grown = list(map(_joined, state, results))
            if all(map(_alike, state, grown)):
                return self._chosen(equation, going, grown)
            state = grown

    def _cond(self, path: Path, equation: Equation, index: Value, *operands: Value) -> list[Value]:
        branches = [
            [v.settled() for v in self._inside(equation, program, operands, (*path, number))]
            for number, program in enumerate(equation.params["branches"])
        ]
        results = branches[0]
        for branch in branches[1:]:
            results = list(map(_joined, results, branch))
        return self._chosen(equation, index, results)

    def _chosen(self, equation: Equation, by: Value, results: list[Value]) -> list[Value]:
        """Return results that ``by`` selects, with the kinks of that choice."""
        if not by.depends:
            return results
        kinks = self.choice(equation, by)
        return [dataclasses.replace(v.settled(), depends=True, kinks=v.all_kinks | kinks) for v in results]


def _derivative(equation: Equation, search: Search) -> ClosedJaxpr | None:
    """Return the program of a custom derivative: of the operands, and of their tangents or the results' cotangents."""
    alone, of_jvp = search.evaluator(), equation.primitive.name.startswith("custom_jvp")
    moving = [i for i, var in enumerate(equation.invars) if not values.is_discrete(var.aval)]
    seeded = [equation.invars[i] for i in moving] if of_jvp else equation.outvars
    if not moving or not all(not values.is_discrete(var.aval) for var in equation.outvars):
        return None

    def derivative(inputs, seeds):
        def of(*moved):
            full = list(inputs)
            for i, value in zip(moving, moved, strict=True):
                full[i] = value
            return alone.bind(equation, *full)

        moved = [inputs[i] for i in moving]
        return jax.jvp(of, moved, seeds)[1] if of_jvp else jax.vjp(of, *moved)[1](seeds)

    shapes = [
        [jax.ShapeDtypeStruct(var.aval.shape, var.aval.dtype) for var in part] for part in (equation.invars, seeded)
    ]
    return jax.make_jaxpr(derivative)(*shapes)


def _is_smooth(named: Function, library: str | None, custom: bool) -> bool:
    """Return whether a function is known to be smooth as a whole."""
    if library == "jaxattr":
        # This library defines custom derivatives for smooth functions only.
        return custom or named.name.startswith("jaxattr_")
    return library in names.PACKAGES and named.name in names.SMOOTH_FUNCTIONS


def _interval(equation: Equation, operands: Sequence[Value]) -> Interval:
    single = len(equation.outvars) == 1
    return intervals.interval(equation.primitive.name, equation, operands) if single else values.ANYTHING


def _of_term(term: Term, aval: Any, within: Interval) -> Value:
    """Return a kinked number as a value; the terms of an integer cannot cancel."""
    if values.is_discrete(aval):
        return Value(True, term.kinks, low=within[0], high=within[1])
    return Value(True, terms={(term, values.whole(aval)): 1.0}, low=within[0], high=within[1])


def _union(results: Sequence[Value]) -> int:
    bits = 0
    for value in results:
        bits |= value.all_kinks
    return bits


def _entry(value: Value) -> Value:
    """Return an entry of a stacked array, or an array stacked from entries."""
    value = value.settled()
    return Value(value.depends, value.kinks, low=value.low, high=value.high)


def _joined(a: Value, b: Value) -> Value:
    """Join two values, one of which occurs; growing intervals are dropped, so that the search of a loop ends."""
    return Value(
        a.depends or b.depends,
        a.all_kinks | b.all_kinks,
        low=a.low if b.low >= a.low else -math.inf,
        high=a.high if b.high <= a.high else math.inf,
    )


def _alike(a: Value, b: Value) -> bool:
    return (a.depends, a.kinks, a.low, a.high) == (b.depends, b.kinks, b.low, b.high)


# Define rules of single operations: ``rule(search, equation, *operands) -> results | NotImplemented``


def _max(_: Search, equation: Equation, a: Value, b: Value):
    largest = equation.primitive.name == "max"
    if a.low >= b.high:
        return [a if largest else b]
    if b.low >= a.high:
        return [b if largest else a]
    for value, floor in ((a, b), (b, a)):
        small = floor.number is not None and floor.number <= _LARGEST_STABILIZER
        if largest and small and intervals.is_norm(value):
            return [value]
    return NotImplemented


def _clamp(_: Search, __: Equation, low: Value, x: Value, high: Value):
    return [x] if x.low >= low.high and x.high <= high.low else NotImplemented


def _abs(search: Search, equation: Equation, x: Value):
    if values.is_complex(equation.invars[0].aval):
        return search.smooth(equation, [x])
    return [x] if x.low >= 0 else NotImplemented


def _sign(search: Search, equation: Equation, x: Value):
    if values.is_complex(equation.invars[0].aval):
        return search.smooth(equation, [x])
    # A kinked number may be 0 everywhere on one side of its kink; a smooth one is 0 at single points, or always.
    above, below = x.low >= 0, x.high <= 0
    smooth = not x.kinks and (x.exponential or not x.terms)
    if (above or below) and (smooth or x.low * x.high > 0):
        number = 1.0 if above else -1.0
        return [Value(low=number, high=number)]
    return NotImplemented


def _reduce_max(_: Search, equation: Equation, x: Value):
    if equation.invars[0].aval.size == equation.outvars[0].aval.size:
        # A maximum along axes of length 1 is a reshape.
        return [dataclasses.replace(x.settled(), operation="reshape", operands=(x,), options={})]
    return NotImplemented


def _select(search: Search, equation: Equation, by: Value, *cases: Value):
    if by.number is not None:
        return [cases[int(by.number)]]
    if all(case is cases[0] for case in cases):
        return [cases[0]]
    aval = equation.outvars[0].aval
    if not by.depends or values.is_discrete(aval):
        return NotImplemented
    term = search.term(search.choice(equation, by) | _union(cases))
    return [_of_term(term, aval, _interval(equation, [by, *cases]))]


def _linear_solve(search: Search, equation: Equation, *operands: Value):
    """Treat the solution as a function of the matrix and the right side, and ignore precomputed factors."""
    lengths = equation.params["const_lengths"]
    matrix, right = operands[: lengths.matvec], operands[sum(lengths) :]
    return search.smooth(equation, [value.settled() for value in (*matrix, *right)])


def _by_program(search: Search, equation: Equation, *operands: Value):
    """Treat a reduction by a program of two numbers as smooth if that program is."""
    program = equation.params["jaxpr"]
    program = program if isinstance(program, ClosedJaxpr) else ClosedJaxpr(program, ())
    inner = Search()
    results = inner(program, *(Value(True) for _ in program.jaxpr.invars))
    return NotImplemented if _union(results) else search.smooth(equation, [v.settled() for v in operands])


_RULES: dict[str, Callable[..., Any]] = {
    **dict.fromkeys(("max", "min"), _max),
    **dict.fromkeys(("reduce_max", "reduce_min"), _reduce_max),
    **dict.fromkeys(("reduce", "reduce_window"), _by_program),
    "clamp": _clamp,
    "abs": _abs,
    "sign": _sign,
    "select_n": _select,
    "custom_linear_solve": _linear_solve,
}
