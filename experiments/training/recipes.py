"""Set how each defense is trained on each data set: by presets, and options of the command line.

``paper``: the settings of the papers and of their released code, for accelerators. ``cpu``: about 20 minutes on two
cores, by counted work and not by results. ``smoke``: seconds, and no result worth anything.
"""

import dataclasses
import math
from typing import Any, Literal, get_args

from experiments.datasets import defaults_of
from experiments.training import objectives, published_settings
from experiments.training.objectives import DEFENSES, Hyperparameters

Preset = Literal["smoke", "cpu", "paper"]
PRESETS: dict[str, str] = {
    "smoke": "seconds, for tests",
    "cpu": "about 20 minutes on two CPU cores",
    "paper": "the papers' own settings, for accelerators",
}


@dataclasses.dataclass(frozen=True)
class Training(Hyperparameters):
    """Options of a training; None means the preset's value for the data set and the defense."""

    preset: Preset = "cpu"
    """Preset that sets every option that is not given."""
    epochs: float | None = None
    """Number of passes over the training set."""
    steps: int | None = None
    """Number of updates, instead of epochs."""
    samples: int | None = None
    """Number of training samples, from the first one."""
    batch_size: int | None = None
    """Number of samples per step."""
    optimizer: Literal["adam", "sgd"] | None = None
    """Optimizer: adam or sgd."""
    momentum: float | None = None
    """Momentum of SGD."""
    nesterov: bool | None = None
    """Use Nesterov momentum in SGD."""
    weight_decay: float | None = None
    """Weight decay: this factor times all weights is added to the gradient."""
    learning_rate: float | None = None
    """Highest learning rate."""
    schedule: Literal["constant", "cosine", "drops"] | None = None
    """Schedule of the learning rate; cosine goes up within the first 5 % of the steps, then down to zero."""
    drops: tuple[tuple[float, float], ...] | None = None
    """Pairs of a fraction and a factor: from this fraction of the steps on, the learning rate times this factor."""
    bfloat16: bool | None = None
    """Forward passes in bfloat16; attributions stay in float32."""
    evaluations: int | None = None
    """Number of times that accuracies are measured in training."""
    evaluate_samples: int | None = None
    """Number of test samples, from the first one, on which accuracies are measured in training."""
    accuracy_samples: int | None = None
    """Number of test samples, from the first one, on which accuracies are measured at the end."""
    pgd_steps: int | None = None
    """Steps of PGD, the attack under which accuracy is measured."""
    pgd_epsilon: float | None = None
    """l-infinity radius of that attack; default: that of training if one is given, or else the data set's."""
    seed: int = 0
    """Seed of the initial weights, of the order of samples and of the attacks of training."""


def resolve(dataset: str, defense: str, given: Training) -> Training:
    """Replace every None by the preset's value, and check what can be checked before computing.

    Raises:
      ValueError: if an option is unknown or out of range, or the preset has nothing for this data set.
    """
    preset = recipe(given.preset, dataset, defense)
    # A given length, in epochs or steps, replaces the preset's.
    if given.epochs is not None or given.steps is not None:
        preset = dataclasses.replace(preset, epochs=None, steps=None)
    if given.pgd_epsilon is None and given.epsilon is not None:
        preset = dataclasses.replace(preset, pgd_epsilon=given.epsilon)
    names = [field.name for field in dataclasses.fields(Training)]
    values = {name: getattr(given, name) for name in names}
    training = Training(**{name: getattr(preset, name) if value is None else value for name, value in values.items()})
    _check(training)
    return training


def recipe(preset: str, dataset: str, defense: str) -> Training:
    """Return all settings of a preset for a data set and a defense.

    Raises:
      ValueError: if one of the three is unknown, or no paper trains on this data set.
    """
    defaults_of(dataset)
    objectives.parse(defense)
    if preset == "smoke":
        return _smoke(dataset)
    if preset == "cpu":
        return _cpu(dataset, defense)
    if preset != "paper":
        raise ValueError(f"the preset is {preset!r}; accepted are {', '.join(get_args(Preset))}.")
    if defense not in DEFENSES:
        raise ValueError(f"no paper trains with {defense}: take the preset cpu or smoke.")
    if dataset == "digits":
        raise ValueError("no paper trains on digits: take the preset cpu, or another data set.")
    # The attack that measures accuracy has 40 steps, as TRADES takes on MNIST and ART on CIFAR-10.
    return dataclasses.replace(
        _base(dataset), preset="paper", pgd_steps=40, evaluations=20, **published_settings.settings(dataset, defense)
    )


def default_model(preset: str, dataset: str) -> str:
    """Return the network of a preset: that of the paper, but for tests."""
    model = defaults_of(dataset).model
    return "small_cnn" if preset == "smoke" and model == "resnet18" else model


def default_width(preset: str, model: str) -> int | None:
    """Return the channels of ``resnet18``'s first stage: the usual 64, or 16 on CPU cores, a tenth of the work."""
    if model != "resnet18":
        return None
    return 64 if preset == "paper" else 16


def _base(dataset: str) -> Training:
    """Return the values that all presets share, also of hyperparameters that an objective may ignore."""
    epsilon = defaults_of(dataset).train_epsilon
    return Training(
        epsilon=epsilon,
        strength=1.0,
        # TRADES takes 6 on CIFAR-10, and 1 on MNIST.
        trades_beta=6.0 if dataset.startswith("cifar10") else 1.0,
        l1=0.0,
        # Every preset has the library's default: it bounds memory, and costs nothing on CPUs.
        chunk=5,
        rematerialize=False,
        optimizer="adam",
        momentum=0.9,
        nesterov=False,
        weight_decay=0.0,
        learning_rate=4e-3 if dataset == "digits" else 1e-3,
        schedule="cosine",
        drops=(),
        bfloat16=False,
        evaluations=10,
        pgd_epsilon=epsilon,
        pgd_steps=20,
    )


def _smoke(dataset: str) -> Training:
    return dataclasses.replace(
        _base(dataset),
        preset="smoke",
        epochs=1,
        samples=1408,
        batch_size=128,
        attack_steps=1,
        path_steps=2,
        attack_path_steps=1,
        evaluations=2,
        evaluate_samples=256,
        accuracy_samples=256,
        pgd_steps=2,
    )


# The two-core preset saves time by fewer steps of attack and path, and above all by shorter training. Steps are
# counted for 50 images of MNIST and conv_net, from seconds per step on two idle cores: 0.11 (natural), 0.36
# (adversarial), 0.42 (trades), 1.0 to 2.1 where attributions are differentiated. The accuracy under PGD on the full
# test set takes two minutes more. For 50 images of CIFAR-10 and resnet18 of width 16 the trainings of the package's
# networks took 0.16, 0.48 and 0.66 (their cards), on quicker cores with other work beside them.
_SHORT_PATH = {"attack_steps": 3, "path_steps": 3, "attack_path_steps": 2, "steps": 400}
_SHORT_IGR = {"attack_steps": 7, "path_steps": 3, "steps": 250}
CPU: dict[str, dict[str, Any]] = {
    "natural": {"steps": 2400},
    "adversarial": {"steps": 1200, "attack_steps": 7},
    "trades": {"steps": 900, "attack_steps": 7},
    "ig_norm": _SHORT_PATH,
    "ig_sum_norm": {**_SHORT_PATH, "strength": 0.1},
    "aat": {**_SHORT_PATH, "steps": 220},
    "adv_aat": {**_SHORT_PATH, "steps": 220},
    "art": {"steps": 400, "attack_steps": 3, "strength": 0.5},
    "natural_igr": _SHORT_IGR,
    "adversarial_igr": _SHORT_IGR,
    "trades_igr": _SHORT_IGR,
}


def _cpu(dataset: str, defense: str) -> Training:
    """Return our own settings for two cores; see :func:`recipe`."""
    chosen = {
        "preset": "cpu",
        "batch_size": 50,
        "evaluations": 4,
        "evaluate_samples": 250,
        **CPU.get(defense, _SHORT_PATH),
    }
    if dataset == "digits":
        # This data set is small enough to train every objective to the end, and with more points on the path.
        path = {"path_steps": 5, "attack_path_steps": 3, "attack_steps": 3 if defense == "art" else 7}
        length = {"steps": None, "epochs": 30, "batch_size": 64}
        chosen |= {**path, **length, "evaluations": 10, "evaluate_samples": None}
    elif defaults_of(dataset).model == "resnet18":
        chosen["steps"] = {"natural": 3600, "adversarial": 1600, "trades": 1500}.get(defense, 200)
        if dataset == "oxford_flowers12":
            # These images have sixteen times the pixels: 0.14 seconds an image.
            chosen |= {"batch_size": 16, "steps": max(40, chosen["steps"] // 9)}
    else:
        # So few steps learn nothing against the 0.3 of the papers on MNIST.
        chosen |= {"epsilon": 0.1, "pgd_epsilon": 0.1}
    return dataclasses.replace(_base(dataset), **chosen)


def _check(training: Training) -> None:
    if (training.epochs is None) == (training.steps is None):
        raise ValueError(f"give either `epochs` or `steps`, got {training.epochs} and {training.steps}.")
    counts = ("steps", "samples", "batch_size", "attack_steps", "path_steps", "attack_path_steps", "chunk", "art_k")
    counts += ("evaluations", "evaluate_samples", "accuracy_samples", "pgd_steps")
    for name in counts:
        value = getattr(training, name)
        if value is not None and value < 1:
            raise ValueError(f"`{name}` must be at least 1, got {value}.")
    positive = ("epochs", "learning_rate", "epsilon", "step_size", "pgd_epsilon")
    not_negative = ("strength", "trades_beta", "l1", "momentum", "weight_decay")
    for name in (*positive, *not_negative):
        value = getattr(training, name)
        low = "positive" if name in positive else "at least 0"
        if value is not None and not (math.isfinite(value) and (value > 0 or (value == 0 and name in not_negative))):
            raise ValueError(f"`{name}` must be a finite number, {low}, got {value}.")
    drops = training.drops or ()
    if training.schedule == "drops" and not drops:
        raise ValueError("`schedule` is drops: say which with `drops`, pairs of a fraction of the steps and a factor.")
    if not all(0 < when < 1 and factor > 0 for when, factor in drops) or list(drops) != sorted(drops):
        raise ValueError(f"`drops` must be pairs of a rising fraction between 0 and 1 and a factor, got {drops}.")
