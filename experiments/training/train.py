"""Train a network with a defense, measure and store it: ``python -m experiments train``.

DIRECTORY/run.json          the resolved configuration, its hash, versions, device
DIRECTORY/checkpoints/      states, from which a killed training continues
DIRECTORY/training.jsonl    losses, and accuracies every so often
DIRECTORY/network.npz       the weights, when training has come to its end
DIRECTORY/network.json      the card: what they are and what was measured with them
"""

import dataclasses
import importlib.util
import json
import logging
import math
from pathlib import Path
from typing import Any, ClassVar

import jax
import numpy as np
import optax

import jaxattr as ja
from experiments.datasets import defaults_of, or_default
from experiments.training import accuracies, objectives, recipes
from experiments.training.recipes import Training
from jaxattr.audit import networks
from jaxattr.audit.networks import NAME
from jaxattr.audit.run_directory import config_hash, deciding, environment, open_run
from jaxattr.parallel import on_first

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """Configuration of a run of ``train``; None means the data set's default."""

    COMMAND: ClassVar[str] = "train"
    NOT_HASHED: ClassVar[tuple[str, ...]] = ("output", "data_dir", "distributed")

    output: str | None = None
    """Directory of all results; default: runs/DATASET-DEFENSE-PRESET."""
    dataset: str = "digits"
    """Data set: digits (embedded), mnist, fashion_mnist, cifar10, cifar10_jpeg or oxford_flowers12."""
    defense: str = "natural"
    """Defense: natural, adversarial, ig_norm, ig_sum_norm, aat, adv_aat, art, trades, or igr on top: natural_igr,
    adversarial_igr, trades_igr; or a call of a registered one, such as `trades(beta=3.0)`."""
    data_dir: str | None = None
    """Directory of data prepared by TFDS; default: the environment variable TFDS_DATA_DIR."""
    model: str | None = None
    """Network: small_cnn, conv_net, resnet18, mlp or efficientnet_lite0."""
    width: int | None = None
    """Channels of the first stage of resnet18; the preset cpu has 16 instead of 64."""
    beta: float = 10.0
    """Sharpness of softplus."""
    distributed: bool = False
    """Join several processes: call jax.distributed.initialize(), which finds Slurm, Open MPI and Kubernetes."""
    training: Training = dataclasses.field(default_factory=Training)


def resolve(config: TrainConfig) -> TrainConfig:
    """Replace every None that stands for a default by its value.

    Raises:
      ValueError: if an option is unknown or out of range; the message names it and what is accepted.
    """
    preset = config.training.preset
    training = recipes.resolve(config.dataset, config.defense, config.training)
    model = or_default(config.model, recipes.default_model(preset, config.dataset))
    if model not in ja.models.REGISTRY:
        raise ValueError(f"`model` is {model!r}; accepted are {', '.join(sorted(ja.models.REGISTRY))}.")
    if config.width is not None and (model != "resnet18" or config.width < 1):
        raise ValueError(
            f"`width` is a positive number of channels, of resnet18 alone; got {config.width} for {model}."
        )
    width = or_default(config.width, recipes.default_width(preset, model))
    objectives.parse(config.defense)
    name = objectives.name_of(config.defense)
    output = or_default(config.output, f"runs/{config.dataset}-{name}-{preset}")
    return dataclasses.replace(config, output=output, model=model, width=width, training=training)


def train(config: TrainConfig, *, progress: bool = False) -> dict[str, Any]:
    """Train a network, or finish its training, and measure it.

    Args:
      config: resolved.
      progress: show the losses on the standard error stream.

    Returns:
      The card.

    Raises:
      jaxattr.audit.run_directory.StoreError: if the directory holds something else.
      FloatingPointError: if the loss is not finite at some step.
      jaxattr.training.Interrupted: after SIGTERM, with the state saved.
    """
    folder = Path(str(config.output))
    _open(folder, config)
    if networks.complete(folder):
        log.info("%s: trained before, in %s", config.defense, folder)
        return ja.zoo.load(NAME, folder).card
    data = ja.data.load(config.dataset, "train", config.data_dir, config.training.samples)
    test = ja.data.load(config.dataset, "test", config.data_dir)
    described = {"name": str(config.model), "options": network_options(config, test.num_classes)}
    model = ja.zoo.build({"model": described})
    result = _fit(model, config, data, test, folder, progress)
    log.info("%s: measuring accuracies", config.defense)
    measured = accuracies.measure(ja.models.apply_fn(model), result.variables, test, config.training)
    variables = jax.tree.map(np.asarray, result.variables)
    card = {
        "data": {"name": config.dataset, "train_samples": len(data), "shape": list(data.x.shape[1:])},
        "defense": config.defense,
        "model": described,
        "config": deciding(config),
        "config_hash": config_hash(config),
        "steps": result.step,
        "epochs": round(result.step / (len(data) // _batch_size(config, data)), 2),
        **measured,
        "weights": ja.zoo.weights_hash(variables),
        "dtype": "float32",
        "parameters": sum(leaf.size for leaf in jax.tree.leaves(variables["params"])),
        "seconds": seconds(result.history),
        "environment": environment(),
    }
    if jax.process_index() == 0:
        networks.write(folder, variables, card)
    log.info("%s: %s", config.defense, accuracies.describe(card))
    return card


def optimizer(options: Training, steps: int) -> optax.GradientTransformation:
    """Build the optimizer and its schedule for a training of ``steps`` steps."""
    rate = float(options.learning_rate or 0)
    if options.schedule == "cosine":
        schedule = optax.warmup_cosine_decay_schedule(0.0, rate, steps // 20 + 1, steps + 1)
    elif options.schedule == "drops":
        factors = [1.0, *(factor for _, factor in options.drops or ())]
        # Optax multiplies by one factor after the other; ours all multiply the first rate.
        ratios = {
            round(when * steps): after / before
            for (when, after), before in zip(options.drops or (), factors, strict=False)
        }
        schedule = optax.piecewise_constant_schedule(rate, ratios)
    else:
        schedule = rate
    if options.optimizer == "sgd":
        rule = optax.sgd(schedule, momentum=options.momentum, nesterov=bool(options.nesterov))
    else:
        rule = optax.adam(schedule)
    return optax.chain(optax.add_decayed_weights(options.weight_decay), rule) if options.weight_decay else rule


def _open(folder: Path, config: TrainConfig) -> None:
    """Take the directory for the run; process 0 alone writes."""

    def take() -> int:
        open_run(folder, TrainConfig, config, environment())
        return 0

    on_first(take)


def network_options(config: TrainConfig, num_classes: int) -> dict[str, Any]:
    """Return the options of a run's network, in JSON's types."""
    data = defaults_of(config.dataset)
    options = {"num_classes": num_classes, "beta": config.beta, "mean": data.mean, "std": data.std}
    if config.width is not None:
        options["width"] = config.width
    return json.loads(json.dumps(options))


def _fit(model: Any, config: TrainConfig, data: Any, test: Any, folder: Path, progress: bool) -> ja.training.FitResult:
    options = config.training
    batch_size = _batch_size(config, data)
    per_epoch = len(data.x) // batch_size
    steps = options.steps or max(1, round((options.epochs or 0) * per_epoch))
    log.info("%s: training %s for %d steps", config.defense, config.model, steps)
    key = jax.random.key(options.seed)
    apply_fn = ja.models.apply_fn(model)
    watched = accuracies.first(test, or_default(options.evaluate_samples, options.accuracy_samples))

    def evaluate(variables):
        found = accuracies.clean_and_attacked(apply_fn, variables, watched, options)
        return {
            "test_accuracy": found.accuracy,
            "test_pgd_accuracy": found.robust_accuracy,
            "test_samples": len(watched.x),
        }

    return ja.fit(
        objectives.build(config.defense, options, defaults_of(config.dataset)),
        ja.apply_fn.mixed_precision(apply_fn) if options.bfloat16 else apply_fn,
        # All defenses have the same start: only the objective differs.
        ja.models.init(model, jax.random.fold_in(key, 0), data.x.shape[1:]),
        data,
        optimizer=optimizer(options, steps),
        batch_size=batch_size,
        key=jax.random.fold_in(key, 1),
        steps=steps,
        checkpoint_dir=_checkpoints(folder),
        checkpoint_every=math.ceil(steps / 20),
        evaluate=evaluate,
        evaluate_every=math.ceil(steps / int(options.evaluations or 1)),
        writers=[
            ja.training.JsonLines(folder / "training.jsonl"),
            *([ja.training.TensorBoard(folder / "tensorboard")] if importlib.util.find_spec("tensorboardX") else []),
            *([ja.training.Progress()] if progress else []),
        ],
        log_every=math.ceil(steps / 100),
    )


def _checkpoints(folder: Path) -> Path | None:
    """Return the directory of checkpoints; None without Orbax, and a training that was stopped then begins again."""
    try:
        import orbax.checkpoint  # noqa: F401, PLC0415  (optional here)
    except ImportError:
        log.warning("Orbax is missing: no checkpoints are kept, and a training that is stopped begins again")
        (folder / "training.jsonl").unlink(missing_ok=True)
        return None
    return folder / "checkpoints"


def _batch_size(config: TrainConfig, data: Any) -> int:
    return min(int(config.training.batch_size or 1), len(data.x))


def seconds(history: list[dict[str, Any]]) -> float:
    """Add up the seconds of training up to the last line, over all processes that took part one after the other."""
    total, last = 0.0, 0.0
    for row in history:
        if row["seconds"] < last:  # a process began again at zero
            total += last
        last = row["seconds"]
    return round(total + last, 1)
