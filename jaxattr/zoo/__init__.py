"""Load trained networks with their cards from package data: ``ja.zoo.load("digits/natural")``.

Weights are NumPy archives of arrays, which run no code when they are read. The card beside them, a JSON file of the
same name, says how they were trained and what was measured: only with the weights as they are stored, and on the full
test set. ``python -m experiments publish`` writes both.
"""

import importlib.resources
import json
import os
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import numpy as np
from jax.tree_util import Partial

from jaxattr import _fingerprint, models
from jaxattr.apply_fn import ApplyFn
from jaxattr.weights import load_variables


class Pretrained(NamedTuple):
    """A trained network with its weights and its card.

    Attributes:
      model: the Flax module.
      variables: its weights in float32, a dictionary with ``"params"``.
      card: content of the JSON file beside the weights.
    """

    model: nn.Module
    variables: dict[str, Any]
    card: dict[str, Any]

    @property
    def apply_fn(self) -> ApplyFn:
        """Return the network as a function of batches, which training and evaluation take."""
        return models.apply_fn(self.model)

    @property
    def logits_fn(self) -> Partial:
        """Return the classifier of ONE input, which attributions, bounds and attacks take."""
        return models.logits_fn(self.model, self.variables)


def names(directory: str | os.PathLike | None = None) -> tuple[str, ...]:
    """Return the names of all networks, sorted.

    Args:
      directory: a folder of weights and cards; by default the package's own.

    Example:
      >>> "digits/natural" in names()
      True
    """
    return tuple(sorted(_names(_root(directory), "")))


def load(name: str, directory: str | os.PathLike | None = None) -> Pretrained:
    """Read a trained network.

    Args:
      name: one of :func:`names`, such as ``"mnist/trades_igr"``.
      directory: a folder of weights and cards; by default the package's own.

    Returns:
      Model, variables and card.

    Raises:
      ValueError: if there is no such network (the message lists what there is), a file is damaged, or the weights are
        not those that the card speaks of.

    Example:
      >>> import jaxattr as ja
      >>> network = ja.zoo.load("digits/natural")
      >>> digits = ja.data.load("digits", "test")
      >>> int(network.logits_fn(digits.x[0]).argmax()), int(digits.label[0])
      (2, 2)
      >>> network.card["accuracy"] == ja.training.accuracy(network.apply_fn, network.variables, digits)
      True
    """
    root = _root(directory)
    there = names(directory)
    if name not in there:
        listed = ", ".join(there) or "nothing"
        raise ValueError(f"there is no trained network {name!r} in {root}; there is {listed}.")
    card = read_card(root.joinpath(f"{name}.json"))
    # Get a real file, also where the package is a zip archive.
    with importlib.resources.as_file(root.joinpath(f"{name}.npz")) as path:
        stored = load_variables(path)
    if weights_hash(stored) != card["weights"]:
        raise ValueError(
            f"the weights of {name!r} in {root} are not those that the card was written for (their hash is "
            f"{weights_hash(stored)}, the card's is {card['weights']}): one of the two files was replaced."
        )
    variables = jax.tree.map(lambda leaf: np.asarray(leaf, np.float32), stored)
    return Pretrained(build(card), variables, card)


def build(card: dict[str, Any]) -> nn.Module:
    """Build the untrained module that a card describes."""
    options = {
        name: tuple(value) if isinstance(value, list) else value for name, value in card["model"]["options"].items()
    }
    return models.REGISTRY[card["model"]["name"]](**options)


def read_card(path: Traversable | Path) -> dict[str, Any]:
    """Read a card.

    Raises:
      ValueError: if it is damaged.
    """
    try:
        card = json.loads(path.read_text(encoding="utf-8"))
        complete = "weights" in card and {"name", "options"} <= card["model"].keys()
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"{path} is damaged, or no card of a trained network ({error!r}).") from error
    if not complete:
        raise ValueError(f"{path} is no card of a trained network: it does not say which weights, or which model.")
    return card


def weights_hash(variables: Any) -> str:
    """Hash the values, shapes, dtypes and names of all arrays.

    Example:
      >>> weights_hash({"params": {"bias": np.zeros(2)}}) == weights_hash({"params": {"bias": np.zeros(3)}})
      False
    """
    return _fingerprint.arrays(variables)


def _root(directory: str | os.PathLike | None) -> Traversable:
    return importlib.resources.files(__name__) if directory is None else Path(directory)


def _names(folder: Traversable, prefix: str) -> list[str]:
    if not folder.is_dir():
        return []
    entries = list(folder.iterdir())
    cards = {entry.name for entry in entries}
    found = []
    for entry in entries:
        stem, _, suffix = entry.name.rpartition(".")
        if entry.is_dir():
            found += _names(entry, f"{prefix}{entry.name}/")
        elif suffix == "npz" and f"{stem}.json" in cards:
            found.append(prefix + stem)
    return found
