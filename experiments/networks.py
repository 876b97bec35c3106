"""The networks of a run: trained once, then read from the run's directory."""

import json
import logging
import time
from pathlib import Path
from typing import Any, NamedTuple

import hashlib
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
      card: accuracies on the test split, clean and under PGD.
    """

    name: str
    model: Any
    variables: dict[str, Any]
    weights: str
    card: dict[str, Any]


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


def obtain(defense: str, config: Config, train: Any, test: Any, directory: Path) -> Network:
    """Train a network, or take the one that the run has trained before.

    A training that was killed continues from its last checkpoint.
    """
    model = build(config, test.num_classes)
    folder = directory / "models" / defense
    weights, card = folder / "weights.npz", folder / "card.json"
    if weights.exists() and card.exists():
        variables = ja.checkpoints.load_variables(weights)
        network = Network(defense, model, variables, weights_hash(variables), json.loads(card.read_text()))
        log.info("%s: trained before, weights %s", defense, network.weights)
        return network
    began = time.perf_counter()
    variables = _train(defense, model, config, train, folder)
    ja.checkpoints.save_variables(weights, variables, overwrite=True)
    # As they will be read when the run goes on.
    variables = ja.checkpoints.load_variables(weights)
    values = _accuracies(model, variables, config, test) | {"training_seconds": round(time.perf_counter() - began, 1)}
    write_text(card, json.dumps(values, indent=2) + "\n")
    log.info(
        "%s: accuracy %.1f %%, under PGD (l-infinity %.3g) %.1f %%",
        defense,
        100 * values["accuracy"],
        values["pgd_epsilon"],
        100 * values["pgd_accuracy"],
    )
    return Network(defense, model, variables, weights_hash(variables), values)


def _train(defense: str, model: Any, config: Config, train: Any, folder: Path) -> dict[str, Any]:
    options = config.training
    assert options.epochs and options.batch_size and options.learning_rate and options.epsilon  # resolved
    batch_size = min(options.batch_size, len(train.x))
    steps = options.epochs * (len(train.x) // batch_size)
    log.info("%s: training %s for %d steps", defense, config.model, steps)
    key = jax.random.key(options.seed)
    objectives = {
        "adversarial": lambda: ja.defenses.adversarial(
            ja.attacks.pgd(ja.LInf(options.epsilon), num_steps=options.attack_steps)
        )
    }
    objective = objectives.get(defense, ja.defenses.REGISTRY[defense])()
    schedule = optax.warmup_cosine_decay_schedule(0.0, options.learning_rate, steps // 20 + 1, steps + 1)
    # The same start for all: what differs is the objective.
    variables = ja.models.init(model, jax.random.fold_in(key, 0), train.x.shape[1:])
    result = ja.fit(
        objective,
        ja.models.apply_fn(model),
        variables,
        train,
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
    return {
        "accuracy": ja.training.accuracy(apply_fn, variables, test),
        "pgd_accuracy": ja.training.robust_accuracy(apply_fn, variables, test, attack, key),
        "pgd_epsilon": float(epsilon or 0),
    }
