"""Measure seconds and peak memory per sample of the library's main computations on a network of MNIST size.

    python -m benchmarks.spine [--quick]

Takes a few minutes on two CPU cores. Prints a Markdown table, with the ratio to plain PyTorch in the same run where
PyTorch can be imported (an option; nothing needs it). Machines are shared and noisy: read the ratios. Memory is the
compiler's own count of temporaries, for PyTorch it is not known.
"""

import argparse
import functools
import importlib.util
import platform
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import numpy as np

import jaxattr as ja

EPSILON = 0.1


class Row(NamedTuple):
    """One line of the table."""

    name: str
    batch: int
    compile_seconds: float
    seconds: float
    megabytes: float
    torch_seconds: float | None


def seconds(function: Callable[[], Any], repeats: int) -> float:
    """Return the seconds of the best of several runs: noise only adds time."""
    best = float("inf")
    for _ in range(repeats):
        begin = time.perf_counter()
        jax.block_until_ready(function())
        best = min(best, time.perf_counter() - begin)
    return best


def random_network(shape: tuple[int, int, int] = (28, 28, 1)) -> tuple[nn.Module, Any]:
    """Build the 4-conv network with every weight random (a fresh one has zeros in the last layer)."""
    model = ja.models.ConvNet()
    variables = ja.models.init(model, jax.random.key(0), shape)
    last = variables["params"]["Dense_2"]
    kernel = jax.random.normal(jax.random.key(1), last["kernel"].shape) / np.sqrt(last["kernel"].shape[0])
    return model, {"params": {**variables["params"], "Dense_2": {**last, "kernel": kernel}}}


def methods(quick: bool) -> list[tuple[str, Callable[..., Any], int, Callable[[Any, Any], Any] | None]]:
    """List ``(name, method, samples at once, the same in PyTorch)``."""
    ball, box = ja.LInf(EPSILON), ja.L2(EPSILON)
    saliency = ja.attributions.saliency()
    ig20 = ja.attributions.integrated_gradients(20)
    ig50 = ja.attributions.integrated_gradients(50)
    bounds = ja.bounds

    def without_key(attribute):
        return lambda logits_fn, x, label, _: attribute(logits_fn, x, label)

    def full(attribute, chunk):
        return lambda f, x, y, _: ja.attribution_jacobian(attribute, f, x, y).dense(chunk)

    rows = [
        (
            "integrated gradients, 50 steps",
            without_key(ig50),
            16,
            lambda t, xs: [t.integrated_gradients(x, 50) for x in xs],
        ),
        ("saliency: full Jacobian", full(saliency, 32), 2, lambda t, xs: [t.jacobian(t.saliency, x, 112) for x in xs]),
        (
            "saliency: sigma_max within 1 %, Lanczos",
            bounds.singular_value(saliency, box),
            16,
            lambda t, xs: [t.power_iteration(t.saliency, x) for x in xs],
        ),
        (
            "IG-20: sigma_max within 1 %, Lanczos",
            bounds.singular_value(ig20, box),
            8,
            lambda t, xs: [t.power_iteration(functools.partial(t.integrated_gradients, num_steps=20), x) for x in xs],
        ),
        ("PGD-20", ja.attacks.pgd(ball), 32, lambda t, xs: t.pgd(xs, EPSILON, 20)),
        (
            "IFIA top-k, 50 steps on IG-20",
            ja.attacks.ifia(ball, ig20, num_steps=50),
            4,
            lambda t, xs: t.ifia(xs, EPSILON, 50, 20, 100),
        ),
    ]
    if not quick:
        rows.insert(
            2,
            (
                "IG-20: full Jacobian",
                full(ig20, 16),
                1,
                lambda t, xs: [t.jacobian(functools.partial(t.integrated_gradients, num_steps=20), x, 16) for x in xs],
            ),
        )
        rows.insert(3, ("saliency: Theorem 2", bounds.entrywise(saliency, ball), 2, None))
    return rows


def measure(method: Any, logits_fn: Any, xs: jax.Array, repeats: int) -> tuple[float, float, float]:
    """Measure seconds to compile, seconds per sample, and megabytes of temporaries per sample."""
    keys = jax.random.split(jax.random.key(2), len(xs))
    program = jax.jit(jax.vmap(lambda f, x, key: method(f, x, 0, key), in_axes=(None, 0, 0)))
    begin = time.perf_counter()
    compiled = program.lower(logits_fn, xs, keys).compile()
    compile_seconds = time.perf_counter() - begin
    jax.block_until_ready(compiled(logits_fn, xs, keys))
    best = seconds(lambda: compiled(logits_fn, xs, keys), repeats)
    analysis = compiled.memory_analysis()
    megabytes = (analysis.temp_size_in_bytes + analysis.output_size_in_bytes) / 1e6 if analysis else float("nan")
    return compile_seconds, best / len(xs), megabytes / len(xs)


def baseline(params: Any) -> Any:
    """Build the PyTorch opponent, or return None without PyTorch."""
    if importlib.util.find_spec("torch") is None:
        return None
    from benchmarks.torch_baseline import Baseline  # noqa: PLC0415 (optional)

    return Baseline(params)


def main() -> None:
    """Measure everything and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="leave out the full Jacobian of IG and Theorem 2")
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    model, variables = random_network()
    logits_fn = ja.models.logits_fn(model, variables)
    opponent = baseline(variables["params"])
    rows = []
    for name, method, batch, in_torch in methods(options.quick):
        xs = jax.random.uniform(jax.random.key(3), (batch, 28, 28, 1))
        compile_seconds, ours, megabytes = measure(method, logits_fn, xs, options.repeats)
        theirs = None
        if opponent is not None and in_torch is not None:
            images = opponent.images(xs)
            theirs = seconds(lambda run=in_torch, images=images: run(opponent, images), 1) / batch
        rows.append(Row(name, batch, compile_seconds, ours, megabytes, theirs))
        print(f"measured: {name}", flush=True)
    print(f"\n{jax.devices()[0].device_kind}, {platform.machine()}, JAX {jax.__version__}, float32\n")
    print("| computation | batch | compile s | s a sample | MB a sample | PyTorch s | ours / PyTorch |")
    print("| --- | --: | --: | --: | --: | --: | --: |")
    for row in rows:
        theirs = "" if row.torch_seconds is None else f"{row.torch_seconds:.4f}"
        ratio = "" if row.torch_seconds is None else f"{row.seconds / row.torch_seconds:.2f}"
        print(
            f"| {row.name} | {row.batch} | {row.compile_seconds:.1f} | {row.seconds:.4f} | {row.megabytes:.0f} |"
            f" {theirs} | {ratio} |"
        )
    # Check that both libraries have the same network: a difference here would void every number above.
    if opponent is not None:
        x = jax.random.uniform(jax.random.key(4), (28, 28, 1))
        ours = np.asarray(ja.attributions.saliency()(logits_fn, x, 0))
        theirs = opponent.saliency(opponent.images(x[None])[0]).permute(1, 2, 0).cpu().numpy()
        difference = np.max(np.abs(ours - theirs)) / np.max(np.abs(ours))
        print(f"\nlargest relative difference of the two saliency maps: {difference:.1e}")


if __name__ == "__main__":
    main()
