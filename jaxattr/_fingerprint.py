"""Compute short fingerprints of a run's parts: arrays by their values, functions by the program that JAX traces.

A fingerprint is the same in every process, on every number of devices, and after every restart. So nothing goes into it
that changes there: addresses in memory, the order of sets, names of functions and variables, lines of files, devices.
"""

import hashlib
import re
from collections.abc import Callable, Mapping
from enum import Enum
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core
from jax.sharding import AbstractMesh, Mesh, Sharding


def arrays(tree: Any) -> str:
    """Return the fingerprint of arrays: names, dtypes, shapes and values of all leaves.

    Args:
      tree: a pytree of arrays.

    Returns:
      16 hexadecimal digits.

    Example:
      >>> arrays({"bias": np.zeros(2)}) == arrays({"bias": np.zeros(3)})
      False
    """
    digest = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        array = np.asarray(leaf)
        digest.update(f"{jax.tree_util.keystr(path)} {array.dtype} {array.shape}".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()[:16]


def program(function: Callable[..., Any], *arguments: Any) -> str:
    """Return the fingerprint of a function's program: operations, shapes, and all numbers that are not its arguments.

    Two functions that JAX traces to the same program have the same fingerprint. Another learning rate or another array
    inside of a closure is another program; so can be another version of JAX.

    Args:
      function: is traced and not run.
      arguments: pytrees of arrays, or of their shapes and dtypes; the values do not matter.

    Returns:
      16 hexadecimal digits.

    Example:
      >>> scaled = lambda factor: lambda x: factor * x
      >>> x = jnp.ones(3)
      >>> program(scaled(2.0), x) == program(scaled(2.0), x + 1), program(scaled(2.0), x) == program(scaled(2.1), x)
      (True, False)
    """
    abstract = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), arguments)
    closed, results = jax.make_jaxpr(function, return_shape=True)(*abstract)
    structure = f"{jax.tree.structure(abstract)} {jax.tree.structure(results)}"
    return _hash([structure, _Programs().describe(closed)])


class _Programs:
    """Descriptions of programs, each made once: the programs inside of a program are often the same few."""

    def __init__(self):
        self._known: dict[int, str] = {}

    def describe(self, value: Any) -> str:
        """Return the text of a program, or of a parameter of an operation."""
        if isinstance(value, core.Jaxpr | core.ClosedJaxpr):
            if id(value) not in self._known:
                self._known[id(value)] = self._program(value)
            return self._known[id(value)]
        if isinstance(value, Mapping):
            return _list(sorted(f"{key}: {self.describe(item)}" for key, item in value.items()))
        if isinstance(value, tuple | list | set | frozenset):
            parts = map(self.describe, value)
            return _list(parts if isinstance(value, tuple | list) else sorted(parts))
        if isinstance(value, np.ndarray | np.generic | jax.Array):
            return _array(value)
        return _word(value)

    def _program(self, value: Any) -> str:
        consts, jaxpr = (value.consts, value.jaxpr) if isinstance(value, core.ClosedJaxpr) else ([], value)
        # Number variables in the order in which they appear.
        numbers: dict[Any, int] = {}

        def name(atom: Any) -> str:
            if isinstance(atom, core.Literal):
                return f"{_array(atom.val)}"
            return f"{numbers.setdefault(atom, len(numbers))}:{atom.aval.str_short()}"

        lines = [_list(map(name, jaxpr.constvars)), _list(map(_array, consts)), _list(map(name, jaxpr.invars))]
        for equation in jaxpr.eqns:
            parameters = {key: item for key, item in equation.params.items() if key not in _NO_PART}
            lines += [
                f"{equation.primitive} {self.describe(parameters)}",
                _list(map(name, equation.invars)),
                _list(map(name, equation.outvars)),
            ]
        return _hash([*lines, _list(map(name, jaxpr.outvars))])


# These parameters do not change the result: the function's name, and the compiler's hints about its arguments.
_NO_PART = ("name", "donated_invars", "keep_unused", "inline", "debug_info")


def _word(value: Any) -> str:
    # Placement does not change the result.
    if isinstance(value, Mesh | AbstractMesh | Sharding):
        return "placed"
    if callable(value) and not isinstance(value, type | np.dtype | Enum):
        return getattr(value, "__qualname__", type(value).__qualname__)
    return re.sub(r" at 0x[0-9a-f]+", "", repr(value))


def _array(value: Any) -> str:
    if isinstance(value, jax.Array) and jnp.issubdtype(value.dtype, jax.dtypes.prng_key):
        return f"key {_array(jax.random.key_data(value))}"
    array = np.asarray(value)
    return f"{array.dtype}{array.shape}{hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()}"


def _list(parts: Any) -> str:
    return f"[{', '.join(parts)}]"


def _hash(lines: list[str]) -> str:
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]
