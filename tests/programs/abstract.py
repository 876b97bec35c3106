"""Functions searched for kinks on abstract inputs, and kinks as they are seen by differences of derivatives."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np

from jaxattr.programs import interpreter
from jaxattr.programs.search import Search
from jaxattr.programs.values import Value


def searched(fn, shape=(), low=-math.inf, high=math.inf, dtype=np.float32):
    """Return the search and the abstract result of a function of an array whose entries lie between two limits."""
    program, _ = interpreter.trace(fn, jax.ShapeDtypeStruct(shape, dtype))
    search = Search()
    (result,) = search(program, Value(True, low=low, high=high))
    return search, result


@functools.partial(jax.jit, static_argnums=0)
def _derivatives(fn, points):
    return jax.vmap(jax.grad(fn))(points)


def jumps(fn, low, high):
    """Return whether the derivative of a function of one number jumps between two limits, by differences in float64.

    Between neighbors of a grid a smooth derivative moves by less and less as the grid gets finer; a jump stays.
    """
    with jax.enable_x64(True):
        moves = []
        for count in (2_001, 32_001):
            # No point of either grid is a round number, where a derivative is a matter of convention.
            points = np.linspace(low, high, count) + (high - low) * 1.23456789e-7
            moves.append(np.max(np.abs(np.diff(_derivatives(fn, jnp.asarray(points))))))
    assert np.all(np.isfinite(moves))
    return bool(moves[1] > moves[0] / 4 and moves[1] > 1e-6)
