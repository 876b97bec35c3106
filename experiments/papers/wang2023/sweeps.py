"""Compute what figures of Wang and Kong 2023 need beside rows of bounds and attacks, from a few samples of each model.

Each sweep is one CSV file in the directory of the run, to which models are added; a killed command loses the models in
progress (minutes).
"""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import polars as pl

import jaxattr as ja
from experiments import networks
from experiments.config import Config
from experiments.datasets import known
from experiments.evaluate import first_correct, test_data
from experiments.program import attribution
from experiments.record import StoreError, write_atomic
from experiments.store import Store

SAMPLES = 20
BETAS = (5.0, 10.0, 25.0, 50.0, 100.0)
# Multiples of the main radius.
RADII = (0.125, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
# Rows and columns of the Jacobian that are shown.
WINDOW = 100


def compute(name: str, store: Store, config: Config) -> None:
    """Compute one of :data:`SWEEPS`, or the models that the run lacks in it."""
    there = read(name, store)
    samples = min(SAMPLES, config.num_samples or SAMPLES)
    # Drop lines of too few samples, or of a command that asked for fewer.
    kept = None if there is None else there.filter(pl.col("n") >= samples)
    done = () if kept is None else kept["model"].unique().to_list()
    lacking = tuple(defense for defense in config.defenses if defense not in done)
    if lacking:
        made = pl.DataFrame(SWEEPS[name](store, dataclasses.replace(config, defenses=lacking)))
        frame = made if kept is None else pl.concat([kept, made])
        write_atomic(store.directory / f"{name}.csv", frame.write_csv)


def read(name: str, store: Store) -> pl.DataFrame | None:
    """Read the results of :func:`compute` for the run's models, if any: one line per model and value, of n samples.

    Raises:
      StoreError: if it cannot be read.
    """
    path = store.directory / f"{name}.csv"
    if not path.exists():
        return None
    weights = {model: card["weights"] for model, card in networks.cards(store.directory / "models").items()}
    try:
        lines = pl.read_csv(path)
        # Lines of earlier weights say nothing about the current ones.
        current = pl.col("weights") == pl.col("model").replace_strict(weights, default=None, return_dtype=pl.String)
        lines = lines.filter(current & (pl.col("n") > 0))
    except pl.exceptions.PolarsError as error:
        raise StoreError(f"{path} is damaged, or of another version ({error}). Remove it to make it again.") from error
    return lines if len(lines) else None


def linearity(store: Store, config: Config) -> list[dict[str, Any]]:
    """Measure how far a map is from its linear model along the worst direction (Wang and Kong 2023, Appendix B)."""
    attribute = attribution("integrated_gradients", config)
    radii = np.asarray(RADII) * _main_radius(config)

    def program(logits_fn, x, label, key):
        bound = ja.bounds.singular_value(attribute, ja.L2(1.0), num_steps=config.lanczos_steps)
        direction = bound(logits_fn, x, label, key).direction
        clean, slope = jax.jvp(lambda z: attribute(logits_fn, z, label), (x,), (direction,))

        def remainder(radius):
            gap = attribute(logits_fn, x + radius * direction, label) - clean - radius * slope
            return jnp.linalg.norm(gap.ravel()) / (radius * jnp.linalg.norm(slope.ravel()))

        return jax.lax.map(remainder, jnp.asarray(radii, x.dtype))

    return [
        {**of, "epsilon": float(radius), "remainder": float(value)}
        for of, result in _over_models(program, store, config)
        for radius, values in zip(radii, result.T, strict=True)
        for value in values
    ]


def beta(store: Store, config: Config) -> list[dict[str, Any]]:
    """Measure accuracy, map, l2 bound and remainder of the same weights with a softer or sharper softplus."""
    data = test_data(config)
    watched = ja.training.Batch(data.x[:1000], data.label[:1000])

    def accuracy(model: str, value: float) -> float:
        network = networks.load(store.directory / "models" / model)
        apply = ja.models.apply_fn(network.model.clone(beta=value))
        return ja.training.accuracy(apply, network.variables, watched)

    attribute = attribution("integrated_gradients", config)
    ball = ja.L2(_main_radius(config))
    solver: Any = {"method": config.sigma_method, "num_steps": config.lanczos_steps, "confidence": config.confidence}
    bound = ja.bounds.corrected(ja.bounds.singular_value(attribute, ball, **solver), attribute)

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
        for of, result in _over_models(program, store, config, value)
    ]


def jacobian(store: Store, config: Config) -> list[dict[str, Any]]:
    """Compute absolute entries of a sample's IG Jacobian around the image's middle (Wang and Kong 2023, Figure 1b).

    The paper shows the first features of a color image; those of MNIST are black corners. Beside them, ``dominant`` is
    the share, over more samples, of the rows of ``P = J^T J`` (those that are not zero) in which the diagonal outweighs
    the sum of all others, which the paper's figure is to show.
    """
    attribute = attribution("integrated_gradients", config)

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
    for of, result in _over_models(program, store, config):
        begin, _ = _window(test_data(config).x[0].size)
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
    values = read("1b", store)
    if values is None:
        return {}
    lines = values.select("model", "dominant", "n").unique().sort("model")
    return {row["model"]: {"share": row["dominant"], "n": row["n"]} for row in lines.iter_rows(named=True)}


SWEEPS: dict[str, Callable[[Store, Config], list[dict[str, Any]]]] = {
    "1b": jacobian,
    "linearity": linearity,
    "beta": beta,
}


def _main_radius(config: Config) -> float:
    if not config.l2:
        raise ValueError("this figure is of a Euclidean radius: give one with `--l2`.")
    main = known(config.dataset).main_l2
    return main if main in config.l2 else config.l2[0]


def _over_models(
    program: Callable[..., Any], store: Store, config: Config, beta: float | None = None
) -> Iterator[tuple[dict[str, Any], Any]]:
    """Yield key columns (model, weights, n), and a program's results for the first n correct samples of each model.

    The model as it was trained decides which samples these are, also where another beta is asked for.
    """
    data = test_data(config)
    for defense in config.defenses:
        network = networks.load(store.directory / "models" / defense)
        chosen = first_correct(network, data, config)[:SAMPLES]
        if beta is not None:
            network = network._replace(model=network.model.clone(beta=beta))
        classify = ja.models.logits_fn(network.model, network.variables)
        lifted = ja.over_samples(program, classify, batch_size=min(config.batch_size, len(chosen)))
        with jax.default_matmul_precision("highest"):
            of = {"model": network.name, "weights": network.weights, "n": len(chosen)}
            yield of, lifted(data.x[chosen], data.label[chosen], jax.random.key(config.seed))
