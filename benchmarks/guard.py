"""Measure how long the guard and `ja.smooth` take while a program is traced, and what the guard leaves in it.

    python -m benchmarks.guard

The network is EfficientNet-Lite0 at 224 x 224 pixels, as smooth and as the original; the bound is of its saliency. The
guard traces the network once more, beside the traces that the bound makes, and looks at what it has traced.
"""

import argparse
import time

import jax
import jax.numpy as jnp

import jaxattr as ja
from jaxattr.models import EfficientNetLite0
from jaxattr.programs import guard, interpreter
from jaxattr.programs.kinks import find


def main() -> None:
    """Print seconds and whether the programs are the same."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=224)
    size = parser.parse_args().size
    x, key = jnp.full((size, size, 3), 0.5), jax.random.key(0)
    for beta in (25.0, None):
        model = EfficientNetLite0(beta=beta)
        shapes = jax.eval_shape(lambda key, model=model: ja.models.init(model, key, x.shape), key)
        network = ja.models.logits_fn(model, jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes))
        traced, (program, _) = seconds(lambda network=network: interpreter.trace(network, x))
        looked, found = seconds(lambda program=program: find(program, [True]))
        again, _ = seconds(lambda network=network: check(network, x))
        cached, _ = seconds(lambda network=network: check(network, x))
        print(
            f"beta={beta}: {operations(program.jaxpr)} operations, trace {traced:.2f} s, search {looked:.2f} s,"
            f" {len(found)} kinks; first check {again:.2f} s, later ones {1e3 * cached:.2f} ms"
        )
        with_check, text = seconds(lambda network=network: lowered(network, x))
        checks = guard.check, guard.require_precision
        guard.check = guard.require_precision = lambda *_, **__: 0
        without, other = seconds(lambda network=network: lowered(network, x))
        guard.check, guard.require_precision = checks
        print(
            f"  program of J v: traced and lowered in {with_check:.2f} s with the check, after the first, and in"
            f" {without:.2f} s without; the same text: {text == other}"
        )
    made, twin = seconds(lambda: ja.smooth(network, x, beta=25.0))
    traced, (program, _) = seconds(lambda: interpreter.trace(twin, x))
    print(
        f"ja.smooth of the last: {made:.2f} s; the twin is traced in {traced:.2f} s,"
        f" {operations(program.jaxpr)} operations, {len(find(program, [True]))} kinks"
    )


def check(network, x) -> int:
    """Call the guard as a bound does."""
    return guard.check(ja.attributions.saliency(), network, x, "allow", method="singular_value")


def lowered(network, x) -> str:
    """Return the text of the program for one product with the Jacobian of the saliency."""

    def product(network, x, v):
        jacobian = ja.attribution_jacobian(ja.attributions.saliency(), network, x, 0, linearize=False, kinks="allow")
        return jacobian.matvec(v)

    return jax.jit(product).lower(network, x, x).as_text()


def operations(jaxpr) -> int:
    """Count the operations of a program, inner programs included."""
    inner = [interpreter.body(equation) for equation in jaxpr.eqns]
    return len(jaxpr.eqns) + sum(operations(program.jaxpr) for program in inner if program is not None)


def seconds(function):
    """Return the seconds that a call takes, and its result."""
    start = time.perf_counter()
    result = function()
    return time.perf_counter() - start, result


if __name__ == "__main__":
    main()
