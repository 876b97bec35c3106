"""Jobs of ``benchmarks.accelerator`` that train networks with the papers' settings, each for its share of the time.

A training that the papers give more updates than fit is cut short: its schedule is that of the paper over fewer steps,
which its card says. How many fit is measured first, with the very step that is trained; the number is kept with the
run, so that one that was stopped goes on from its checkpoint.
"""

import contextlib
import math
import time
from pathlib import Path
from typing import Any

from benchmarks._queue import Context, Job

# Trainings by worth; seconds are those of one of three processes that share a device. IG-NORM and AdvAAT come last:
# their steps are the longest by far, and what fits of the papers' 100,000 is too little for a network.
TRAININGS = (
    *(("mnist", "natural", 160), ("mnist", "adversarial", 330), ("mnist", "trades", 330), ("mnist", "trades_igr", 330)),
    *(("fashion_mnist", "natural", 160), ("fashion_mnist", "adversarial", 240), ("fashion_mnist", "trades", 190)),
    *(("mnist", "art", 160), ("cifar10_jpeg", "natural", 130), ("cifar10_jpeg", "adversarial", 190)),
    *(("fashion_mnist", "trades_igr", 180), ("fashion_mnist", "art", 120), ("cifar10_jpeg", "trades", 180)),
    *(("mnist", "ig_norm", 240), ("mnist", "adv_aat", 240)),
    *(("fashion_mnist", "ig_norm", 240), ("fashion_mnist", "adv_aat", 240)),
)
TINY = (("digits", "natural", 60), ("digits", "trades_igr", 60))
WIDTH = 16
"""Channels of the first stage of the residual network: what fits into the package as float16."""

MARGIN = 0.78
"""Share of the remaining time that planned steps may take."""
_CALIBRATION = 3.0


def jobs(size: str, data_dir: str | None) -> list[Job]:
    """List the trainings of all data sets that are present, the most valuable first."""
    names = TINY if size == "tiny" else TRAININGS
    return [
        Job(
            f"{dataset}-{defense}",
            "benchmarks._trainings:train",
            seconds,
            least=15 if size == "tiny" else 45,
            alone=False,
            needs=("sklearn",) if dataset == "digits" else (),
            options={"dataset": dataset, "defense": defense},
        )
        for dataset, defense, seconds in names
        if dataset == "digits" or _there(dataset, data_dir)
    ]


def _there(dataset: str, data_dir: str | None) -> bool:
    if data_dir is None:
        return False
    return (Path(data_dir) / f"{dataset}.npz").exists() or (Path(data_dir) / dataset).is_dir()


def train(context: Context, *, dataset: str, defense: str) -> dict[str, Any]:
    """Train one network and measure it on the full test set."""
    from experiments.datasets import defaults_of  # noqa: PLC0415 (what is slow to import)
    from experiments.training import train as training_runs  # noqa: PLC0415
    from experiments.training.recipes import Training  # noqa: PLC0415
    from experiments.training.train import TrainConfig  # noqa: PLC0415

    folder = context.folder / "networks" / f"{dataset}-{defense}"
    given: dict[str, Any] = {"preset": "smoke"} if context.tiny else _PAPER
    # Keep an earlier plan: the training that was stopped began with it.
    plan = {name: value for name, value in context.before.items() if name in _PLAN}
    width = WIDTH if defaults_of(dataset).model == "resnet18" else None
    described: dict[str, Any] = {"dataset": dataset, "defense": defense, "data_dir": context.data_dir, "width": width}
    if plan.keys() != _PLAN:
        config = TrainConfig(str(folder), **described, training=Training(**given))
        plan = _plan(context, training_runs.resolve(config))
    context.save(plan)
    training = Training(**given, steps=plan["steps"])
    config = training_runs.resolve(TrainConfig(str(folder), **described, training=training))
    card = training_runs.train(config)
    return plan | {name: card[name] for name in ("accuracy", "pgd_accuracy", "pgd", "test_samples", "seconds")}


_PLAN = {"paper_steps", "steps", "seconds_a_step", "batch_size"}
_PAPER: dict[str, Any] = {
    "preset": "paper",
    # This changes memory and time alone: a device wants path points side by side.
    "chunk": 50,
    # Accuracies in between use a part of the test set, those at the end all of it.
    "evaluations": 4,
    "evaluate_samples": 1000,
}


class _EnoughError(Exception):
    """Raised as soon as enough steps were timed."""


def _plan(context: Context, config: Any) -> dict[str, Any]:
    """Plan how many steps fit into the time, by running some of them."""
    import jax  # noqa: PLC0415
    import numpy as np  # noqa: PLC0415

    import jaxattr as ja  # noqa: PLC0415
    from experiments.datasets import defaults_of  # noqa: PLC0415
    from experiments.training import objectives  # noqa: PLC0415
    from experiments.training import train as training_runs  # noqa: PLC0415

    options = config.training
    data = ja.data.load(config.dataset, "train", config.data_dir, options.samples)
    batch_size = min(int(options.batch_size), len(data))
    paper = options.steps or max(1, round((options.epochs or 0) * (len(data) // batch_size)))
    described = {"name": config.model, "options": training_runs.network_options(config, data.num_classes)}
    model = ja.zoo.build({"model": described})
    key = jax.random.key(options.seed)
    every = 2 if context.tiny else 10
    times: list[float] = []

    def watch(_: Any) -> dict[str, float]:
        times.append(time.perf_counter())
        if len(times) > 2 and times[-1] - times[1] > (0.1 if context.tiny else _CALIBRATION):
            raise _EnoughError
        return {}

    with contextlib.suppress(_EnoughError):
        ja.fit(
            objectives.build(config.defense, options, defaults_of(config.dataset)),
            ja.models.apply_fn(model),
            ja.models.init(model, jax.random.fold_in(key, 0), data.x.shape[1:]),
            data,
            optimizer=training_runs.optimizer(options, paper),
            batch_size=batch_size,
            key=jax.random.fold_in(key, 1),
            steps=paper,
            evaluate=watch,
            evaluate_every=every,
            log_every=every,
        )
    seconds = float(np.median(np.diff(times)[1:] if len(times) > 2 else np.diff(times))) / every
    # Reserve seconds for measuring at the end and in between, and for compiling once more.
    reserve = 2 if context.tiny else 25
    fits = int(MARGIN * max(0.0, context.left + context.share - context.seconds - reserve) / seconds)
    steps = max(1, min(paper, fits))
    if steps >= 200:
        steps = steps if steps == paper else math.floor(steps / 100) * 100
    return {"paper_steps": paper, "steps": steps, "seconds_a_step": seconds, "batch_size": batch_size}
