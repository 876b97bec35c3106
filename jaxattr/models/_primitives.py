"""Turn the library's own linear maps into JAX primitives: evaluation, shapes, lowering and ``vmap``.

It serves maps whose transposes JAX would write slowly. The caller registers the transpose rule: a primitive is no use
before ``jax.interpreters.ad`` has it.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
from jax import Array
from jax.extend.core import Primitive
from jax.interpreters import batching, mlir


def primitive(name: str, function: Callable[..., Array], batched: Callable[..., tuple[Array, int]]) -> Primitive:
    """Turn ``function(*operands, **options)`` into a primitive.

    Args:
      name: its name in traces.
      function: its computation, in operations of JAX; options are hashable.
      batched: ``(primitive, operands, axes, options) -> (result, axis)``, as ``vmap`` needs it.
    """
    made = Primitive(f"jaxattr_{name}")
    made.def_impl(lambda *operands, **options: _compiled(function, tuple(options.items()))(*operands))

    def shape(*operands: Any, **options: Any) -> Any:
        structures = [jax.ShapeDtypeStruct(a.shape, a.dtype) for a in operands]
        result = jax.eval_shape(functools.partial(function, **options), *structures)
        # The result inherits the other properties of an operand, such as the axes of a mesh over which it varies.
        return operands[0].update(shape=result.shape, dtype=result.dtype, weak_type=False)

    made.def_abstract_eval(shape)
    mlir.register_lowering(made, mlir.lower_fun(function, multiple_results=False))
    batching.primitive_batchers[made] = lambda operands, axes, **options: batched(made, operands, axes, options)
    return made


def shape_of(operand: Any) -> tuple[int, ...]:
    """Return the shape of an operand in a transpose rule, where a differentiated operand is a placeholder."""
    return getattr(operand, "aval", operand).shape


@functools.cache
def _compiled(function: Callable[..., Array], options: tuple):
    """Compile the function outside of any other program."""
    return jax.jit(functools.partial(function, **dict(options)))
