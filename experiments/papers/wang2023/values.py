"""Compute values that figures of Wang and Kong 2023 need beside rows, from a few samples of each model."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jaxattr as ja
from experiments.audits.config import Config
from experiments.audits.run import load_data
from experiments.datasets import defaults_of
from experiments.papers.run import SAMPLES, read_values
from experiments.papers.wang2023.tables import IG
from jaxattr.audit import networks, spec
from jaxattr.audit.networks import NAME
from jaxattr.audit.run import first_correct
from jaxattr.audit.store import Store

BETAS = (5.0, 10.0, 25.0, 50.0, 100.0)
# Multiples of the main radius.
RADII = (0.125, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
# Rows and columns of the Jacobian that are shown.
WINDOW = 100


def linearity(store: Store, config: Config, models: Sequence[str]) -> list[dict[str, Any]]:
    """Measure how far a map is from its linear model along the worst direction (Wang and Kong 2023, Appendix B)."""
    attribute = spec.attribution(config, IG)
    radii = np.asarray(RADII) * _main_radius(config)

    def program(logits_fn, x, label, key):
        bound = ja.bounds.singular_value(attribute, ja.L2(1.0))
        direction = bound(logits_fn, x, label, key).direction
        clean, slope = jax.jvp(lambda z: attribute(logits_fn, z, label), (x,), (direction,))

        def remainder(radius):
            gap = attribute(logits_fn, x + radius * direction, label) - clean - radius * slope
            return jnp.linalg.norm(gap.ravel()) / (radius * jnp.linalg.norm(slope.ravel()))

        return jax.lax.map(remainder, jnp.asarray(radii, x.dtype))

    return [
        {**of, "epsilon": float(radius), "remainder": float(value)}
        for of, result in _over_models(program, store, config, models)
        for radius, values in zip(radii, result.T, strict=True)
        for value in values
    ]


def beta(store: Store, config: Config, models: Sequence[str]) -> list[dict[str, Any]]:
    """Measure accuracy, map, l2 bound and remainder of the same weights with a softer or sharper softplus."""
    data = load_data(config)
    watched = ja.training.Batch(data.x[:1000], data.label[:1000])

    def accuracy(model: str, value: float) -> float:
        trained = ja.zoo.load(NAME, store.directory / "models" / model)
        apply = ja.models.apply_fn(trained.model.clone(beta=value))
        return ja.training.accuracy(apply, trained.variables, watched)

    attribute = spec.attribution(config, IG)
    ball = ja.L2(_main_radius(config))
    bound = ja.bounds.corrected(ja.bounds.singular_value(attribute, ball), attribute)

    def program(logits_fn, x, label, key):
        result = bound(logits_fn, x, label, key)
        return {
            "attribution_norm": result.bound.attribution_norm,
            "bound": result.bound.euclidean,
            "bound_degrees": jnp.where(result.bound.vacuous, 180, result.bound.degrees),
            "remainder": result.remainder,
        }

    return [
        {
            **of,
            "beta": value,
            "epsilon": ball.epsilon,
            "accuracy": accuracy(of["model"], value),
            **{name: float(np.mean(values)) for name, values in result.items()},
        }
        for value in BETAS
        for of, result in _over_models(program, store, config, models, value)
    ]


def jacobian(store: Store, config: Config, models: Sequence[str]) -> list[dict[str, Any]]:
    """Compute absolute entries of a sample's IG Jacobian around the image's middle (Wang and Kong 2023, Figure 1b).

    The paper shows the first features of a color image; those of MNIST are black corners. Beside them, ``dominant`` is
    the share, over more samples, of the rows of ``P = J^T J`` (those that are not zero) in which the diagonal outweighs
    the sum of all others, which the paper's figure is to show.
    """
    attribute = spec.attribution(config, IG)

    def program(logits_fn, x, label, _):
        matrix = ja.attribution_jacobian(attribute, logits_fn, x, label).dense(32)
        gram = jnp.abs(matrix.T @ matrix)
        diagonal, sums = jnp.diag(gram), jnp.sum(gram, axis=1)
        live = sums > 0
        dominant = jnp.sum((2 * diagonal >= sums) & live) / jnp.maximum(jnp.sum(live), 1)
        # The program returns the shown part alone: whole matrices of color images are 38 MB a sample.
        begin, size = _window(len(matrix))
        shown = jnp.abs(matrix[begin : begin + size, begin : begin + size])
        return {"shown": shown / jnp.maximum(jnp.max(jnp.abs(matrix)), 1e-30), "dominant": dominant}

    found = []
    for of, result in _over_models(program, store, config, models):
        begin, _ = _window(load_data(config).x[0].size)
        dominant = float(np.mean(result["dominant"]))
        for row, values in enumerate(result["shown"][0]):
            place = {**of, "dominant": dominant, "row": begin + row}
            found += [{**place, "column": begin + i, "value": float(value)} for i, value in enumerate(values)]
    return found


def _window(features: int) -> tuple[int, int]:
    """Return the first and the number of the features in the middle that are shown."""
    size = min(WINDOW, features)
    return (features - size) // 2, size


def dominance(store: Store) -> dict[str, dict[str, float]]:
    """Return ``dominant`` of each model, and its number of samples, n, from :func:`jacobian`, as far as computed."""
    values = read_values("1b", store)
    if values is None:
        return {}
    lines = values.select("model", "dominant", "n").unique().sort("model")
    return {row["model"]: {"share": row["dominant"], "n": row["n"]} for row in lines.iter_rows(named=True)}


def _main_radius(config: Config) -> float:
    if not config.l2:
        raise ValueError("this figure is of a Euclidean radius: give one with `--l2`.")
    main = defaults_of(config.dataset).main_l2
    return main if main in config.l2 else config.l2[0]


def _over_models(
    program: Callable[..., Any], store: Store, config: Config, models: Sequence[str], beta: float | None = None
) -> Iterator[tuple[dict[str, Any], Any]]:
    """Yield key columns (model, weights, n), and a program's results for the first n correct samples of each model.

    The model as it was trained decides which samples these are, also where another beta is asked for.
    """
    data = load_data(config)
    for model in models:
        directory = store.directory / "models" / model
        network = networks.load(directory)
        chosen = first_correct(network, data, config)[:SAMPLES]
        logits_fn = network.logits_fn
        if beta is not None:
            trained = ja.zoo.load(NAME, directory)
            logits_fn = ja.models.logits_fn(trained.model.clone(beta=beta), trained.variables)
        lifted = ja.over_samples(program, logits_fn, batch_size=min(config.batch_size, len(chosen)))
        with jax.default_matmul_precision("highest"):
            of = {"model": network.name, "weights": network.weights, "n": len(chosen)}
            yield of, lifted(data.x[chosen], data.label[chosen], jax.random.key(config.seed))


def kept(_: Any, store: Store) -> dict[str, Any]:
    """Return the values that the report keeps of a run: the dominance of Figure 1b."""
    found = dominance(store)
    return {"dominant": found} if found else {}
