"""Compute bounds, attacks and the attacks' effects for one sample, for all radii of one norm.

The programs are pure functions, which ``ja.over_samples`` compiles: per attribution and norm one of the bounds
(:func:`bounds_program`), one of the attacks (:func:`attack_program`) and one of guaranteed ranks
(:func:`rank_program`), shared by all models, whose weights are an argument; and one for the metrics of all of them
(:func:`compare_program`), since a third of the time to compile would otherwise be spent on the same metrics again. The
attribution Jacobian does not depend on the radius: a ``vmap`` over radii shares it.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

import jaxattr as ja
from experiments.config import Config

# pgd: on the cross-entropy, the paper's attack on l2 bounds; it wants another label. ifia: on the top-k set, the
# paper's attack on l-infinity bounds. ascent: IFIA on the deviation itself, which is what the bounds bound. attained:
# the points x + epsilon v and x - epsilon v of the bounds' best direction, clipped to the box, and the best within it.
ATTACKS = ("pgd", "ifia", "ascent", "attained")


def attribution(name: str, config: Config) -> Any:
    """Build an attribution of the registry with the run's options."""
    options = {"integrated_gradients": {"num_steps": config.ig_steps, "rule": config.ig_rule}}
    return ja.attributions.REGISTRY[name](**options.get(name, {}))


# Bounds in the order of computation; `smallest` takes the two before it, and its index refers to them.
BOUNDS = ("singular_value", "norm_relaxation", "entrywise", "smallest", "semidefinite", "semidefinite_box")


def bound_names(norm: str, size: int, config: Config) -> tuple[str, ...]:
    """Return the names of the bounds that are computed for inputs of ``size`` features."""
    if norm == "l2":
        return ("singular_value",)
    names = ("norm_relaxation", "entrywise", "smallest") if size <= config.dense_up_to else ("norm_relaxation",)
    return (*names, "semidefinite", "semidefinite_box") if config.beyond else names


def main_bound(names: tuple[str, ...]) -> str:
    """Return the bound that counts in the tables: the paper's, or the smaller one of its two."""
    return "smallest" if "smallest" in names else names[0]


def attack_labels(norm: str, config: Config) -> list[tuple[str, int]]:
    """List (attack, restart) along the attacks' axis; the two signs of ``attained`` are its restarts."""
    repeats = {"pgd": config.restarts, "ifia": config.ifia_restarts, "ascent": config.ascent_restarts}
    attained = 3 if config.beyond and norm == "linf" else 2
    return [(name, i) for name, count in {**repeats, "attained": attained}.items() for i in range(int(count or 0))]


def bounds_program(name: str, norm: str, epsilons: tuple[float, ...], config: Config) -> Callable[..., Any]:
    """Build ``program(logits_fn, x, label, key) -> dict`` for :func:`jaxattr.over_samples`.

    Leaves have a leading axis of radii, except ``before`` and those under ``sample``; those under ``points`` have a
    second one, of the points that the bounds themselves name.
    """
    attribute = attribution(name, config)
    make_ball = ja.balls.BALLS[norm]

    def program(logits_fn, x, label, key):
        clean = attribute(logits_fn, x, label)
        constraint = ja.bounds.label_constraint(logits_fn, x, label)
        names = bound_names(norm, x.size, config)
        dense = norm == "linf" and x.size <= config.dense_up_to
        # All bounds share one matrix, since they hold for the linear model alone.
        bounded = _linear_model(attribute, logits_fn, x, label, config) if dense else attribute

        def at_radius(epsilon):
            ball = make_ball(epsilon)
            bounds = _bounds(names, bounded, ball, logits_fn, x, label, key, dense, config)
            main = bounds[main_bound(names)]
            corrected = ja.bounds.corrected(lambda *_: main, attribute, kinks=config.kinks)(logits_fn, x, label, key)
            step = epsilon * main.direction
            # Take the furthest direction that is allowed on both sides, and both of its ends.
            two_sided = [bound for bound in bounds.values() if bound.two_sided]
            far = jnp.argmax(jnp.stack([bound.euclidean_attained for bound in two_sided]))
            best = epsilon * jnp.stack([bound.direction for bound in two_sided])[far]
            within = [epsilon * bound.direction for bound in bounds.values() if not bound.two_sided]
            points = jax.vmap(lambda z: ball.project_input(x, z))(
                jnp.stack([x + best, x - best, *(x + w for w in within)])
            )
            return {
                "bounds": {bound: _bound_row(result) for bound, result in bounds.items()},
                "corrected": {
                    "corrected": corrected.euclidean,
                    "corrected_degrees": corrected.degrees,
                    "corrected_vacuous": corrected.vacuous,
                    "constant": corrected.constant,
                    "constant_plus": corrected.constant_plus,
                    "remainder": corrected.remainder,
                    "keeps_plus": constraint.keeps(step),
                    "keeps_minus": constraint.keeps(-step),
                },
                "points": _at(points, attribute, ball, logits_fn, x, label),
            }

        result = jax.vmap(at_radius)(jnp.asarray(epsilons, x.dtype))
        gap = jnp.nan
        if attribute.complete:
            gap = ja.attributions.completeness_gap(attribute)(logits_fn, x, label)
        sample = {"margin": constraint.margin, "completeness_gap": gap, "attribution_sum": jnp.sum(clean)}
        return {**result, "sample": sample, "before": clean}

    return program


def attack_program(name: str, norm: str, epsilons: tuple[float, ...], config: Config) -> Callable[..., Any]:
    """Build ``program(logits_fn, x, label, key) -> dict`` of the attacks, with leaves (radii, attacks, ...)."""
    attribute = attribution(name, config)
    make_ball = ja.balls.BALLS[norm]

    def program(logits_fn, x, label, key):
        def at_radius(epsilon):
            ball = make_ball(epsilon)
            attacked = _attack(attribute, ball, logits_fn, x, label, key, config)
            return _at(attacked, attribute, ball, logits_fn, x, label)

        return jax.vmap(at_radius)(jnp.asarray(epsilons, x.dtype))

    return program


def rank_program(name: str, norm: str, epsilons: tuple[float, ...], config: Config) -> Callable[..., Any]:
    """Build ``program(logits_fn, x, label, key) -> dict`` of guaranteed ranks, per radius.

    Ranks are those of features, which for images of one channel are the pixels; within the box for l-infinity.
    """
    attribute = attribution(name, config)
    make_ball = ja.balls.BALLS[norm]

    def program(logits_fn, x, label, key):
        linear = _linear_model(attribute, logits_fn, x, label, config)

        def at_radius(epsilon):
            guarantee = ja.bounds.rank_guarantee(
                linear,
                make_ball(epsilon),
                k=int(config.top_k or 1),
                within_box=norm == "linf",
                kinks=config.kinks,
            )(logits_fn, x, label, key)
            return {
                "kendall_guaranteed": guarantee.kendall_tau,
                "top_k_guaranteed": guarantee.top_k_intersection,
            }

        return jax.lax.map(at_radius, jnp.asarray(epsilons, x.dtype))

    return program


def compare_program(config: Config) -> Callable[..., dict[str, Array]]:
    """Build ``compare(maps) -> dict`` for :func:`jaxattr.map_samples`: all metrics of all maps of one sample.

    ``maps`` has the clean attribution first; the values are of the others, in their order.
    """
    metrics = ja.metrics
    k, kind = int(config.top_k or 0), config.top_k_map or "pixel"

    def compare(maps):
        clean, reference = maps[0], jnp.abs(maps[0])

        def one(other):
            magnitude = jnp.abs(other)
            return {
                "euclidean": metrics.euclidean(clean, other),
                "cosine": metrics.cosine_distance(clean, other),
                "degrees": metrics.degrees(clean, other),
                "kendall": metrics.kendall_tau(reference, magnitude),
                "kendall_nonzero": metrics.kendall_tau(reference, magnitude, nonzero_only=True),
                "spearman": metrics.spearman(reference, magnitude),
                "top_k": metrics.top_k_intersection(clean, other, k, kind),
            }

        return jax.vmap(one)(maps[1:])

    return compare


def _linear_model(attribute, logits_fn, x, label, config: Config) -> Callable[..., Array]:
    """Build the attribution ``g(x) + J (z - x)`` with J as a matrix, for which every bound here is exact."""
    jacobian = ja.attribution_jacobian(attribute, logits_fn, x, label, kinks=config.kinks)
    matrix = jacobian.dense(32)

    def linear(_, z, __):
        return jacobian.value + (matrix @ (z - x).ravel()).reshape(x.shape)

    return linear


def _bounds(
    names: tuple[str, ...], attribute, ball, logits_fn, x, label, key, dense: bool, config: Config
) -> dict[str, ja.bounds.DeviationBound]:
    # Take all steps: a bound that stopped within a percent is good to use, and too coarse for the gaps of a table.
    krylov: Any = {"num_steps": config.lanczos_steps, "confidence": config.confidence}
    allowed: Any = {"kinks": config.kinks}
    solver: Any = {"method": config.sigma_method, "tolerance": 0.0, **krylov, **allowed}
    products: Any = {"method": "products", "certificate_tolerance": 0.0, **krylov}
    relaxed: Any = {**({"method": "dense"} if dense else products), **allowed}
    make = {
        "singular_value": lambda: ja.bounds.singular_value(attribute, ball, **solver),
        "norm_relaxation": lambda: ja.bounds.norm_relaxation(attribute, ball, **solver),
        "entrywise": lambda: ja.bounds.entrywise(attribute, ball, **allowed),
        "semidefinite": lambda: ja.bounds.semidefinite(attribute, ball, **relaxed),
        "semidefinite_box": lambda: ja.bounds.semidefinite(attribute, ball, within_box=True, **relaxed),
    }
    results: dict[str, ja.bounds.DeviationBound] = {}
    for name in names:
        if name == "smallest":
            # Pass the results at hand, not functions that would compute them again.
            given = [lambda *_, result=result: result for result in results.values()]
            results[name] = ja.bounds.smallest(*given)(logits_fn, x, label, key)
        else:
            results[name] = make[name]()(logits_fn, x, label, key)
    return results


def _at(points: Array, attribute, ball, logits_fn, x, label) -> dict[str, Array]:
    """Compute the maps, labels and distances of perturbed inputs."""
    clean_label = ja.evaluation.predicted(logits_fn(x))

    def one(z: Array) -> dict[str, Array]:
        # Logits that are not finite predict no class, and keep none.
        there = ja.evaluation.predicted(logits_fn(z))
        return {
            "perturbed": z,
            "maps": attribute(logits_fn, z, label),
            "label_kept": (there == clean_label) & (there >= 0),
            "distance": ball.norm(z - x),
        }

    # Map points one after the other: as a batch, the networks' inner values fit no cache, and attacks took a tenth
    # (4 samples of MNIST at a time) to a third longer (20).
    return jax.lax.map(one, points)


def _bound_row(bound: ja.bounds.DeviationBound) -> dict[str, Array]:
    return {
        "euclidean": bound.euclidean,
        "euclidean_attained": bound.euclidean_attained,
        "cosine": bound.cosine,
        "degrees": bound.degrees,
        "vacuous": bound.vacuous,
        "attribution_norm": bound.attribution_norm,
        "confidence": bound.confidence,
        "active": bound.active,
    }


def _attack(attribute, ball, logits_fn, x, label, key, config: Config) -> Array:
    """Compute the perturbed inputs of the attacks that have random starts, (attacks, *shape)."""
    assert config.top_k is not None  # resolved
    assert config.top_k_map is not None
    top_k = ja.attacks.top_k(config.top_k, config.top_k_map)

    def explanation(climbs_ranks, key):
        # Run one attack with two dissimilarities, not two attacks: its loop is compiled once, in half the time.
        dissimilarity = _either(climbs_ranks, top_k, ja.attacks.euclidean())
        attack = ja.attacks.ifia(ball, attribute, dissimilarity, num_steps=config.ifia_steps, kinks=config.kinks)
        return attack(logits_fn, x, label, key).x

    prediction = ja.attacks.restarts(ja.attacks.pgd(ball, num_steps=config.pgd_steps), config.restarts)
    key_prediction, key_explanation = jax.random.split(key)
    # Both dissimilarities climb from the same random starts.
    counts = [int(config.ifia_restarts or 0), int(config.ascent_restarts or 0)]
    starts = jax.random.split(key_explanation, max(counts))
    which = jnp.array([True] * counts[0] + [False] * counts[1])
    climbed = jax.vmap(explanation)(which, jnp.concatenate([starts[:count] for count in counts]))
    return jnp.concatenate([prediction(logits_fn, x, label, key_prediction).x, climbed])


def _either(condition: Array, first: ja.attacks.Dissimilarity, second: ja.attacks.Dissimilarity):
    """Select the first dissimilarity where a traced condition holds, the second elsewhere."""

    def compare(reference):
        a, b = first.compare(reference), second.compare(reference)
        return ja.attacks.Compared(
            score=lambda other: jnp.where(condition, a.score(other), b.score(other)),
            measure=lambda other: jnp.where(condition, a.measure(other), b.measure(other)),
        )

    return ja.attacks.Dissimilarity(f"{first.name} or {second.name}", compare)
