"""Keep the networks of a run as files: weights and a card in a directory of each.

DIRECTORY/models/NAME/network.npz    the weights
DIRECTORY/models/NAME/network.json   the card: what they are and what was measured with them
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import jaxattr as ja
from jaxattr.audit.run_directory import StoreError, write_text
from jaxattr.parallel import on_first
from jaxattr.programs import guard
from jaxattr.programs.guard import Kinks

NAME = "network"


class Network(NamedTuple):
    """A network whose explanations are audited.

    Attributes:
      name: in rows and tables.
      logits_fn: the classifier of one input, a callable pytree.
      weights: hash of the weights.
      shape: of an input.
    """

    name: str
    logits_fn: Any
    weights: str
    shape: tuple[int, ...]


def complete(directory: Path) -> bool:
    """Whether a directory has a network and its card."""
    return all((directory / f"{NAME}.{suffix}").exists() for suffix in ("npz", "json"))


def cards(models: Path, order: Sequence[str] = ()) -> dict[str, dict[str, Any]]:
    """Read the cards of a run's networks by name, those that a later command added included.

    Args:
      models: directory of the networks.
      order: names that come first, in this order; the others follow by name.
    """
    there = {path.parent.name: path for path in sorted(models.glob(f"*/{NAME}.json"))}
    names = [*(name for name in order if name in there), *(name for name in there if name not in order)]
    return {name: ja.zoo.read_card(there[name]) for name in names}


def load(directory: Path) -> Network:
    """Read a network that is complete.

    Raises:
      ValueError: if it is not, or a file is damaged.
    """
    trained = ja.zoo.load(NAME, directory)
    logits_fn = ja.models.logits_fn(trained.model, trained.variables)
    return Network(directory.name, logits_fn, trained.card["weights"], tuple(trained.card["data"]["shape"]))


def count_kinks(directory: Path, kinks: Kinks = "allow") -> int:
    """Count the operations of a network that are not twice differentiable in its input.

    Args:
      directory: of a network that is complete.
      kinks: ``refuse`` any in the words of every bound, before anything is compiled, or ``allow`` them.

    Raises:
      ValueError: if there are any and they are refused; the message names them.
    """
    network = load(directory)
    try:
        return guard.check(
            ja.attributions.saliency(), network.logits_fn, jnp.zeros(network.shape), kinks, method="audit"
        )
    except ValueError as error:
        raise ValueError(
            f"{network.name}: {error}\nOn the command line that is `--kinks allow`; tables and page then say so."
        ) from error


def adopt(name: str, directory: Path) -> None:
    """Copy a network of the package, and its card, into the directory of a run, unless they are there.

    Raises:
      ValueError: if there is none of this name.
      jaxattr.audit.run_directory.StoreError: if the directory holds another one.
    """
    pretrained = ja.zoo.load(name)

    def copy() -> int:
        if complete(directory):
            if load(directory).weights != pretrained.card["weights"]:
                rows = directory.parents[1] / "rows" / f"model={directory.name}"
                raise StoreError(
                    f"{directory} holds other weights than {name} of this version; choose another `--output`, or"
                    f" delete that directory and {rows}, its rows."
                )
            return 0
        stored = jax.tree.map(lambda leaf: np.asarray(leaf, pretrained.card["dtype"]), pretrained.variables)
        write(directory, stored, pretrained.card)
        return 0

    on_first(copy)


def write(directory: Path, variables: Any, card: dict[str, Any]) -> None:
    """Write a network and its card; the card last, since a directory that has one is complete."""
    directory.mkdir(parents=True, exist_ok=True)
    ja.weights.save_variables(directory / f"{NAME}.npz", variables, overwrite=True)
    write_text(directory / f"{NAME}.json", json.dumps(card, indent=2) + "\n")
