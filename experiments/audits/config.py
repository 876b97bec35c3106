"""Configuration of ``evaluate``: a frozen dataclass, its defaults and its checks."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import jaxattr as ja
from experiments import networks, recipes
from experiments.datasets import fill, known
from experiments.networks import TrainConfig
from experiments.objectives import DEFENSES
from experiments.recipes import Training
from jaxattr.attributions.integrated_gradients import Rule


@dataclasses.dataclass(frozen=True)
class Config:
    """Configuration of a run of ``evaluate``; None means the data set's default."""

    COMMAND: ClassVar[str] = "evaluate"
    # Models, attributions and samples have rows of their own, to which a later run may add others.
    NOT_HASHED: ClassVar[tuple[str, ...]] = (
        *("output", "data_dir", "batch_size", "pictures", "workers"),
        *("num_samples", "defenses", "attributions", "distributed", "skip_damaged"),
        # This limit of a table changes no row.
        "small_remainder",
        # This changes nothing for a smooth network; others are refused, or have their number of kinks beside tables.
        "kinks",
    )

    output: str | None = None
    """Directory of all results; default: results/PRESET, for tables and figures runs/wang2023/DATASET-PRESET."""
    dataset: str = "digits"
    """Data set: digits (embedded), mnist, fashion_mnist, cifar10, cifar10_jpeg, oxford_flowers12, or photographs
    (scikit-learn's two, for `--source imagenet`)."""
    data_dir: str | None = None
    """Directory of data prepared by TFDS; default: the environment variable TFDS_DATA_DIR."""
    num_samples: int | None = 100
    """Number of test samples of each model, the first that it classifies correctly; None for all."""
    model: str | None = None
    """Network: small_cnn, conv_net, resnet18 or mlp."""
    width: int | None = None
    """Channels of the first stage of resnet18; the preset cpu of training has 16 instead of 64."""
    beta: float = 10.0
    """Sharpness of softplus. Second derivatives grow with it: bounds of different betas do not compare."""
    defenses: tuple[str, ...] = ("natural", "adversarial")
    """Defenses, each of which trains one model: natural, adversarial, ig_norm, ig_sum_norm, aat, adv_aat, art, trades,
    or igr on top: natural_igr, adversarial_igr, trades_igr."""
    source: Literal["train", "zoo", "imagenet"] = "train"
    """Source of the models: train (by the run), zoo (the package's own; model, beta and training are then those of
    their cards), or imagenet (EfficientNet-Lite0 with its published weights, whose data are photographs)."""
    attributions: tuple[str, ...] = ("saliency", "input_x_gradient", "integrated_gradients")
    """Attributions whose deviations are bounded and attacked."""
    sweep: bool = False
    """Use all radii of the data set instead of the main one, if none are given."""
    l2: tuple[float, ...] | None = None
    """Radii in the Euclidean norm, in units of the input in [0, 1]."""
    linf: tuple[float, ...] | None = None
    """Radii in the maximum norm."""
    ig_steps: int = 50
    """Steps of integrated gradients."""
    ig_rule: Rule = "midpoint"
    """Quadrature rule of integrated gradients; with gauss_legendre few steps are enough on a smooth network."""
    restarts: int = 5
    """Random starts of every attack."""
    ifia_restarts: int | None = None
    """Random starts of IFIA on the top-k set; default: `--restarts`."""
    ascent_restarts: int | None = None
    """Random starts of IFIA on the deviation itself; default: `--restarts`."""
    pgd_steps: int = 20
    """Steps of PGD on the cross-entropy."""
    ifia_steps: int = 200
    """Steps of IFIA, on the top-k set and on the deviation itself."""
    top_k: int | None = None
    """Size k of the top-k set of a map, in IFIA and in the metric."""
    top_k_map: Literal["pixel", "feature"] | None = None
    """Whether the top of a color map counts pixels (sums over channels) or features."""
    sigma_method: Literal["lanczos", "dense"] = "lanczos"
    """Method for the largest singular value: lanczos (products with J), or dense (an SVD: exact, and slow on CPUs)."""
    lanczos_steps: int = 40
    """Krylov steps for the largest singular value: one product with J each, two where J is not symmetric."""
    confidence: float = 0.999
    """Probability with which the Lanczos bound holds."""
    dense_up_to: int = 784
    """Largest number of features with a dense P = J^T J, as Theorem 2 needs: for more there is Corollary 1 only."""
    beyond: bool = False
    """Add the semidefinite bound to the paper's l-infinity bounds, also within the box of valid inputs."""
    rank_samples: int = 0
    """Number of first samples with guarantees for ranks: a second per radius for 784 features on a core.
    They need a dense P as well."""
    small_remainder: float = 0.05
    """Taylor remainder below which the table of violations counts samples apart."""
    batch_size: int = 50
    """Number of samples that are computed and stored at a time."""
    workers: int = 2
    """Number of processes, each with another pair of attribution and norm; one on an accelerator."""
    distributed: bool = False
    """Join several processes: call jax.distributed.initialize(), which finds Slurm, Open MPI and Kubernetes."""
    kinks: Literal["refuse", "allow"] = "refuse"
    """A network that is not twice differentiable in its input (ReLU, max-pooling) is refused, since no bound of it
    holds. With `allow` it is computed all the same, and tables and page say so."""
    skip_damaged: bool = False
    """Leave out the samples of files that cannot be read."""
    pictures: int = 4
    """Number of first samples per model, attribution and norm that are stored for the heat maps."""
    seed: int = 0
    """Seed of the keys of bounds and attacks, one for each sample."""
    training: Training = dataclasses.field(default_factory=Training)


def resolve(config: Config, preset: str) -> Config:
    """Replace every None that stands for a default by its value, and check what can be checked before computing.

    Raises:
      ValueError: if an option is unknown or out of range; the message names it and what is accepted.
    """
    config = fill_in(config, preset)
    _check(config)
    return config


def fill_in(config: Config, preset: str) -> Config:
    """Replace every None that stands for a default by its value.

    Raises:
      ValueError: if the data set is unknown.
    """
    data = known(config.dataset)
    return dataclasses.replace(
        config,
        output=fill(config.output, f"results/{preset}"),
        model=fill(config.model, recipes.default_model(config.training.preset, config.dataset)),
        l2=fill(config.l2, data.l2 if config.sweep else (data.main_l2,)),
        linf=fill(config.linf, data.linf if config.sweep else (data.main_linf,)),
        top_k=fill(config.top_k, data.top_k),
        top_k_map=fill(config.top_k_map, data.top_k_map),
        ifia_restarts=fill(config.ifia_restarts, config.restarts),
        ascent_restarts=fill(config.ascent_restarts, config.restarts),
    )


def norms(config: Config) -> dict[str, tuple[float, ...]]:
    """Return the radii of each norm that has any."""
    given = {"l2": config.l2 or (), "linf": config.linf or ()}
    return {norm: epsilons for norm, epsilons in given.items() if epsilons}


def training_of(config: Config, defense: str) -> TrainConfig:
    """Return the run of ``train`` that makes one of the models, in a directory of its own inside of the run's."""
    return networks.resolve(
        TrainConfig(
            output=f"{config.output}/models/{defense}",
            dataset=config.dataset,
            defense=defense,
            data_dir=config.data_dir,
            model=config.model,
            width=config.width,
            beta=config.beta,
            training=config.training,
        )
    )


def _check(config: Config) -> None:
    _known("model", [config.model], ja.models.REGISTRY)
    _known("defenses", config.defenses, DEFENSES)
    _known("attributions", config.attributions, ja.attributions.REGISTRY)
    if not norms(config):
        raise ValueError("there is no radius: give `--l2` or `--linf`.")
    for norm, epsilons in norms(config).items():
        if not all(0 < epsilon < math.inf for epsilon in epsilons) or len(set(epsilons)) < len(epsilons):
            raise ValueError(f"`{norm}` must be different, positive radii in units of the input, got {epsilons}.")
    counts = ("ig_steps", "restarts", "ifia_restarts", "ascent_restarts", "pgd_steps", "ifia_steps")
    counts += ("top_k", "lanczos_steps", "batch_size", "workers")
    values = {name: getattr(config, name) for name in counts} | {"num_samples": fill(config.num_samples, 1)}
    for name, value in values.items():
        if value < 1:
            raise ValueError(f"`{name}` must be at least 1, got {value}.")
    if config.rank_samples < 0:
        raise ValueError(f"`rank_samples` must be at least 0, got {config.rank_samples}.")
    if not 0 < config.confidence < 1:
        raise ValueError(f"`confidence` must lie strictly between 0 and 1, got {config.confidence}.")
    _check_source(config)


def _check_source(config: Config) -> None:
    if (config.source == "imagenet") != (config.dataset == "photographs"):
        raise ValueError(
            f"`source` is {config.source} and `dataset` is {config.dataset}; the published ImageNet weights and"
            " photographs go together, and with nothing else."
        )
    if config.source == "imagenet":
        if config.defenses != ("natural",):
            raise ValueError(f"`defenses` is {' '.join(config.defenses)}; of ImageNet there is natural alone.")
        return
    for defense in config.defenses:
        if config.source == "train":
            training_of(config, defense)
        elif f"{config.dataset}/{defense}" not in ja.zoo.names():
            listed = ", ".join(name for name in ja.zoo.names() if name.startswith(f"{config.dataset}/")) or "none"
            raise ValueError(
                f"there is no trained network {config.dataset}/{defense} in the package (of this data set: {listed});"
                " train it with `--source train`, or publish one."
            )


def _known(option: str, given: Any, accepted: Mapping[str, Any]) -> None:
    unknown = [name for name in given if name not in accepted]
    if unknown or not given or len(set(given)) < len(given):
        listed = ", ".join(sorted(accepted))
        raise ValueError(f"`{option}` is {' '.join(map(str, given)) or 'empty'}; accepted, each once, are {listed}.")
