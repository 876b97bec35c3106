"""Find the operations between a function's input and output that are not twice differentiable."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from jax.extend.core import ClosedJaxpr

from jaxattr.programs import interpreter, source, values
from jaxattr.programs.interpreter import Path
from jaxattr.programs.search import Search
from jaxattr.programs.values import Value


class Kink(NamedTuple):
    """An operation that is not twice differentiable in the input.

    Attributes:
      operation: the name of the function (``relu``, ``clip``) or of the primitive operation (``max``, ``select_n``).
      shape: of its result.
      where: ``file:line (function)`` of the user's code.
    """

    operation: str
    shape: tuple[int, ...]
    where: str

    def __str__(self) -> str:
        return f"{self.operation} {list(self.shape)} at {self.where}"


class Found(NamedTuple):
    """A kink and its place in the program.

    Attributes:
      kink: as the user is told.
      path: as an :class:`~jaxattr.programs.interpreter.Interpreter` takes it.
    """

    kink: Kink
    path: Path


def kinks(fn: Callable[[Any], Any], x: Any) -> list[Kink]:
    """List the operations between a function's input and output that are not twice differentiable.

    Bounds need two derivatives of the network in its input. ReLU, max-pooling, ``abs``, ``clip``, ``sort``, rounding or
    a choice that the input decides make its gradient jump. The derivative that JAX computes does not see the jump, and
    a bound made from it is too small: 0 for the saliency of a ReLU network.

    ``fn`` is traced and not run. What counts is the function that JAX differentiates:

    * A kink that only decides an integer output, such as a predicted label, is none.
    * Kinks that cancel are none: the maximum that a softmax or a logsumexp subtracts, whoever wrote it.
    * Nor are operations that never switch: ``max(0, variance)``, ``clip(sigmoid(x), 0, 1)``, the test for NaN or
      infinity, a floor of at most 1e-5 under a norm, a norm's test for 0.
    * ``sqrt``, ``log``, division and powers are singular at single points, where results are not finite. They count as
      smooth.
    * What passes ``stop_gradient`` (a straight-through estimator, say) changes the function and not the derivative that
      JAX computes, so that it is one, unless it cancels or is only added to the output.
    * Functions that are smooth as a whole are known by name (``softplus``, ``gelu``, ``logsumexp``, ...), if they are
      JAX's, Flax's, Equinox's, Haiku's or Optax's. The search enters a function of your own under any name, and its
      custom derivative, too. So a softplus written as ``max(x, 0) + log1p(exp(-abs(x)))`` is listed; write
      ``jax.nn.softplus``.
    * An operation of which nothing is known (a callback, a kernel in Pallas) is listed by its name.

    Args:
      fn: function of an array, or of a pytree of them.
      x: example of its input; an array or ``jax.ShapeDtypeStruct``.

    Returns:
      One entry per operation, in the order of the program; empty for a smooth function.

    Raises:
      TypeError: if ``fn`` is not callable.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> import jaxattr as ja
      >>> [kink.operation for kink in ja.kinks(lambda x: jnp.abs(jax.nn.relu(x)) + jax.nn.gelu(x), jnp.ones(3))]
      ['relu']
      >>> ja.kinks(jax.nn.softmax, jnp.ones(3))
      []
    """
    if not callable(fn):
        raise TypeError(f"`fn` must be a function of the input, got {type(fn).__name__}.")
    program, _ = interpreter.trace(fn, x)
    return [found.kink for found in find(program, [True] * len(program.jaxpr.invars))]


class Examined(NamedTuple):
    """The findings of a search in a program.

    Attributes:
      found: the kinks, in the order of the program.
      narrowest: the floating-point type of the fewest bits among results that depend on the input, and the place where
        it first occurs; empty where nothing depends on it.
      bits: of that type.
    """

    found: list[Found]
    narrowest: str
    bits: float


def find(program: ClosedJaxpr, depends: Sequence[bool], *, added_constants: bool = True) -> list[Found]:
    """Find the kinks of a program, with their places; arguments are those of :func:`examine`."""
    return examine(program, depends, added_constants=added_constants).found


def examine(program: ClosedJaxpr, depends: Sequence[bool], *, added_constants: bool = True) -> Examined:
    """Find a program's kinks, and its least precise floating-point type.

    Args:
      program: of flat operands, from :func:`jaxattr.programs.interpreter.trace`.
      depends: for each operand whether it is part of the input.
      added_constants: ignore results of ``stop_gradient`` that are only added to an output, as for a function whose
        gradient is explained.
    """
    search = Search()
    inputs = [
        Value(depends=flag and not values.is_discrete(var.aval))
        for flag, var in zip(depends, program.jaxpr.invars, strict=True)
    ]
    reached = 0
    for atom, result in zip(program.jaxpr.outvars, search(program, *inputs), strict=True):
        if not values.is_discrete(atom.aval):
            reached |= result.kinks
            for term, _ in result.terms:
                if result.exponential or not (added_constants and term.frozen):
                    reached |= term.kinks
    found = [
        Found(Kink(operation, tuple(chain[-1].outvars[0].aval.shape), source.where(chain)), path)
        for bit, operation, chain, path in search.kinks()
        if bit & reached
    ]
    bits, dtype, chain = search.narrowest
    found.sort(key=lambda entry: entry.path)
    return Examined(found, f"{dtype} at {source.where(chain)}" if dtype else "", bits)
