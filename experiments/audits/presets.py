"""Presets from which runs of ``evaluate`` start, by name and data set."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from experiments.config import Config
from experiments.recipes import Training

_SEVEN = ("natural", "adversarial", "ig_norm", "adv_aat", "art", "trades", "trades_igr")
# Settings that two cores can afford for thousands of features: bounds by products alone, main radius, fewer starts.
_COLOR: dict[str, Any] = {
    "sweep": False,
    "beyond": False,
    "rank_samples": 0,
    "restarts": 5,
    "ifia_restarts": 1,
    "ifia_steps": 10,
    "batch_size": 10,
}
_CIFAR = {**_COLOR, "num_samples": 100, "defenses": ("natural", "adversarial", "trades")}
_CPU: Mapping[str, dict[str, Any]] = {
    "cifar10": {**_CIFAR, "source": "train"},
    "cifar10_jpeg": _CIFAR,
    "oxford_flowers12": {**_COLOR, "num_samples": 10, "defenses": ("natural",)},
    "photographs": {**_COLOR, "num_samples": 2, "batch_size": 1, "defenses": ("natural",), "source": "imagenet"},
}
_ON_CPU = Config(
    dataset="mnist",
    source="zoo",
    num_samples=500,
    defenses=_SEVEN,
    attributions=("integrated_gradients",),
    sweep=True,
    ig_steps=5,
    ig_rule="gauss_legendre",
    restarts=20,
    ifia_restarts=2,
    ascent_restarts=1,
    # Take half of the paper's steps: on MNIST, l2 and l-infinity, that changes mean deviations by 1 % and less.
    pgd_steps=10,
    ifia_steps=15,
    beyond=True,
    rank_samples=20,
    # This batch fits the cache: with 20 at a time attacks take a tenth longer.
    batch_size=5,
)
_DENSE = dataclasses.replace(
    _ON_CPU,
    **{**_CIFAR, "num_samples": 3, "defenses": ("natural", "adversarial"), "batch_size": 1, "beyond": True},
    dataset="cifar10_jpeg",
    dense_up_to=3072,
)
PRESETS: Mapping[str, tuple[str, Config]] = {
    "smoke": (
        "digits, 16 samples, one epoch of training: seconds, for tests",
        Config(
            num_samples=16,
            attributions=("saliency",),
            ig_steps=2,
            restarts=2,
            pgd_steps=2,
            ifia_steps=2,
            batch_size=8,
            workers=1,
            pictures=2,
            training=Training(preset="smoke"),
        ),
    ),
    "demo": (
        "digits, 100 samples: about 3 minutes on two CPU cores, most of it compilation",
        Config(
            num_samples=100,
            ig_steps=5,
            ig_rule="gauss_legendre",
            restarts=4,
            ifia_steps=25,
            batch_size=50,
            training=Training(preset="cpu", epochs=25),
        ),
    ),
    "defenses": (
        "digits, natural training and the six defenses, 100 samples of integrated gradients: minutes a seed",
        Config(
            num_samples=100,
            defenses=_SEVEN,
            attributions=("integrated_gradients",),
            linf=(0.01, 0.05),
            ig_steps=5,
            ig_rule="gauss_legendre",
            restarts=2,
            ifia_steps=20,
            training=Training(preset="cpu"),
        ),
    ),
    "cpu": (
        "Wang and Kong 2023 on CPU cores, with the package's networks: 500 samples, all radii, IG of 5 points; hours",
        _ON_CPU,
    ),
    "dense": (
        "Theorem 2 and the semidefinite bound for color images, by dense Jacobians of 3 samples: minutes each",
        _DENSE,
    ),
    "paper": (
        "the settings of Wang and Kong 2023: full test set, three radii, 20 attacks of 20 and 200 steps",
        Config(
            dataset="mnist",
            num_samples=None,
            defenses=_SEVEN,
            attributions=("integrated_gradients",),
            sweep=True,
            ig_steps=50,
            restarts=20,
            ifia_steps=200,
            beyond=True,
            rank_samples=100,
            training=Training(preset="paper"),
        ),
    ),
}


def preset(name: str, dataset: str | None) -> Config:
    """Return the configuration of a preset, not resolved.

    Args:
      name: name in :data:`PRESETS`.
      dataset: data set, since presets differ between them; None for the preset's own.
    """
    start = PRESETS[name][1]
    if dataset is None:
        return start
    changed = _CPU.get(dataset, {}) if name == "cpu" else {}
    return dataclasses.replace(start, dataset=dataset, **changed)
