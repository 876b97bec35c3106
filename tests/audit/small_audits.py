"""What tests of audits share: a configuration of one's own, two small networks, and an audit of both.

One attribution, 16 digits in two batches of as many as there are simulated devices, one process to interfere with; and
the network that is quickest to compile. Attacks and radii are those of the preset ``smoke``, whose programs are shared.
"""

import dataclasses
from typing import ClassVar

import jax
import numpy as np
import optax

import jaxattr as ja
from jaxattr.audit import networks, spec
from jaxattr.audit.run import compute
from jaxattr.audit.run_directory import environment
from jaxattr.audit.spec import Measures
from jaxattr.audit.store import Store

MODELS = ("plain", "other")
OPTIONS = {"num_classes": 10, "beta": 10.0, "mean": 0.0, "std": 1.0}


@dataclasses.dataclass(frozen=True)
class Config(Measures):
    """The configuration of someone who audits networks of his own."""

    COMMAND: ClassVar[str] = "audit"
    NOT_HASHED: ClassVar[tuple[str, ...]] = (
        *(name for name in Measures.__dataclass_fields__ if name not in ("dataset", "seed")),
        "output",
    )

    output: str | None = None
    smoothing: float = 0.5


CONFIG = spec.with_top_k(
    Config(
        num_samples=16,
        attributions=("saliency",),
        l2=(0.05,),
        linf=(0.01,),
        attacks=(
            "restarts(pgd(num_steps=2), 2)",
            "restarts(ifia(dissimilarity=top_k({k}), num_steps=2), 2)",
            "ascent=restarts(ifia(dissimilarity=euclidean(), num_steps=2), 2)",
        ),
        batch_size=8,
        workers=1,
        pictures=2,
        top_k=8,
        top_k_map="pixel",
    )
)


def load_data(_):
    return ja.data.load("digits", "test")


def small_network(seed, beta=10.0):
    """Weights after an epoch, and their card."""
    model = ja.models.MLP(**{**OPTIONS, "beta": beta})
    data = ja.data.load("digits", "train")
    variables = ja.fit(
        ja.defenses.natural(),
        ja.models.apply_fn(model),
        ja.models.init(model, jax.random.key(seed), (8, 8, 1)),
        data,
        optimizer=optax.adam(0.01),
        batch_size=128,
        epochs=1,
        key=jax.random.key(seed),
        devices=jax.devices()[:1],
    ).variables
    variables = jax.tree.map(np.asarray, variables)
    return variables, {
        "data": {"name": "digits", "shape": [8, 8, 1]},
        "model": {"name": "mlp", "options": {**OPTIONS, "beta": beta}},
        "weights": ja.zoo.weights_hash(variables),
        "dtype": "float32",
        "accuracy": 0.75,
        "pgd_accuracy": 0.5,
        "pgd": {"epsilon": 0.1},
        "config": {"training": {"epochs": 1}},
    }


def make_networks(models):
    for seed, name in enumerate(MODELS):
        networks.write(models / name, *small_network(seed))


def audit(directory, pairs=None, models=MODELS, **changes):
    """Compute an audit, or what is missing of it."""
    store = Store(directory, Config, dataclasses.replace(CONFIG, **changes), environment(), "python my_audit.py")
    if not (directory / "models").exists():
        make_networks(directory / "models")
    compute(store, models, load_data, pairs)
    return store


def stored(directory):
    return Store(directory, Config)


def parts(directory, model="plain", norm="linf"):
    return sorted(cell(directory, model, norm).glob("*.parquet"))


def cell(directory, model="plain", norm="linf"):
    return directory / "rows" / f"model={model}" / "attribution=saliency" / f"norm={norm}"
