"""Job of ``benchmarks.accelerator`` that runs the quick numerical tests on the device."""

import collections
import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax

from benchmarks._queue import Context

ROOT = Path(__file__).parents[1]
FILES = (
    *("tests/models/test_convolutions.py", "tests/models/test_pooling.py", "tests/test_jacobian.py"),
    *("tests/test_spectral.py", "tests/attacks/test_pgd.py", "tests/attacks/test_ifia.py"),
    *(
        "tests/bounds/test_singular_value.py",
        "tests/bounds/test_norm_relaxation.py",
        "tests/bounds/test_semidefinite.py",
    ),
    *("tests/metrics/test_rank.py", "tests/metrics/test_distance.py", "tests/metrics/test_topk.py"),
    *("tests/attributions/test_saliency.py", "tests/attributions/test_integrated_gradients.py"),
    *("tests/test_parallel.py", "tests/test_numerics.py", "tests/bounds/test_ranks.py", "tests/test_properties.py"),
)
_LINE = re.compile(
    r"(PASSED|FAILED|ERROR|SKIPPED)\s.*?(tests/\S+(?:\[.*\])?)|^(tests/\S+.*?) (PASSED|FAILED|ERROR|SKIPPED)"
)


def tests(context: Context) -> dict[str, Any]:
    """Run the tests until the time is over; return counts, and names of those that failed."""
    platform = "cpu" if jax.default_backend() == "cpu" else "cuda"
    files = [name for name in (FILES[:1] if context.tiny else FILES) if (ROOT / name).exists()]
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-v",
        "-p",
        "no:cacheprovider",
        "-p",
        "no:benchmark",
        "--tb=line",
        *files,
    ]
    if importlib.util.find_spec("xdist") is not None:
        command += ["-n", str(min(6, os.cpu_count() or 1))]
    if platform == "cuda" and jax.device_count() < 8:
        command += ["-k", "not shard_map and not eight_devices and not (number_of_devices and (3- or 8-))"]
    # JAX itself computes the reference values, and its default has 10 bits on matrix units.
    precise = {"JAX_DEFAULT_MATMUL_PRECISION": "highest"}
    variables = os.environ | precise | {"JAXATTR_TEST_PLATFORM": platform, "JAX_PLATFORMS": platform}
    log = context.folder / "tests.log"
    complete = True
    with log.open("w", encoding="utf-8") as stream:
        process = subprocess.Popen(command, cwd=ROOT, env=variables, stdout=stream, stderr=subprocess.STDOUT)
        try:
            status = process.wait(max(1.0, context.left - 5))
        except subprocess.TimeoutExpired:
            process.kill()
            status, complete = process.wait(), False
    text = log.read_text(encoding="utf-8")
    outcomes: dict[str, str] = {}
    for line in text.splitlines():
        found = _LINE.search(line)
        if found:
            outcomes[(found[2] or found[3]).strip()] = found[1] or found[4]
    counts = collections.Counter(outcomes.values())
    failed = sorted(name for name, outcome in outcomes.items() if outcome in ("FAILED", "ERROR"))
    reasons = [line[:300] for line in text.splitlines() if line.startswith(("E ", "/")) and "Error" in line][:40]
    result = {"complete": complete, "status": status, "counts": counts, "failed": failed, "reasons": reasons}
    if complete and not outcomes:
        raise RuntimeError(f"no test ran: {text[-500:]}")
    return result
