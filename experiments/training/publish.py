"""``python -m experiments publish RUN NAME``: add weights and card of a finished training to the zoo."""

import dataclasses
import json
import logging
import re
from pathlib import Path
from typing import Any

import jax
import numpy as np

import jaxattr as ja
from experiments.training import accuracies
from experiments.training.train import TrainConfig
from jaxattr.audit import networks
from jaxattr.audit.networks import NAME
from jaxattr.audit.run_directory import StoreError, from_dict, open_run, write_text

log = logging.getLogger(__name__)

LARGEST = 1_500_000
"""Largest size in bytes of a file of weights: they are part of the package."""
_NAME = re.compile(r"[a-z0-9_]+/[a-z0-9_]+")


def publish(
    run: Path,
    name: str,
    *,
    directory: Path | None = None,
    dtype: str | None = None,
    data_dir: str | None = None,
    overwrite: bool = False,
) -> Path:
    """Write weights and card of a training to the zoo.

    Args:
      run: directory of a finished ``train``, or ``models/DEFENSE`` of an ``audit``.
      name: ``DATASET/WORD``, such as ``mnist/trades_igr``.
      directory: directory of the zoo; by default ``jaxattr/zoo`` of the package in use.
      dtype: float32 or float16; by default float32 where the file is then small enough.
      data_dir: directory of data prepared by TFDS. Rounded weights are measured once more.
      overwrite: whether to replace a network of this name.

    Returns:
      The file of weights; the card is beside it.

    Raises:
      StoreError: if the training is not finished, its accuracies are not of the full test set, the name is taken, or
        the weights are too large. Nothing is written then.
      ValueError: if the name does not fit.
    """
    config = from_dict(TrainConfig, open_run(run, TrainConfig, None)["config"])
    if not _NAME.fullmatch(name) or not name.startswith(f"{config.dataset}/"):
        raise ValueError(f"the name is {name!r}; give {config.dataset}/WORD, of small letters, digits and underscores.")
    if not networks.complete(run):
        raise StoreError(f"the training in {run} is not finished; finish it with `train`.")
    trained = ja.zoo.load(NAME, run)
    if not trained.card["full_test_set"]:
        raise StoreError(
            f"the accuracies of {run} are of {trained.card['test_samples']} test samples, and a card is of the full"
            " test set: train without `--training.accuracy-samples`, and not with the preset smoke."
        )
    root = Path(str(ja.zoo.__file__)).parent if directory is None else directory
    target = root / f"{name}.npz"
    if not overwrite and any(target.with_suffix(suffix).exists() for suffix in (".npz", ".json")):
        raise StoreError(f"{target} exists, or its card; pass `--overwrite` to replace both.")
    # Use a name that no loader lists, until it is known whether the file is small enough.
    draft = target.with_name(f".{target.name}")
    try:
        stored, dtype = _store(trained.variables, draft, dtype)
        card = _card(trained, stored, dtype, config, data_dir)
        target.with_suffix(".json").unlink(missing_ok=True)
        draft.replace(target)
    finally:
        draft.unlink(missing_ok=True)
    write_text(target.with_suffix(".json"), json.dumps(card, indent=2) + "\n")
    log.info("%s: %s; %s, %d bytes", name, accuracies.describe(card), dtype, target.stat().st_size)
    return target


def _store(variables: Any, draft: Path, dtype: str | None) -> tuple[Any, str]:
    """Write the weights in the first type in which they are small enough."""
    size = 0
    for kind in ("float32", "float16") if dtype is None else (dtype,):
        stored = jax.tree.map(lambda leaf, kind=kind: np.asarray(leaf, kind), variables)
        if not all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(stored)):
            raise StoreError(f"some weights are not finite in {kind}.")
        ja.weights.save_variables(draft, stored, overwrite=True)
        size = draft.stat().st_size
        if size <= LARGEST:
            return stored, kind
    raise StoreError(f"the weights take {size:,} bytes, and at most {LARGEST:,} are accepted into the package.")


def _card(trained: Any, stored: Any, dtype: str, config: TrainConfig, data_dir: str | None) -> dict[str, Any]:
    """Build the card of the training for the weights as they are stored."""
    card = {**trained.card, "weights": ja.zoo.weights_hash(stored), "dtype": dtype}
    if dtype == "float32":
        return card
    before = {name: card[name] for name in ("accuracy", "pgd_accuracy")}
    config = dataclasses.replace(config, data_dir=data_dir or config.data_dir)
    test = ja.data.load(config.dataset, "test", config.data_dir)
    rounded = jax.tree.map(lambda leaf: np.asarray(leaf, np.float32), stored)
    log.info("measuring the accuracies of the rounded weights")
    return {**card, **accuracies.measure(trained.apply_fn, rounded, test, config.training), "before_rounding": before}
