"""Evaluate a function's traced program with other rules for some of its operations.

``jax.make_jaxpr(fn)(x)`` is a function as a list of primitive operations. :class:`Interpreter` walks that list, enters
the programs inside of it (``jit``, ``checkpoint``, ``custom_jvp``, ``custom_vjp``, ``scan``, ``while_loop``, ``cond``,
...) and asks a table of rules what to do with an operation. The module uses JAX's public names only.

**A rule** is ``rule(interpreter, equation, *values) -> sequence of results | NotImplemented``.

* ``equation`` is a ``jax.extend.core.JaxprEqn``: ``equation.primitive.name``, ``.params``, ``.invars`` and ``.outvars``
  (their ``.aval`` has shape and dtype).
* ``values`` are the operands, arrays or tracers; the answer is one value per result, of the same shape and dtype.
* ``NotImplemented`` hands the operation on: to the next table, then to what the interpreter does without rules.
* ``interpreter.path`` is the :data:`Path` of the operation, ``interpreter.bind(equation, *values)`` evaluates it as it
  is, ``interpreter.enter(equation, *values)`` evaluates the program inside of it with the rules.

There are two tables. ``functions`` has rules by the name of a *function* that was traced as a unit, which is a single
operation of the program: ``relu`` for the ``custom_jvp`` of that name, ``leaky_relu`` or ``clip`` for a ``jit``.
``rules`` has rules by the name of a *primitive* (``max``, ``abs``, ``reduce_window_max``). Functions are asked first,
from the outermost to the innermost, so that a named activation counts as one elementwise function.

**Which operations are asked.** ``at`` holds the paths of the operations that a rule may replace, such as those that
:func:`jaxattr.programs.kinks.find` returns; those inside of one that no rule answers for are asked, too. All others
stay as they are: a ``jit`` stays one, and a ``custom_jvp`` keeps its derivative rule. A program that holds such an
operation is entered, and loses its ``jit`` or its derivative rule; ``checkpoint``, ``scan``, ``while_loop`` and
``cond`` are built again around their rewritten bodies. Without ``at`` every operation is asked.

The walk happens while JAX traces, so that it composes with ``jit``, ``vmap`` and ``grad``, and arrays that are
arguments of the program stay arguments.

Example:
  >>> import jax, jax.numpy as jnp
  >>> program = jax.make_jaxpr(lambda x: jnp.sum(jax.nn.relu(x)))(jnp.ones(2))
  >>> softplus = lambda interpreter, equation, x: [jax.nn.softplus(x)]
  >>> evaluate = Interpreter(functions={"relu": softplus})
  >>> [round(float(value), 4) for value in evaluate(program, jnp.zeros(2))]
  [1.3863]
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.core
from jax.extend import source_info_util
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal, Var

Path: TypeAlias = tuple[int, ...]
"""A path locates an operation by its index, after the indices of the operations that contain it.

The bodies of ``while`` and ``cond`` are numbered: ``(4, 1, 0)`` is the first operation of the second body of the fifth
operation. A path belongs to one program; another trace of the same function has the same ones.
"""

Equation: TypeAlias = Any
"""A ``jax.extend.core.JaxprEqn``. (JAX does not say of what type its variables are.)"""

Rule: TypeAlias = Callable[..., Any]
"""A rule is ``rule(interpreter, equation, *values) -> sequence of results | NotImplemented``."""

# Each of these parameters holds one program, which runs once on exactly the operands, in JAX 0.9 to 0.12.
_BODIES = ("jaxpr", "call_jaxpr", "fun_jaxpr", "callee", "call")
_LOOPS = ("scan", "while", "cond")
_CHECKPOINTS = ("remat", "remat2", "checkpoint")


class Function(NamedTuple):
    """The function that an operation evaluates as a unit.

    Attributes:
      name: its ``__name__``, as given to ``jit`` or ``custom_jvp``.
      file: the file that defines it, ``None`` where that is not known.
    """

    name: str
    file: str | None


def body(equation: Equation) -> ClosedJaxpr | None:
    """Return the program that an operation runs once on its operands; ``None`` for primitive operations and loops."""
    if equation.primitive.name in _LOOPS:
        return None
    for name in _BODIES:
        inner = equation.params.get(name)
        if isinstance(inner, Jaxpr | ClosedJaxpr):
            # JAX has one class for both since 0.12.
            inner = inner if isinstance(inner, ClosedJaxpr) else ClosedJaxpr(inner, ())
            if equation.primitive.name == "shard_map" or _fits(equation.invars, inner.jaxpr.invars):
                return inner
    return None


def _fits(outside: Sequence[Any], inside: Sequence[Any]) -> bool:
    """Return whether operands match a program's; a reduction of arrays, say, has a program of two numbers."""
    return [atom.aval.shape for atom in outside] == [atom.aval.shape for atom in inside]


def function(equation: Equation) -> Function | None:
    """Return the named function that an operation evaluates, or ``None``."""
    inner = body(equation)
    if inner is None or equation.primitive.name == "shard_map":
        return None
    about = inner.jaxpr.debug_info
    name = equation.params.get("name") or (about and about.func_name)
    return Function(str(name), about.func_filename if about else None) if name else None


def trace(fn: Callable[..., Any], *args: Any) -> tuple[ClosedJaxpr, Any]:
    """Trace ``fn(*args)`` over flattened arguments and results, and return the program with the tree of its results."""
    program, shapes = jax.make_jaxpr(fn, return_shape=True)(*args)
    return program, jax.tree.structure(shapes)


def scan_operands(equation: Equation, values: Sequence[Any]) -> tuple[Sequence[Any], Sequence[Any], Sequence[Any]]:
    """Split the operands of a ``scan`` into closed-over constants, the first carry, and the scanned inputs."""
    program = equation.params["jaxpr"].jaxpr

    def stacked(outside, inside):
        return sum(a.aval.shape != b.aval.shape for a, b in zip(outside, inside, strict=True))

    first_input = len(values) - stacked(equation.invars, program.invars)
    first_carry = first_input - len(equation.outvars) + stacked(equation.outvars, program.outvars)
    return values[:first_carry], values[first_carry:first_input], values[first_input:]


def while_operands(equation: Equation, values: Sequence[Any]) -> tuple[Sequence[Any], Sequence[Any], Sequence[Any]]:
    """Split the operands of a ``while_loop`` into constants of its condition and of its body, and the first state."""
    first = equation.params["cond_nconsts"]
    second = first + equation.params["body_nconsts"]
    return values[:first], values[first:second], values[second:]


class Interpreter:
    """An evaluator of programs by rules; the module's text describes the rules.

    Args:
      rules: by the name of a primitive.
      functions: by the name of a function.
      at: paths of the operations that may be replaced; ``None`` for all.

    Attributes:
      path: path of the current operation.
    """

    def __init__(
        self,
        rules: Mapping[str, Rule] | None = None,
        functions: Mapping[str, Rule] | None = None,
        at: Collection[Path] | None = None,
    ):
        self.rules, self.functions = dict(rules or {}), dict(functions or {})
        self.path: Path = ()
        self._about: Any = None
        self._at = None if at is None else frozenset(at)
        self._above = frozenset(path[:end] for path in at or () for end in range(len(path)))

    def __call__(self, program: ClosedJaxpr, *values: Any) -> list[Any]:
        """Evaluate a program of flat operands."""
        return self.walk(program, values, ())

    def walk(self, program: ClosedJaxpr, values: Sequence[Any], path: Path) -> list[Any]:
        """Evaluate a program that stands at ``path``."""
        jaxpr = program.jaxpr
        known = dict(zip(jaxpr.constvars, map(self.constant, program.consts), strict=True))
        known.update(zip(jaxpr.invars, values, strict=True))

        def read(atom):
            return self.literal(atom) if isinstance(atom, Literal) else known[atom]

        for index, equation in enumerate(jaxpr.eqns):
            self.path, self._about = (*path, index), jaxpr.debug_info
            results = self.apply(equation, *map(read, equation.invars))
            if len(results) != len(equation.outvars):
                raise ValueError(
                    f"the rule for `{equation.primitive.name}` must return {len(equation.outvars)} results, got"
                    f" {len(results)}."
                )
            known.update(zip(equation.outvars, results, strict=True))
        return [read(atom) for atom in jaxpr.outvars]

    def constant(self, value: Any) -> Any:
        """Return the value of an array that a program holds."""
        return value

    def literal(self, atom: Literal) -> Any:
        """Return the value of a number that stands in a program."""
        return atom.val

    def apply(self, equation: Equation, *values: Any) -> list[Any]:
        """Evaluate the operation at ``self.path``: by a rule, else by entering it, else as it is."""
        path = self.path
        asked = self._at is None or any(path[:end] in self._at for end in range(1, len(path) + 1))
        if asked:
            for rule in self._asked(equation):
                with _as_traced(equation):
                    answer = rule(self, equation, *values)
                self.path = path
                if answer is not NotImplemented:
                    return list(answer)
        if (asked or path in self._above) and (equation.primitive.name in _LOOPS or body(equation) is not None):
            return self.enter(equation, *values)
        return self.bind(equation, *values)

    def _asked(self, equation: Equation) -> list[Rule]:
        named = function(equation)
        found = (self.functions.get(named.name) if named else None, self.rules.get(equation.primitive.name))
        return [rule for rule in found if rule is not None]

    def bind(self, equation: Equation, *values: Any) -> list[Any]:
        """Evaluate an operation as it is."""
        operands = {atom: value for atom, value in zip(equation.invars, values, strict=True) if isinstance(atom, Var)}
        about = self._about._replace(arg_names=None, result_paths=None)
        alone = Jaxpr((), list(operands), equation.outvars, [equation], equation.effects, about)
        return list(jax.core.eval_jaxpr(alone, (), *operands.values()))

    def evaluator(self) -> "Interpreter":
        """Return an interpreter without rules, which can :meth:`bind` operations of the program that this one walks."""
        plain = Interpreter(at=())
        plain._about = self._about
        return plain

    def enter(self, equation: Equation, *values: Any) -> list[Any]:
        """Evaluate an operation that holds programs, and apply the rules inside of them.

        Raises:
          NotImplementedError: if its programs are not evaluated once, of its operands, and it is no known loop.
        """
        name, path, options = equation.primitive.name, self.path, equation.params
        if name in _LOOPS:
            with _as_traced(equation):
                return list(getattr(self, f"_{name}")(path, equation, *values))
        inner = body(equation)
        if inner is None or name == "shard_map":
            raise NotImplementedError(
                f"operations inside of `{name}` cannot be replaced: {source_info_util.summarize(equation.source_info)}."
                " Accepted are jit, checkpoint, custom_jvp, custom_vjp, scan, while_loop, cond and switch."
            )
        if name in _CHECKPOINTS:
            again = jax.checkpoint(
                lambda *inputs: self.walk(inner, inputs, path),
                prevent_cse=options["prevent_cse"],
                policy=options["policy"],
            )
            return list(again(*values))
        return self.walk(inner, values, path)

    def _scan(self, path: Path, equation: Equation, *values: Any) -> Sequence[Any]:
        options, (constants, start, inputs) = equation.params, scan_operands(equation, values)

        def step(carry, each):
            results = self.walk(options["jaxpr"], [*constants, *carry, *each], path)
            return tuple(results[: len(start)]), tuple(results[len(start) :])

        end, outputs = jax.lax.scan(
            step, tuple(start), tuple(inputs), options["length"], options["reverse"], options["unroll"]
        )
        return [*end, *outputs]

    def _while(self, path: Path, equation: Equation, *values: Any) -> Sequence[Any]:
        of_condition, of_body, start = while_operands(equation, values)
        condition, step = equation.params["cond_jaxpr"], equation.params["body_jaxpr"]
        return jax.lax.while_loop(
            lambda state: self.walk(condition, [*of_condition, *state], (*path, 0))[0],
            lambda state: tuple(self.walk(step, [*of_body, *state], (*path, 1))),
            tuple(start),
        )

    def _cond(self, path: Path, equation: Equation, index: Any, *values: Any) -> Sequence[Any]:
        def branch(number, program):
            return lambda *inputs: tuple(self.walk(program, inputs, (*path, number)))

        branches = [branch(number, program) for number, program in enumerate(equation.params["branches"])]
        return jax.lax.switch(index, branches, *values)


class _as_traced:
    """A context in which traced operations keep the source line, the name and the settings of a given one."""

    def __init__(self, equation: Equation):
        info = equation.source_info
        stack = source_info_util.current_name_stack() + info.name_stack
        self._contexts = (source_info_util.user_context(info.traceback, name_stack=stack), equation.ctx.manager)

    def __enter__(self):
        for context in self._contexts:
            context.__enter__()

    def __exit__(self, *exception):
        for context in reversed(self._contexts):
            context.__exit__(*exception)
