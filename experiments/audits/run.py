"""``python -m experiments audit``: train or take networks, bound and attack their explanations, and store the rows.

Cost on two CPU cores: ``--preset smoke`` half a minute, ``demo`` below three; ``cpu`` (500 samples of MNIST) is hours
there and minutes on a GPU, ``paper`` is meant for GPUs. A killed run goes on where it was: what is lost is at most the
batch that each worker had in flight.
"""

from collections.abc import Sequence
from pathlib import Path

import jaxattr as ja
from experiments.audits import photographs
from experiments.audits.config import Config, models, training_of
from experiments.training import train
from jaxattr.audit import networks, run
from jaxattr.audit.run_directory import environment
from jaxattr.audit.store import Store
from jaxattr.audit.workers import run_all


def audit(config: Config, pairs: Sequence[tuple[str, str]] | None = None, command: str | None = None) -> Store:
    """Compute a run, or the missing rest of it.

    Args:
      config: resolved.
      pairs: pairs of attribution and norm whose rows are wanted; by default all of the configuration.
      command: as it was written, kept with the run.

    Returns:
      The store with all rows.

    Raises:
      jaxattr.audit.run_directory.StoreError: if the directory holds something else.
    """
    store = Store(str(config.output), Config, config, environment(), command)
    with run.stage(store.directory, "training"):
        run_all(obtain, [(config, label) for label in models(config)], run.processes(config))
    run.compute(store, models(config), load_data, pairs)
    return store


def obtain(config: Config, label: str) -> None:
    """Train one network, or copy a published one, unless the run has it."""
    directory = Path(str(config.output)) / "models" / label
    if config.source == "zoo":
        networks.adopt(f"{config.dataset}/{label}", directory)
    elif config.source == "imagenet":
        photographs.write_network(directory)
    else:
        train.train(training_of(config, label))


def load_data(config: Config) -> ja.data.Dataset:
    """Load the test split of a run."""
    if config.dataset == photographs.DATASET:
        return photographs.load()
    return ja.data.load(config.dataset, "test", config.data_dir)
