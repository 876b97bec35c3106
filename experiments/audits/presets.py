"""Presets from which runs of ``audit`` start, by name and data set."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from experiments.audits.config import Config
from experiments.training.recipes import Training

IG5 = "integrated_gradients(num_steps=5, rule='gauss_legendre')"
_WANG2023_MODELS = ("natural", "adversarial", "ig_norm", "adv_aat", "art", "trades", "trades_igr")
_SEMIDEFINITE = ("semidefinite", "semidefinite_box=semidefinite(within_box=True)")
_DEFAULTS = Config.__dataclass_fields__


def attacks(
    *, starts: int = 5, ifia_starts: int | None = None, ascent_starts: int | None = None, pgd: int = 20, ifia: int = 200
) -> tuple[str, ...]:
    """Return the three attacks of Wang and Kong 2023, and of their bounds, with these steps and random starts."""
    climbing = (ifia_starts or starts, ascent_starts or starts)
    return (
        f"restarts(pgd(num_steps={pgd}), {starts})",
        f"restarts(ifia(dissimilarity=top_k({{k}}), num_steps={ifia}), {climbing[0]})",
        f"ascent=restarts(ifia(dissimilarity=euclidean(), num_steps={ifia}), {climbing[1]})",
    )


# Settings that two cores can afford for thousands of features: bounds by products alone, main radius, fewer starts.
_COLOR: dict[str, Any] = {
    "all_radii": False,
    "bounds": _DEFAULTS["bounds"].default,
    "rank_samples": 0,
    "attacks": attacks(starts=5, ifia_starts=1, ascent_starts=1, pgd=10, ifia=10),
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
    defenses=_WANG2023_MODELS,
    attributions=(IG5,),
    all_radii=True,
    bounds=(*_DEFAULTS["bounds"].default, *_SEMIDEFINITE),
    # Take half of the paper's steps: on MNIST, l2 and l-infinity, that changes mean deviations by 1 % and less.
    attacks=attacks(starts=20, ifia_starts=2, ascent_starts=1, pgd=10, ifia=15),
    rank_samples=20,
    # This batch fits the cache: with 20 at a time attacks take a tenth longer.
    batch_size=5,
)
_DENSE = dataclasses.replace(
    _ON_CPU,
    **{**_CIFAR, "num_samples": 3, "defenses": ("natural", "adversarial"), "batch_size": 1, "bounds": _ON_CPU.bounds},
    dataset="cifar10_jpeg",
    max_dense_features=3072,
)
PRESETS: Mapping[str, tuple[str, Config]] = {
    "smoke": (
        "digits, 16 samples, one epoch of training: seconds, for tests",
        Config(
            num_samples=16,
            attributions=("saliency",),
            attacks=attacks(starts=2, pgd=2, ifia=2),
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
            attributions=("saliency", "input_x_gradient", IG5),
            attacks=attacks(starts=4, ifia=25),
            batch_size=50,
            training=Training(preset="cpu", epochs=25),
        ),
    ),
    "defenses": (
        "digits, natural training and the six defenses, 100 samples of integrated gradients: minutes a seed",
        Config(
            num_samples=100,
            defenses=_WANG2023_MODELS,
            attributions=(IG5,),
            linf=(0.01, 0.05),
            attacks=attacks(starts=2, ifia=20),
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
            defenses=_WANG2023_MODELS,
            attributions=("integrated_gradients",),
            all_radii=True,
            bounds=(*_DEFAULTS["bounds"].default, *_SEMIDEFINITE),
            attacks=attacks(starts=20),
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
