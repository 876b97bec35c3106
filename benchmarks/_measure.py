"""Compile, count and time a program, for the jobs of ``benchmarks.accelerator``."""

import importlib.util
import math
import statistics
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple

import jax

COMPILERS = 4
_LONGEST = 3.0


class Program(NamedTuple):
    """A computation to be measured.

    Attributes:
      name: title of its row.
      function: function that is compiled.
      arguments: arguments of every call.
      samples: number of samples that one call handles.
    """

    name: str
    function: Callable[..., Any]
    arguments: tuple[Any, ...]
    samples: int


class Compiled(NamedTuple):
    """A program that can be timed.

    Attributes:
      run: the executable.
      seconds: compile time.
      megabytes: size of temporaries and results.
    """

    run: Callable[..., Any]
    seconds: float
    megabytes: float | None


def compile_program(program: Program) -> Compiled:
    """Compile a program ahead of time."""
    begin = time.perf_counter()
    lowered = jax.jit(program.function).lower(*program.arguments)
    compiled = lowered.compile()
    seconds = time.perf_counter() - begin
    analysis = compiled.memory_analysis()
    megabytes = (analysis.temp_size_in_bytes + analysis.output_size_in_bytes) / 1e6 if analysis else None
    return Compiled(compiled, seconds, megabytes)


def operations(function: Callable[..., Any], *arguments: Any) -> int:
    """Count the floating-point operations of convolutions and matrix products in a function without loops.

    Each product of two numbers counts as two; pixels of padding count as others do.

    Example:
      >>> operations(jax.numpy.matmul, jax.numpy.ones((2, 3)), jax.numpy.ones((3, 5)))
      60
    """
    return _operations(jax.make_jaxpr(function)(*arguments).jaxpr)


def _operations(jaxpr: Any) -> int:
    total = 0
    for equation in jaxpr.eqns:
        shapes = [variable.aval.shape for variable in equation.invars if hasattr(variable.aval, "shape")]
        size = math.prod(equation.outvars[0].aval.shape) if equation.outvars else 0
        if equation.primitive.name in ("conv_general_dilated", "jaxattr_convolve"):
            # A kernel is (rows, columns, channels, features), as all networks here have it.
            total += 2 * size * math.prod(shapes[1][:-1])
        elif equation.primitive.name == "dot_general":
            (contracted, _), _ = equation.params["dimension_numbers"]
            total += 2 * size * math.prod(shapes[0][axis] for axis in contracted)
        for inner in jax.tree.leaves(list(equation.params.values()), is_leaf=lambda value: hasattr(value, "eqns")):
            body = getattr(inner, "jaxpr", inner)
            total += _operations(body) if hasattr(body, "eqns") else 0
    return total


def compile_all(programs: Iterable[Program]) -> Iterator[tuple[Program, "Future[Compiled]"]]:
    """Compile a few programs side by side (one leaves cores idle), and yield them when none compiles any more."""
    left = list(programs)
    while left:
        few, left = left[:COMPILERS], left[COMPILERS:]
        with ThreadPoolExecutor(COMPILERS) as pool:
            found = [(program, pool.submit(compile_program, program)) for program in few]
        yield from found


def timed(run: Callable[[], Any], *, repeats: int = 7, wait: Callable[[Any], Any] = jax.block_until_ready) -> float:
    """Return the median seconds of a call, after one that does not count; long calls are repeated less often."""
    wait(run())
    taken: list[float] = []
    while len(taken) < repeats and (len(taken) < 2 or sum(taken) < _LONGEST):
        begin = time.perf_counter()
        wait(run())
        taken.append(time.perf_counter() - begin)
    return statistics.median(taken)


def row(program: Program, compiled: Compiled) -> dict[str, Any]:
    """Time a compiled program, and return its line of a table."""
    seconds = timed(lambda: compiled.run(*program.arguments))
    return {
        "name": program.name,
        "samples": program.samples,
        "seconds": seconds,
        "a_second": program.samples / seconds,
        "compile_seconds": round(compiled.seconds, 2),
        "megabytes": compiled.megabytes,
    }


def torch_device() -> Any:
    """Return PyTorch's device of JAX's kind (GPU or CPU), or None if PyTorch is not installed."""
    if importlib.util.find_spec("torch") is None:
        return None
    import torch  # noqa: PLC0415 (optional)  # pyright: ignore[reportMissingImports]

    return torch.device("cuda" if jax.default_backend() == "gpu" and torch.cuda.is_available() else "cpu")


def torch_seconds(run: Callable[[], Any]) -> float:
    """Time a call as :func:`timed` does, and wait for PyTorch's device, which may compute after the call returns."""
    import torch  # noqa: PLC0415 (optional)  # pyright: ignore[reportMissingImports]

    def wait(_: Any) -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()

    return timed(run, repeats=5, wait=wait)


def precise_torch(precise: bool) -> None:
    """Give PyTorch full float32, or the 10 bits of mantissa that matrix units take, JAX's default too."""
    import torch  # noqa: PLC0415 (optional)  # pyright: ignore[reportMissingImports]

    torch.backends.cudnn.allow_tf32 = not precise
    torch.backends.cuda.matmul.allow_tf32 = not precise
