"""Run all benchmarks of an accelerator by one command: half an hour gives numbers, tables and trained networks.

    make accelerator [BUDGET=1500] [OUT=accelerator] [DEVICE=cpu SIZE=tiny] [DATA=packed]
    python -m benchmarks.accelerator --budget 1500 --output accelerator --data-dir packed

A queue runs in order of worth: the device's own rates; the numerical tests on the device; rates of the library's
computations beside PyTorch; trainings with the papers' settings, each for its share of the time; bounds and attacks of
1,000 samples. Each job has a time limit and a file of results, written when it ends: the same command continues a call
that was interrupted, or whose budget ended. It needs no network and installs nothing; it first names missing packages.
``python -m experiments take-in OUTPUT`` takes the results in.
"""

import argparse
import importlib.util
import json
import os
import platform
import sys
import tarfile
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from benchmarks import _trainings
from benchmarks._queue import Job, Queue, read

OPTIONAL = {
    "tensorflow_datasets": "data have to be packed (`python -m experiments pack-data`)",
    "array_record": "as without tensorflow_datasets",
    "PIL": "no CIFAR-10",
    "sklearn": "no digits",
    "orbax": "trainings keep no checkpoints: one that is stopped begins again",
    "tyro": "no command line of experiments, which nothing here needs",
    "polars": "no tables of Wang and Kong 2023 beyond those of the job `samples`",
    "pytest": "no tests",
    "xdist": "tests in one process",
    "torch": "no column of PyTorch",
}
"""Packages that some machines lack, and the results that are left out without them."""


LARGEST = 14_000_000
"""Largest size in bytes of a file in an archive."""


def jobs(size: str, data_dir: str | None) -> list[Job]:
    """List the jobs of the queue, the most valuable first."""
    tiny = size == "tiny"
    card, rates = "benchmarks._card", "benchmarks._rates"
    measured = [
        Job("device", f"{card}:device", 60),
        Job("hessian", f"{card}:hessian", 60),
        Job("convolutions", f"{card}:convolutions", 60),
        Job("mnist", f"{rates}:mnist", 150),
        Job("steps", f"{rates}:steps", 120),
        Job("resnet", f"{rates}:resnet", 120),
        Job("kendall", f"{rates}:kendall", 40),
        # The tests run beside the first trainings, since they mostly compile.
        Job("tests", "benchmarks._checks:tests", 30 if tiny else 160, alone=False, needs=("pytest",)),
    ]
    trained = _trainings.jobs(size, data_dir)
    return [*measured, *trained, Job("samples", "benchmarks._samples:samples", 600, alone=False, least=20)]


def missing() -> dict[str, str]:
    """Return the optional packages that are missing, each with the results that are left out."""
    return {name: words for name, words in OPTIONAL.items() if not _there(name)}


def _there(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ImportError:
        return False


def archive(folder: Path, target: Path) -> None:
    """Pack all results into one file, and networks into one per data set, for places that hand back few files.

    Checkpoints are left out, and files larger than :data:`LARGEST`.

    Args:
      folder: folder of results.
      target: folder of the archives.
    """
    target.mkdir(parents=True, exist_ok=True)
    parts: dict[str, list[Path]] = {"results": [path for path in folder.iterdir() if path.suffix in (".json", ".log")]}
    for directory in sorted((folder / "networks").glob("*")):
        parts.setdefault(directory.name.partition("-")[0], []).extend(
            path for path in directory.iterdir() if path.is_file() and path.stat().st_size <= LARGEST
        )
    for name, paths in parts.items():
        draft = target / f".{name}.tar.gz.tmp"
        with tarfile.open(draft, "w:gz", compresslevel=1) as tar:
            for path in paths:
                tar.add(path, path.relative_to(folder))
        draft.replace(target / f"{name}.tar.gz")


def main(arguments: list[str] | None = None) -> int:
    """Run the queue; return 0 if no job failed, 1 otherwise."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--budget", type=float, default=1500, help="time budget in seconds")
    parser.add_argument(
        "--output", type=Path, default=Path("accelerator"), help="folder of results, which the next call continues"
    )
    parser.add_argument("--data-dir", default="packed", help="folder of packed data, or of TFDS data")
    parser.add_argument("--device", choices=("gpu", "cpu"), help="by default the device that JAX finds")
    parser.add_argument("--size", choices=("full", "tiny"), default="full", help="tiny: everything once, as a trial")
    parser.add_argument("--workers", type=int, default=3, help="number of trainings at the same time")
    parser.add_argument("--only", nargs="+", metavar="JOB", help="run these jobs alone")
    parser.add_argument("--skip", nargs="+", metavar="JOB", default=[], help="run all jobs but these")
    parser.add_argument("--again", action="store_true", help="another call will follow: plan trainings beyond this one")
    parser.add_argument("--archive", type=Path, help="folder for archives of the results, written after each job")
    given = parser.parse_args(arguments)
    began = time.monotonic()
    folder = given.output.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    absent = missing()
    print(f"Python {platform.python_version()}, " + ", ".join(f"{name} {_version(name)}" for name in _PACKAGES))
    for name, words in absent.items():
        print(f"missing: {name}: {words}")
    data_dir = given.data_dir if Path(given.data_dir).is_dir() else os.environ.get("TFDS_DATA_DIR")
    queue = jobs(given.size, data_dir)
    unknown = {*(given.only or ()), *given.skip} - {job.name for job in queue}
    if unknown:
        parser.error(f"unknown: {', '.join(sorted(unknown))}; jobs are {', '.join(job.name for job in queue)}")
    chosen = [job for job in queue if (not given.only or job.name in given.only) and job.name not in given.skip]
    for job in chosen:
        without = [name for name in job.needs if name in absent]
        if without:
            print(f"left out: {job.name}, which needs {', '.join(without)}")
    chosen = [job for job in chosen if not set(job.needs) & set(absent)]

    def after() -> None:
        if given.archive:
            archive(folder, given.archive.absolute())

    worked = Queue(
        chosen,
        folder,
        size=given.size,
        data_dir=data_dir,
        workers=given.workers,
        environment=_environment(given.device, given.size, folder),
        again=given.again,
        after=after,
    )
    status = worked.run(given.budget - (time.monotonic() - began))
    summary = {"size": given.size, "missing": absent, "status": status, "seconds": round(time.monotonic() - began, 1)}
    (folder / "summary.json").write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
    after()
    print(f"\n{_table(folder, status)}\n{summary['seconds']} s of {given.budget:.0f}; results: {given.output}")
    return int("failed" in status.values())


_PACKAGES = ("jax", "jaxlib", "flax", "optax", "numpy")


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "missing"


def _environment(device: str | None, size: str, folder: Path) -> dict[str, str]:
    """Return the environment variables of the workers; those that the user has set stay."""
    chosen = {
        # Several processes share the memory, and take what they need.
        "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
        # Without the search for the best program of every matrix product these networks compile in half of the time
        # and run as fast: their products are convolutions.
        "XLA_FLAGS": "--xla_gpu_enable_triton_gemm=false" + " --xla_backend_optimization_level=0" * (size == "tiny"),
        "JAX_COMPILATION_CACHE_DIR": str(folder / ".cache"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.5",
    }
    chosen = {name: value for name, value in chosen.items() if name not in os.environ}
    chosen["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    if device is not None:
        chosen["JAX_PLATFORMS"] = {"gpu": "cuda", "cpu": "cpu"}[device]
    return chosen


def _table(folder: Path, status: dict[str, str]) -> str:
    lines = ["| job | | s | |", "| --- | --- | --: | --- |"]
    for name, state in status.items():
        record: dict[str, Any] = read(folder, name)
        lines.append(f"| {name} | {state} | {record.get('seconds', '')} | {str(record.get('error', ''))[:100]} |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
