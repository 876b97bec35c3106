"""Measure seconds per step and peak memory of every training objective on the 4-conv network of MNIST size, batch 50.

    python -m benchmarks.training [--batch 50] [--only NAME ...] [--repeats 3]

One step is attack, loss, gradient and Adam, as :func:`jaxattr.fit` compiles it. The column of PyTorch is filled for
adversarial training and IG-NORM where ``torch`` can be imported. Memory is the compiler's own count of temporaries.
Machines are shared and noisy: read the ratios within one run. (10 path points and 7 attack steps wherever an objective
has them; PGD has 10 steps in adversarial training and TRADES.)
"""

import argparse
import importlib.util
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import optax

import jaxattr as ja
from benchmarks.spine import random_network, seconds
from jaxattr.labeled import Batch

EPSILON = 0.1
PATH, STEPS, PGD_STEPS = 10, 7, 10


def objectives() -> dict[str, tuple[Callable[[], Any], str | None]]:
    """List the objectives as ``name: (constructor, method of the opponent)``."""
    d, ball = ja.defenses, ja.LInf(EPSILON)
    attack = ja.attacks.pgd(ball, num_steps=PGD_STEPS)
    ig = ja.attributions.integrated_gradients(PATH)
    path: Any = {"num_steps": STEPS, "path_steps": PATH, "attack_path_steps": PATH}
    return {
        "natural": (d.natural, None),
        "adversarial": (lambda: d.adversarial(attack), "adversarial"),
        "trades": (lambda: d.trades(ball, num_steps=PGD_STEPS), None),
        "art": (lambda: d.art(ball), None),
        "trades_igr": (lambda: d.igr(d.trades(ball, num_steps=PGD_STEPS), ig), None),
        "ig_norm": (lambda: d.ig_norm(ball, **path), "ig_norm"),
        "ig_norm, rematerialized": (lambda: d.ig_norm(ball, rematerialize=True, **path), "ig_norm"),
        "ig_sum_norm": (lambda: d.ig_sum_norm(ball, **path), None),
        "aat": (lambda: d.aat(ig, ball, num_steps=STEPS), None),
        "adv_aat": (lambda: d.adv_aat(ig, ball, num_steps=STEPS), None),
    }


def step_of(objective: Any, apply_fn: Any, optimizer: optax.GradientTransformation) -> Callable[..., Any]:
    """Build the function that updates the parameters once."""

    def step(variables, state, batch, key):
        def loss_fn(params):
            return objective(apply_fn, {**variables, "params": params}, batch, key)

        (loss, _), gradient = jax.value_and_grad(loss_fn, has_aux=True)(variables["params"])
        updates, state = optimizer.update(gradient, state)
        return {**variables, "params": optax.apply_updates(variables["params"], updates)}, state, loss

    return step


def main() -> None:
    """Measure the objectives and print the table, row by row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=50)
    parser.add_argument("--only", nargs="+", choices=list(objectives()), default=list(objectives()))
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    model, variables = random_network()
    optimizer = optax.adam(1e-4)
    state = optimizer.init(variables["params"])
    xs = np.asarray(jax.random.uniform(jax.random.key(3), (options.batch, 28, 28, 1)))
    batch = Batch(xs, np.arange(options.batch, dtype=np.int32) % 10)
    opponent: Any = None
    if importlib.util.find_spec("torch") is not None:
        from benchmarks.torch_baseline import Trainer  # noqa: PLC0415 (optional)

        opponent = Trainer(variables["params"], xs, batch.label, EPSILON)
    print(f"{jax.devices()[0].device_kind}, JAX {jax.__version__}, float32, batch {options.batch}\n")
    print(
        "| objective | compile s | s a step | MB | PyTorch s | ours / PyTorch |\n| --- | --: | --: | --: | --: | --: |"
    )
    for name in options.only:
        constructor, way = objectives()[name]
        step = step_of(constructor(), ja.models.apply_fn(model), optimizer)
        begin = time.perf_counter()
        compiled = jax.jit(step).lower(variables, state, batch, jax.random.key(0)).compile()
        compile_seconds = time.perf_counter() - begin
        jax.block_until_ready(compiled(variables, state, batch, jax.random.key(0)))
        ours = seconds(lambda run=compiled: run(variables, state, batch, jax.random.key(1)), options.repeats)
        analysis = compiled.memory_analysis()
        megabytes = analysis.temp_size_in_bytes / 1e6 if analysis else float("nan")
        theirs = ratio = ""
        if opponent is not None and way is not None:
            taken = seconds(lambda run=way: getattr(opponent, run)(PATH, STEPS, PGD_STEPS), options.repeats)
            theirs, ratio = f"{taken:.3f}", f"{ours / taken:.2f}"
        print(f"| {name} | {compile_seconds:.1f} | {ours:.3f} | {megabytes:.0f} | {theirs} | {ratio} |", flush=True)


if __name__ == "__main__":
    main()
