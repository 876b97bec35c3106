"""Format the measurements of ``benchmarks.accelerator`` as Markdown."""

from collections.abc import Iterable, Mapping
from typing import Any

from jaxattr.audit.columns import Table

Records = Mapping[str, Mapping[str, Any]]
"""Records of the jobs by name: each has a status, and the findings under ``result``."""

TRAINED = ("steps", "paper_steps", "accuracy", "pgd_accuracy")


def page(records: Records) -> str:
    """Format all tables, each with a heading; tables of jobs that did not run are left out."""
    parts = [
        ("The device", device(records)),
        ("Products with the Hessian", hessian(records)),
        ("The MNIST network", computations(records, "mnist")),
        ("ResNet-18 of full width, 32 x 32 x 3", computations(records, "resnet")),
        ("A training step of every objective", steps(records)),
        ("Kendall's tau-b", kendall(records)),
        ("Convolutions", convolutions(records)),
        ("Trained networks", trainings(records)),
        ("Bounds and attacks", samples(records)),
        ("Tests on the device", tests(records)),
        ("What did not finish", unfinished(records)),
    ]
    return "\n\n".join(f"### {title}\n\n{text}" for title, text in parts if text) + "\n"


def result(records: Records, name: str) -> Mapping[str, Any]:
    """Return the findings of a job; empty if it did not run."""
    return records.get(name, {}).get("result") or {}


def device(records: Records) -> str:
    """Format the device's name, versions and two ceilings: memory traffic and matrix products."""
    found = result(records, "device")
    if not found:
        return ""
    head = f"{found['device']}, JAX {found['jax']}, Python {found['python']}."
    copy = f" A pass over memory moves {found['copy_gb_a_second']:,.0f} GB a second, bytes read and written."
    rows = [
        [f"{row['size']:,}", row["dtype"], row["precision"], f"{row['tflops']:.1f}"] for row in found.get("rates", ())
    ]
    return f"{head}{copy}\n\n" + _table(("matrices", "dtype", "precision", "TFLOP/s"), rows, left=3)


def hessian(records: Records) -> str:
    """Format Hessian products a second by batch."""
    found = result(records, "hessian")
    if not found.get("rows"):
        return ""
    rows = [
        [row["name"], _number(row["a_second"]), f"{row['tflops']:.1f}", _percent(row["share"]), _mb(row)]
        for row in found["rows"]
    ]
    words = (
        "`jvp` of `grad` for one direction a sample, counted as four forward passes. *precise* is full float32, as"
        " bounds take it; *default* is what JAX does by itself, whose factors have 10 bits (TF32). The share is of"
        f" float32's rate in a matrix product, {found['peak_float32_tflops']:.0f} TFLOP/s.\n\n"
    )
    return words + _table(("network, precision, batch", "products/s", "TFLOP/s", "share", "MB"), rows)


def computations(records: Records, job: str) -> str:
    """Format samples a second beside PyTorch, and hours for ten million attacks."""
    rows, torch = [], False
    for row in result(records, job).get("rows", ()):
        if "seconds" not in row:
            rows.append([row["name"], "", "", "", "", row.get("error", "").splitlines()[0][:60]])
            continue
        theirs = row.get("torch_seconds")
        torch |= theirs is not None
        rows.append(
            [
                row["name"],
                f"{row['samples']:,}",
                _number(row["a_second"]),
                f"{row['compile_seconds']:.1f}",
                _mb(row),
                "" if theirs is None else _number(row["samples"] / theirs),
                "" if theirs is None else f"{row['seconds'] / theirs:.2f}",
                _hours(row),
            ]
        )
    head = ("computation", "at once", "samples/s", "compile s", "MB", "PyTorch samples/s", "ours / PyTorch")
    head = (*head, "hours for 10,000,000")
    kept = [i for i in range(len(head)) if torch or i not in (5, 6)]
    return _table([head[i] for i in kept], [[row[i] for i in kept if i < len(row)] for row in rows]) if rows else ""


def steps(records: Records) -> str:
    """Format training steps a second of every objective."""
    rows = []
    for row in result(records, "steps").get("rows", ()):
        theirs = row.get("torch_seconds")
        cells = [row["name"], _number(row["steps_a_second"]), f"{row['compile_seconds']:.1f}", _mb(row)]
        cells += ["", ""] if theirs is None else [_number(1 / theirs), f"{row['seconds'] / theirs:.2f}"]
        rows.append(cells)
    head = ("objective", "steps/s", "compile s", "MB", "PyTorch steps/s", "ours / PyTorch")
    words = (
        "The settings of `benchmarks.training`: 10 path points, 7 attack steps on attributions, 10 on predictions.\n\n"
    )
    return words + _table(head, rows) if rows else ""


def kendall(records: Records) -> str:
    """Format pairs a second of Kendall's tau-b beside SciPy."""
    rows = [
        [
            f"{row['features']:,}",
            f"{row['ties']:.0%}",
            _number(row["a_second"]),
            _number(1 / row["scipy_seconds"]),
            f"{row['over_scipy']:.4f}",
            f"{row['difference']:.0e}",
        ]
        for row in result(records, "kendall").get("rows", ())
    ]
    head = ("features", "ties", "pairs/s", "SciPy on the host, pairs/s", "ours / SciPy", "largest difference")
    return _table(head, rows) if rows else ""


def convolutions(records: Records) -> str:
    """Format the time of our convolutions over ``lax``'s."""
    found = result(records, "convolutions")
    taken = {row["name"]: row["seconds"] for row in found.get("rows", ())}
    rows = []
    for name, ours in taken.items():
        layer, _, way = name.partition(", ours")
        if way == "" and name.endswith(", ours") and f"{layer}, lax, in a loop" in taken:
            loop = taken[f"{layer}, ours, in a loop"] / taken[f"{layer}, lax, in a loop"]
            rows.append([layer, f"{ours / taken[f'{layer}, lax']:.2f}", f"{loop:.2f}"])
    if not rows:
        return ""
    words = (
        "`jaxattr.models.convolution` steps aside on accelerators: it is `lax`'s there. Its maps for CPUs, run here"
        f" anyway: the largest relative difference is {found['largest_relative_difference']:.0e}.\n\n"
    )
    return words + _table(("layer, map", "ours / lax", "in a loop"), rows)


def trainings(records: Records) -> str:
    """Format the accuracies of the networks that were trained."""
    rows = []
    for name, record in records.items():
        found = record.get("result") or {}
        if record.get("status") != "done" or not all(found.get(key) is not None for key in TRAINED):
            continue
        dataset, _, defense = name.partition("-")
        attack = found["pgd"]
        rows.append(
            [
                dataset,
                defense,
                f"{found['steps']:,} of {found['paper_steps']:,}",
                f"{found['seconds']:.0f}",
                f"{100 * found['accuracy']:.1f} %",
                f"{100 * found['pgd_accuracy']:.1f} %",
                f"{attack['epsilon']:.3g}, {attack['steps']} steps",
                f"{found['test_samples']:,}",
            ]
        )
    head = ("data", "defense", "steps of the papers'", "s", "accuracy", "under PGD", "radius", "test samples")
    words = (
        "The preset `paper`, cut to the steps that fit; several were trained at the same time, which the seconds"
        " include.\n\n"
    )
    return words + _table(head, rows, left=2) if rows else ""


def samples(records: Records) -> str:
    """Format bounds and attacks of many samples."""
    rows = []
    for row in result(records, "samples").get("rows", ()):
        for bound in ("singular_value", "smaller", "semidefinite"):
            if bound in row:
                values = row[bound]
                rows.append(
                    [
                        row["network"],
                        f"{row['norm']}, {row['epsilon']:g}",
                        bound,
                        f"{row['samples']:,}",
                        f"{values['euclidean']:.4g}",
                        f"{row['furthest_euclidean']:.4g}",
                        _percent(values["beyond"]),
                        f"{row['seconds']:.1f}",
                    ]
                )
    head = ("network", "norm, radius", "bound", "samples", "mean bound", "mean of furthest attacks", "beyond", "s")
    return _table(head, rows, left=3) if rows else ""


def tests(records: Records) -> str:
    """Format the counts of tests, and failures by name."""
    found = result(records, "tests")
    if not found:
        return ""
    counts = ", ".join(f"{count} {outcome.lower()}" for outcome, count in sorted(found["counts"].items()))
    stopped = "" if found["complete"] else " before their time was over"
    lines = [f"{counts}{stopped}.", *(f"- `{name}`" for name in found["failed"])]
    return lines[0] + ("\n\n" + "\n".join(lines[1:]) if len(lines) > 1 else "")


def unfinished(records: Records) -> str:
    """List jobs that failed, were stopped or never began."""
    rows = [
        [name, record.get("status", ""), str(record.get("error", ""))[:100].replace("|", "/")]
        for name, record in records.items()
        if record.get("status") != "done"
    ]
    return _table(("job", "", ""), rows, left=3) if rows else ""


def _table(head: Iterable[str], rows: Iterable[Iterable[str]], left: int = 1) -> str:
    cells = tuple(tuple(map(str, row)) for row in rows)
    return Table("", tuple(head), cells, left).markdown()


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.1f} %"


def _mb(row: Mapping[str, Any]) -> str:
    return "" if row.get("megabytes") is None else f"{row['megabytes']:,.0f}"


def _hours(row: Mapping[str, Any]) -> str:
    """Format the hours for ten million attacks of one kind, the headline of Wang and Kong 2023."""
    if not row["name"].startswith(("PGD", "IFIA")):
        return ""
    return (
        _number(10_000_000 / row["a_second"] / 3600) if row["a_second"] < 30_000 else f"{2777.8 / row['a_second']:.2f}"
    )
