"""Set XLA's flags, which must be in the environment before the first array, and count its programs' memory."""

import importlib.metadata
import math
import os
import re
from typing import Any

# XLA's CPU compiler of these versions hands ``sum(a * b, axis)`` of arrays with seven or more axes, which ``vmap`` in
# ``vmap`` makes easily, to YNNPACK, which runs out of room for their axes: the process dies of a segmentation fault
# (jax-ml/jax#39257, jax-ml/jax#40412; mended in 0.11.1). Without it XLA multiplies matrices as it did before.
_CRASHES_ON_MANY_AXES = ("0.10.2", "0.11.0")


def default_flag(name: str, value: str) -> None:
    """Add ``--name=value`` to ``XLA_FLAGS``, unless the user has set that flag."""
    flags = os.environ.get("XLA_FLAGS", "")
    if name not in flags:
        os.environ["XLA_FLAGS"] = f"{flags} --{name}={value}".strip()


def avoid_crashes() -> None:
    """Keep known versions of jaxlib from crashing; no effect on others, or once JAX has made an array."""
    if importlib.metadata.version("jaxlib") in _CRASHES_ON_MANY_AXES:
        default_flag("xla_cpu_experimental_ynn_fusion_type", "")


def compile_quickly(optimization_level: int) -> None:
    """Trade run time for compile time on CPU.

    With the older emitter of fusions, tests compiled in half of the time, and attacks and bounds of the 4-conv network
    ran as fast. An unknown flag ends the process, so it is set for the versions that it was tried with.

    Args:
      optimization_level: of LLVM, 0 to 3.
    """
    default_flag("xla_backend_optimization_level", str(optimization_level))
    if importlib.metadata.version("jaxlib") == "0.10.2":
        default_flag("xla_cpu_use_fusion_emitters", "false")


_INSTRUCTION = re.compile(
    r"^  (?P<root>ROOT )?%?[\w.\-]+ = (?P<dtype>[a-z]+\d*)\w*\[(?P<shape>[\d,]*)\]\S* (?P<operation>[\w\-]+)\("
)
_TAKES_NO_ROOM = ("parameter", "constant", "broadcast", "bitcast")


def memory(compiled: Any) -> int | None:
    """Return the bytes that a compiled program takes beside its arguments: temporaries and results.

    On CPUs newer XLA hands whole chains of products to libraries (fusions of the kind ``kCustom``), which allocate
    what they need themselves, and the compiler's own count leaves it out: 64 bytes for a program that grows by 458 MB.
    For these the intermediate arrays of the largest such chain are added, all of them: more than is in use at once.

    Args:
      compiled: what ``jax.jit(f).lower(...).compile()`` returns.

    Returns:
      The number of bytes, ``None`` where the backend does not count.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> product = jax.jit(lambda a: jnp.tanh(jnp.sin(a) @ jnp.cos(a)).sum())
      >>> memory(product.lower(jnp.ones((1000, 1000))).compile()) >= 4 * 1000 * 1000
      True
    """
    analysis = compiled.memory_analysis()
    if analysis is None:
        return None
    return analysis.temp_size_in_bytes + analysis.output_size_in_bytes + _hidden(compiled.as_text() or "")


def _hidden(program: str) -> int:
    fusions = re.findall(r"kind=kCustom, calls=%?([\w.\-]+)", program)
    if not fusions:
        return 0
    bodies = dict(re.findall(r"^%?([\w.\-]+) \([^\n]*\{\n(.*?)\n\}", program, re.MULTILINE | re.DOTALL))
    return max(_intermediates(bodies.get(name, "")) for name in fusions)


def _intermediates(body: str) -> int:
    found = [match for match in map(_INSTRUCTION.match, body.splitlines()) if match]
    return sum(_bytes(i["dtype"], i["shape"]) for i in found if not i["root"] and i["operation"] not in _TAKES_NO_ROOM)


def _bytes(dtype: str, shape: str) -> int:
    """Return the bytes of an array: ``f32`` and ``39,512`` are 39 * 512 * 4 bytes; ``pred`` is the boolean type."""
    bits = int(re.sub(r"\D", "", dtype) or 8)
    return math.prod(int(length) for length in shape.split(",") if length) * bits // 8
