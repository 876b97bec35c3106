"""A run of ``evaluate``: a frozen dataclass, its defaults and its checks."""

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

Rule = Literal["left", "right", "midpoint", "trapezoid", "gauss_legendre"]


@dataclasses.dataclass(frozen=True)
class Config:
    """A run of ``evaluate``; what is None is the data set's default."""

    COMMAND: ClassVar[str] = "evaluate"
    # Models, attributions and samples have rows of their own, to which a later run may add others.
    NOT_HASHED: ClassVar[tuple[str, ...]] = (
        *("output", "data_dir", "batch_size", "pictures", "workers"),
        *("num_samples", "defenses", "attributions", "distributed", "skip_damaged"),
        # A limit of a table, by which no row is computed.
        "small_remainder",
        # Of a smooth network it changes nothing; another is refused, or has its number of kinks beside every table.
        "kinks",
    )

    output: str | None = None
    """Directory of everything the run writes; by default results/PRESET, of tables and figures
    runs/wang2023/DATASET-PRESET."""
    dataset: str = "digits"
    """digits (embedded), mnist, fashion_mnist, cifar10, cifar10_jpeg, oxford_flowers12, or photographs: scikit-learn's
    two, for `--source imagenet`."""
    data_dir: str | None = None
    """Where TFDS has prepared its data; by default the environment variable TFDS_DATA_DIR."""
    num_samples: int | None = 100
    """The first so many correctly classified test samples of each model; None for all."""
    model: str | None = None
    """small_cnn, conv_net, resnet18 or mlp."""
    width: int | None = None
    """Channels of the first stage of resnet18; the preset cpu of training has 16 instead of 64."""
    beta: float = 10.0
    """Sharpness of softplus. Second derivatives grow with it: bounds of different betas do not compare."""
    defenses: tuple[str, ...] = ("natural", "adversarial")
    """How the models are trained, one model each: natural, adversarial, ig_norm, ig_sum_norm, aat, adv_aat, art,
    trades, or igr on top: natural_igr, adversarial_igr, trades_igr."""
    source: Literal["train", "zoo", "imagenet"] = "train"
    """Where the models come from: trained by the run, or the package's own (then model, beta and training are those of
    their cards), or EfficientNet-Lite0 with its published ImageNet weights, whose data are photographs."""
    attributions: tuple[str, ...] = ("saliency", "input_x_gradient", "integrated_gradients")
    """Whose deviations are bounded and attacked."""
    sweep: bool = False
    """All radii of the data set instead of the main one, where none are given."""
    l2: tuple[float, ...] | None = None
    """Radii in the Euclidean norm, in units of the input in [0, 1]."""
    linf: tuple[float, ...] | None = None
    """Radii in the maximum norm."""
    ig_steps: int = 50
    """Steps of integrated gradients."""
    ig_rule: Rule = "midpoint"
    restarts: int = 5
    """Random starts of every attack."""
    ifia_restarts: int | None = None
    """Of IFIA on the top-k set, where they differ."""
    ascent_restarts: int | None = None
    """Of IFIA on the deviation itself, likewise."""
    pgd_steps: int = 20
    """Steps of PGD on the cross-entropy."""
    ifia_steps: int = 200
    """Steps of IFIA, on the top-k set and on the deviation itself."""
    top_k: int | None = None
    """Size of the top of a map, in IFIA and in the metric."""
    top_k_map: Literal["pixel", "feature"] | None = None
    sigma_method: Literal["lanczos", "dense"] = "lanczos"
    """How the largest singular value is found: by products with J, or by an SVD, which is exact, and slow on CPUs."""
    lanczos_steps: int = 40
    confidence: float = 0.999
    """Probability with which the Lanczos bound holds."""
    dense_up_to: int = 784
    """Theorem 2 needs a dense P: for inputs of more features there is Corollary 1 only."""
    beyond: bool = False
    """Beside the paper's l-infinity bounds also the semidefinite one, and that within the box of valid inputs."""
    rank_samples: int = 0
    """Guarantees for ranks are computed for so many first samples: a second per radius for 784 features on a core. They
    need a dense P as well."""
    small_remainder: float = 0.05
    """Samples whose Taylor remainder is below this are counted apart in the table of violations."""
    batch_size: int = 50
    """Samples computed and stored at a time."""
    workers: int = 2
    """Processes, each with another pair of attribution and norm; one on an accelerator."""
    distributed: bool = False
    """One of several processes: call jax.distributed.initialize(), which finds Slurm, Open MPI and Kubernetes."""
    kinks: Literal["refuse", "allow"] = "refuse"
    """A network that is not twice differentiable in its input (ReLU, max-pooling) is refused, since no bound of it
    holds. With `allow` it is computed all the same, and tables and page say so."""
    skip_damaged: bool = False
    """Go on without the samples of files of rows that cannot be read."""
    pictures: int = 4
    """So many first samples per model, attribution and norm are stored for the heat maps."""
    seed: int = 0
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
    """The radii of each norm that has any."""
    given = {"l2": config.l2 or (), "linf": config.linf or ()}
    return {norm: epsilons for norm, epsilons in given.items() if epsilons}


def training_of(config: Config, defense: str) -> TrainConfig:
    """The run of ``train`` that makes one of the models, in a directory of its own inside of the run's."""
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
