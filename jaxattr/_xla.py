"""XLA's flags, which must be in the environment before the first array is made."""

import importlib.metadata
import os

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
    """Keep known versions of jaxlib from crashing; of no effect on others, or once JAX has made an array."""
    if importlib.metadata.version("jaxlib") in _CRASHES_ON_MANY_AXES:
        default_flag("xla_cpu_experimental_ynn_fusion_type", "")


def compile_quickly(optimization_level: int) -> None:
    """For programs of which compiling takes most of the time: less of XLA's work on CPUs.

    With the older emitter of fusions tests compiled in half of the time, and attacks and bounds of the 4-conv network
    ran as fast. An unknown flag ends the process, so it is set for the versions that it was tried with.

    Args:
      optimization_level: of LLVM, 0 to 3.
    """
    default_flag("xla_backend_optimization_level", str(optimization_level))
    if importlib.metadata.version("jaxlib") == "0.10.2":
        default_flag("xla_cpu_use_fusion_emitters", "false")
