"""Eight simulated CPU devices, one compilation cache for all runs and workers, and annotations that are checked."""

import gc
import os
import pathlib

# Before JAX is imported: the number of CPU devices is fixed with the backend.
os.environ.setdefault("JAX_NUM_CPU_DEVICES", "8")
os.environ.setdefault("JAX_PLATFORMS", os.environ.get("JAXATTR_TEST_PLATFORM", "cpu"))
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# Of each worker: threads that wait for those of another make a decomposition many times as long.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
_ROOT = pathlib.Path(__file__).resolve().parent.parent
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(_ROOT / ".cache" / "jax"))
# Workers, and the processes that tests start, compile many of the same small programs.
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.02")

import annotations  # noqa: E402  (JAX reads the variables above when it is imported)

annotations.check("jaxattr")

from jaxattr import _xla  # noqa: E402

# Programs here are large and run for milliseconds.
_xla.compile_quickly(optimization_level=0)
# By default XLA splits a program into parts for many threads, which costs 15 % more in all; workers have a core each.
_xla.default_flag("xla_cpu_parallel_codegen_split_count", "1")
# Tracing makes millions of objects that live on; looking through all of them again and again finds nothing.
gc.set_threshold(50_000, 20, 100)
