"""Configuration of ``audit``: which networks are audited on which data, beside what is measured."""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import jaxattr as ja
from experiments.datasets import defaults_of, or_default
from experiments.training import objectives, recipes, train
from experiments.training.recipes import Training
from experiments.training.train import TrainConfig
from jaxattr.audit import spec
from jaxattr.audit.spec import Measures
from jaxattr.audit.summary import reserved


@dataclasses.dataclass(frozen=True)
class Config(Measures):
    """Configuration of a run of ``audit``; None means the data set's default."""

    COMMAND: ClassVar[str] = "audit"
    # What is measured has an identity of its own, cell by cell; models and samples have rows of their own.
    NOT_HASHED: ClassVar[tuple[str, ...]] = (
        *(name for name in Measures.__dataclass_fields__ if name not in ("dataset", "seed")),
        *("output", "data_dir", "defenses", "distributed", "all_radii"),
    )

    output: str | None = None
    """Directory of all results; default: results/PRESET, for papers runs/PAPER/DATASET-PRESET."""
    dataset: str = "digits"
    """Data set: digits (embedded), mnist, fashion_mnist, cifar10, cifar10_jpeg, oxford_flowers12, or photographs
    (scikit-learn's two, for `--source imagenet`)."""
    data_dir: str | None = None
    """Directory of data prepared by TFDS; default: the environment variable TFDS_DATA_DIR."""
    model: str | None = None
    """Network: small_cnn, conv_net, resnet18, mlp or efficientnet_lite0."""
    width: int | None = None
    """Channels of the first stage of resnet18; the preset cpu of training has 16 instead of 64."""
    beta: float = 10.0
    """Sharpness of softplus. Second derivatives grow with it: bounds of different betas do not compare."""
    defenses: tuple[str, ...] = ("natural", "adversarial")
    """Defenses, each of which trains one model: natural, adversarial, ig_norm, ig_sum_norm, aat, adv_aat, art, trades,
    or igr on top: natural_igr, adversarial_igr, trades_igr; or calls of registered ones, such as `trades(beta=3.0)`."""
    source: Literal["train", "zoo", "imagenet"] = "train"
    """Source of the models: train (by the run), zoo (the package's own; model, beta and training are then those of
    their cards), or imagenet (EfficientNet-Lite0 with its published weights, whose data are photographs)."""
    all_radii: bool = False
    """Use all radii of the data set instead of the main one, if none are given."""
    distributed: bool = False
    """Join several processes: call jax.distributed.initialize(), which finds Slurm, Open MPI and Kubernetes."""
    training: Training = dataclasses.field(default_factory=Training)


def resolve(config: Config, preset: str) -> Config:
    """Replace every None that stands for a default by its value, and check what can be checked before computing.

    Raises:
      ValueError: if an option is unknown or out of range; the message names it and what is accepted.
    """
    config = fill_in(config, preset)
    _known("model", [config.model], ja.models.REGISTRY)
    spec.check(config, reserved())
    _check_source(config)
    return config


def fill_in(config: Config, preset: str) -> Config:
    """Replace every None that stands for a default by its value.

    Raises:
      ValueError: if the data set is unknown.
    """
    data = defaults_of(config.dataset)
    filled = dataclasses.replace(
        config,
        output=or_default(config.output, f"results/{preset}"),
        model=or_default(config.model, recipes.default_model(config.training.preset, config.dataset)),
        l2=or_default(config.l2, data.l2 if config.all_radii else (data.main_l2,)),
        linf=or_default(config.linf, data.linf if config.all_radii else (data.main_linf,)),
        top_k=or_default(config.top_k, data.top_k),
        top_k_map=or_default(config.top_k_map, data.top_k_map),
    )
    return spec.with_top_k(filled)


def training_of(config: Config, label: str) -> TrainConfig:
    """Return the run of ``train`` that makes one of the models, in a directory of its own inside of the run's."""
    return train.resolve(
        TrainConfig(
            output=f"{config.output}/models/{label}",
            dataset=config.dataset,
            defense=objectives.labeled(config.defenses)[label],
            data_dir=config.data_dir,
            model=config.model,
            width=config.width,
            beta=config.beta,
            training=config.training,
        )
    )


def models(config: Config) -> tuple[str, ...]:
    """Return the names of the run's models: the labels of its defenses."""
    return tuple(objectives.labeled(config.defenses))


def _check_source(config: Config) -> None:
    if (config.source == "imagenet") != (config.dataset == "photographs"):
        raise ValueError(
            f"`source` is {config.source} and `dataset` is {config.dataset}; the published ImageNet weights and"
            " photographs go together, and with nothing else."
        )
    if not config.defenses:
        raise ValueError(f"`defenses` is empty; accepted, each once, are {', '.join(objectives.DEFENSES)}.")
    if config.source == "imagenet":
        if config.defenses != ("natural",):
            raise ValueError(f"`defenses` is {' '.join(config.defenses)}; of ImageNet there is natural alone.")
        return
    for label in models(config):
        if config.source == "train":
            training_of(config, label)
        elif f"{config.dataset}/{label}" not in ja.zoo.names():
            listed = ", ".join(name for name in ja.zoo.names() if name.startswith(f"{config.dataset}/")) or "none"
            raise ValueError(
                f"there is no trained network {config.dataset}/{label} in the package (of this data set: {listed});"
                " train it with `--source train`, or publish one."
            )


def _known(option: str, given: Any, accepted: Mapping[str, Any]) -> None:
    unknown = [name for name in given if name not in accepted]
    if unknown or not given or len(set(given)) < len(given):
        listed = ", ".join(sorted(accepted))
        raise ValueError(f"`{option}` is {' '.join(map(str, given)) or 'empty'}; accepted, each once, are {listed}.")
