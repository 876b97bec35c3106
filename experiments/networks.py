"""The networks of a run: trained once, then read from the run's directory."""

import hashlib
import json
import logging
import time
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import optax

import jaxattr as ja
from experiments.config import Config
from experiments.datasets import known
from experiments.store import write_text

log = logging.getLogger(__name__)


class Network(NamedTuple):
    """A trained network.

    Attributes:
      name: of its training objective.
      model: the module.
      variables: its weights.
      weights: their hash.
    """

    name: str
    model: Any
    variables: dict[str, Any]
    weights: str


def build(config: Config, num_classes: int) -> Any:
    """The untrained module."""
    data = known(config.dataset)
    options = {"num_classes": num_classes, "beta": config.beta, "mean": data.mean, "std": data.std}
    return ja.models.REGISTRY[str(config.model)](**options)


def weights_hash(variables: Any) -> str:
    """Hash of the values, shapes and names of all leaves."""
    digest = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(variables):
        array = np.asarray(leaf)
        digest.update(f"{jax.tree_util.keystr(path)} {array.dtype} {array.shape}".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()[:16]


def trained(defense: str, directory: Path) -> bool:
    """Whether a network of this run is complete."""
    return all((_folder(directory, defense) / name).exists() for name in ("weights.npz", "card.json"))


def load(defense: str, config: Config, num_classes: int, directory: Path) -> Network:
    """Read a network that was trained in this run.

    Raises:
      FileNotFoundError: if it was not.
      ValueError: if its file is damaged.
    """
    folder = _folder(directory, defense)
    variables = ja.checkpoints.load_variables(folder / "weights.npz")
    return Network(defense, build(config, num_classes), variables, weights_hash(variables))


def train(defense: str, config: Config, data: Any, test: Any, directory: Path) -> None:
    """Train a network and note its accuracies; a training that was killed continues from its last checkpoint."""
    began = time.perf_counter()
    folder = _folder(directory, defense)
    model = build(config, test.num_classes)
    variables = _fit(defense, model, config, data, folder)
    ja.checkpoints.save_variables(folder / "weights.npz", variables, overwrite=True)
    card = {"weights": weights_hash(variables), **_accuracies(model, variables, config, test)}
    card["seconds"] = round(time.perf_counter() - began, 1)
    write_text(folder / "card.json", json.dumps(card, indent=2) + "\n")
    log.info(
        "%s: %d test samples: accuracy %.1f %%, under PGD (l-infinity %.3g) %.1f %%; %.1f s",
        defense,
        card["test_samples"],
        100 * card["accuracy"],
        card["pgd_epsilon"],
        100 * card["pgd_accuracy"],
        card["seconds"],
    )


def _folder(directory: Path, defense: str) -> Path:
    return directory / "models" / defense


def _fit(defense: str, model: Any, config: Config, data: Any, folder: Path) -> dict[str, Any]:
    options = config.training
    # Resolved by now; said for the type checker.
    assert options.epochs is not None
    assert options.batch_size is not None
    assert options.learning_rate is not None
    assert options.epsilon is not None
    batch_size = min(options.batch_size, len(data.x))
    steps = options.epochs * (len(data.x) // batch_size)
    log.info("%s: training %s for %d steps", defense, config.model, steps)
    key = jax.random.key(options.seed)
    if defense == "adversarial":
        attack = ja.attacks.pgd(ja.LInf(options.epsilon), num_steps=options.attack_steps)
        objective = ja.defenses.adversarial(attack)
    else:
        objective = ja.defenses.REGISTRY[defense]()
    schedule = optax.warmup_cosine_decay_schedule(0.0, options.learning_rate, steps // 20 + 1, steps + 1)
    # The same start for all: what differs is the objective.
    variables = ja.models.init(model, jax.random.fold_in(key, 0), data.x.shape[1:])
    result = ja.fit(
        objective,
        ja.models.apply_fn(model),
        variables,
        data,
        optimizer=optax.adam(schedule),
        batch_size=batch_size,
        key=jax.random.fold_in(key, 1),
        steps=steps,
        checkpoint_dir=folder / "checkpoints",
        checkpoint_every=max(1, steps // 4),
        log=folder / "training.jsonl",
        log_every=max(1, steps // 20),
    )
    return result.variables


def _accuracies(model: Any, variables: Any, config: Config, test: Any) -> dict[str, float]:
    epsilon = config.training.epsilon
    apply_fn = ja.models.apply_fn(model)
    attack = ja.attacks.pgd(ja.LInf(epsilon), num_steps=config.pgd_steps)
    key = jax.random.key(config.seed)
    count = config.training.accuracy_samples
    test = ja.training.Batch(test.x[:count], test.label[:count])
    return {
        "test_samples": len(test.x),
        "accuracy": ja.training.accuracy(apply_fn, variables, test),
        "pgd_accuracy": ja.training.robust_accuracy(apply_fn, variables, test, attack, key),
        "pgd_epsilon": float(epsilon or 0),
    }
