"""Compile, count and time a program, for the jobs of ``benchmarks.accelerator``."""

import importlib.util
import statistics
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple

import jax

COMPILERS = 6
_LONGEST = 3.0


class Program(NamedTuple):
    """What is measured.

    Attributes:
      name: of its row.
      function: compiled.
      arguments: it is called with; a list of several is gone round, so that no run finds the last one's data.
      samples: that one call handles.
    """

    name: str
    function: Callable[..., Any]
    arguments: tuple[Any, ...]
    samples: int


class Compiled(NamedTuple):
    """A program that can be timed.

    Attributes:
      run: the executable.
      seconds: it took to compile.
      flops: of one call, as counted by XLA before it optimizes; None where it does not say.
      megabytes: temporaries and results.
    """

    run: Callable[..., Any]
    seconds: float
    flops: float | None
    megabytes: float | None


def compile_program(program: Program) -> Compiled:
    """Compile ahead of time."""
    begin = time.perf_counter()
    lowered = jax.jit(program.function).lower(*program.arguments)
    flops = counted(lowered)
    compiled = lowered.compile()
    seconds = time.perf_counter() - begin
    analysis = compiled.memory_analysis()
    megabytes = (analysis.temp_size_in_bytes + analysis.output_size_in_bytes) / 1e6 if analysis else None
    return Compiled(compiled, seconds, flops, megabytes)


def counted(lowered: Any) -> float | None:
    """Floating-point operations of a program before it is optimized, where the backend counts them."""
    try:
        analysis: Any = lowered.cost_analysis()
    except Exception as error:
        print(f"no operations counted: {error!r}")
        return None
    return (analysis or {}).get("flops")


def compile_all(programs: Iterable[Program]) -> list[tuple[Program, "Future[Compiled]"]]:
    """Compile side by side: compiling leaves most cores idle, and measuring begins when all is compiled."""
    with ThreadPoolExecutor(COMPILERS) as pool:
        return [(program, pool.submit(compile_program, program)) for program in programs]


def timed(run: Callable[[], Any], *, repeats: int = 7, wait: Callable[[Any], Any] = jax.block_until_ready) -> float:
    """Median seconds of a call, after one that does not count; fewer calls where they are long."""
    wait(run())
    taken: list[float] = []
    while len(taken) < repeats and (len(taken) < 2 or sum(taken) < _LONGEST):
        begin = time.perf_counter()
        wait(run())
        taken.append(time.perf_counter() - begin)
    return statistics.median(taken)


def row(program: Program, compiled: Compiled) -> dict[str, Any]:
    """Time a compiled program: a line of a table."""
    seconds = timed(lambda: compiled.run(*program.arguments))
    return {
        "name": program.name,
        "samples": program.samples,
        "seconds": seconds,
        "a_second": program.samples / seconds,
        "compile_seconds": round(compiled.seconds, 2),
        "megabytes": compiled.megabytes,
        "tflops": None if compiled.flops is None else compiled.flops / seconds / 1e12,
    }


def torch_device() -> Any:
    """PyTorch and its device of the kind that JAX computes on, or None where there is no PyTorch."""
    if importlib.util.find_spec("torch") is None:
        return None
    import torch  # noqa: PLC0415 (optional)

    return torch.device("cuda" if jax.default_backend() == "gpu" and torch.cuda.is_available() else "cpu")


def torch_seconds(run: Callable[[], Any]) -> float:
    """As :func:`timed`, of a call that may return before PyTorch's device has computed."""
    import torch  # noqa: PLC0415 (optional)

    def wait(_: Any) -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()

    return timed(run, repeats=5, wait=wait)


def precise_torch(precise: bool) -> None:
    """Float32 as it is, or with the 10 bits of mantissa that matrix units take, which JAX takes by default too."""
    import torch  # noqa: PLC0415 (optional)

    torch.backends.cudnn.allow_tf32 = not precise
    torch.backends.cuda.matmul.allow_tf32 = not precise
