"""Compute bounds, attacks and the attacks' effects for one sample, for all radii of one norm.

The programs are pure functions, which ``ja.over_samples`` compiles: per attribution and norm one of the bounds
(:func:`bounds_program`), one of the attacks (:func:`attack_program`) and one of guaranteed ranks
(:func:`rank_program`), shared by all models, whose weights are an argument; and one for the metrics of all of them
(:func:`compare_program`), since a third of the time to compile would otherwise be spent on the same metrics again. The
attribution Jacobian does not depend on the radius: a ``vmap`` over radii shares it.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

import jaxattr as ja
from jaxattr.audit import spec
from jaxattr.audit.spec import SMALLEST, WORST_DIRECTION, Measures, Starts
from jaxattr.method import Calling


def bound_labels(measures: Measures, norm: str, size: int) -> tuple[str, ...]:
    """Return the labels of the bounds that are computed for inputs of ``size`` features: main ones first."""
    calls = spec.bounds(measures, norm)
    labels = [
        label for label, call in calls.items() if size <= measures.max_dense_features or call.name not in spec.DENSE
    ]
    main = spec.main_bounds(measures, labels)
    merged = (SMALLEST,) if len(main) > 1 else ()
    return (*main, *merged, *(label for label in labels if label not in main))


def main_label(measures: Measures, labels: Iterable[str]) -> str:
    """Return the label of the bound that counts in the tables: the smallest one of the main bounds."""
    labels = tuple(labels)
    return SMALLEST if SMALLEST in labels else spec.main_bounds(measures, labels)[0]


def attack_labels(measures: Measures, points: int) -> list[tuple[str, int]]:
    """List (attack, restart) along an axis of ``points``; the last ones are the points that bounds name."""
    attacks = [(label, i) for label, starts in spec.attacks(measures).items() for i in range(starts.count)]
    return attacks + [(WORST_DIRECTION, i) for i in range(points - len(attacks))]


def bounds_program(label: str, norm: str, epsilons: tuple[float, ...], measures: Measures) -> Callable[..., Any]:
    """Build ``program(logits_fn, x, label, key) -> dict`` for :func:`jaxattr.over_samples`.

    Leaves have a leading axis of radii, except ``before`` and those under ``sample``; those under ``points`` have a
    second one, of the points that the bounds themselves name.
    """
    attribute = spec.attribution(measures, label)
    make_ball = ja.balls.BALLS[norm]
    kinks = measures.kinks

    def program(logits_fn, x, label, key):
        clean = attribute(logits_fn, x, label)
        constraint = ja.bounds.label_constraint(logits_fn, x, label)
        names = bound_labels(measures, norm, x.size)
        dense = norm == "linf" and x.size <= measures.max_dense_features
        # All bounds share one matrix, since they hold for the linear model alone.
        bounded = _linear_model(attribute, logits_fn, x, label, kinks) if dense else attribute

        def at_radius(epsilon):
            ball = make_ball(epsilon)
            bounds = _bounds(names, norm, bounded, ball, (logits_fn, x, label, key), dense, measures)
            main = bounds[main_label(measures, names)]
            corrected = ja.bounds.corrected(lambda *_: main, attribute, kinks=kinks)(logits_fn, x, label, key)
            step = epsilon * main.direction
            # The smallest of several bounds names a point of one of them.
            single = [bound for name, bound in bounds.items() if name != SMALLEST]
            # Take the furthest direction that is allowed on both sides, and both of its ends.
            two_sided = [bound for bound in single if bound.two_sided]
            ends = []
            if two_sided:
                far = jnp.argmax(jnp.stack([bound.euclidean_attained for bound in two_sided]))
                best = epsilon * jnp.stack([bound.direction for bound in two_sided])[far]
                ends = [x + best, x - best]
            within = [x + epsilon * bound.direction for bound in single if not bound.two_sided]
            points = jax.vmap(lambda z: ball.project_input(x, z))(jnp.stack([*ends, *within]))
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


def attack_program(label: str, norm: str, epsilons: tuple[float, ...], measures: Measures) -> Callable[..., Any]:
    """Build ``program(logits_fn, x, label, key) -> dict`` of the attacks, with leaves (radii, attacks, ...)."""
    attribute = spec.attribution(measures, label)
    make_ball = ja.balls.BALLS[norm]

    def program(logits_fn, x, label, key):
        def at_radius(epsilon):
            ball = make_ball(epsilon)
            attacked = _attack(attribute, ball, (logits_fn, x, label, key), measures)
            return _at(attacked, attribute, ball, logits_fn, x, label)

        return jax.vmap(at_radius)(jnp.asarray(epsilons, x.dtype))

    return program


def rank_program(label: str, norm: str, epsilons: tuple[float, ...], measures: Measures) -> Callable[..., Any]:
    """Build ``program(logits_fn, x, label, key) -> dict`` of guaranteed ranks, per radius.

    Ranks are those of features, which for images of one channel are the pixels; within the box for l-infinity.
    """
    attribute = spec.attribution(measures, label)
    make_ball = ja.balls.BALLS[norm]

    def program(logits_fn, x, label, key):
        linear = _linear_model(attribute, logits_fn, x, label, measures.kinks)

        def at_radius(epsilon):
            guarantee = ja.bounds.rank_guarantee(
                linear,
                make_ball(epsilon),
                k=int(measures.top_k or 1),
                within_box=norm == "linf",
                kinks=measures.kinks,
            )(logits_fn, x, label, key)
            return {
                "kendall_guaranteed": guarantee.kendall_tau,
                "top_k_guaranteed": guarantee.top_k_intersection,
            }

        return jax.lax.map(at_radius, jnp.asarray(epsilons, x.dtype))

    return program


def compare_program(measures: Measures) -> Callable[..., dict[str, Array]]:
    """Build ``compare(maps) -> dict`` for :func:`jaxattr.map_samples`: all metrics of all maps of one sample.

    ``maps`` has the clean attribution first; the values are of the others, in their order.
    """
    chosen = {label: call.build() for label, call in spec.metrics(measures).items()}
    always = {
        "euclidean": ja.metrics.euclidean,
        "cosine": ja.metrics.cosine_distance,
        "degrees": ja.metrics.degrees,
    }

    def compare(maps):
        def one(other):
            return {label: metric(maps[0], other) for label, metric in {**always, **chosen}.items()}

        return jax.vmap(one)(maps[1:])

    return compare


def _linear_model(attribute, logits_fn, x, label, kinks: Any) -> Callable[..., Array]:
    """Build the attribution ``g(x) + J (z - x)`` with J as a matrix, for which every bound here is exact."""
    jacobian = ja.attribution_jacobian(attribute, logits_fn, x, label, kinks=kinks)
    matrix = jacobian.dense(32)

    def linear(_, z, __):
        return jacobian.value + (matrix @ (z - x).ravel()).reshape(x.shape)

    return linear


def _bounds(
    labels: tuple[str, ...], norm: str, attribute, ball, arguments: tuple[Any, ...], dense: bool, measures: Measures
) -> dict[str, ja.bounds.DeviationBound]:
    """Compute the bounds of one sample, by label."""
    calls = spec.bounds(measures, norm)
    defaults: dict[str, Any] = {"kinks": measures.kinks}
    # The products' certificate takes all steps: one that stopped within a percent is too coarse for gaps of a table.
    relaxed: dict[str, Any] = {"method": "dense"} if dense else {"method": "products", "certificate_tolerance": 0.0}
    results: dict[str, ja.bounds.DeviationBound] = {}
    for label in labels:
        if label == SMALLEST:
            # Pass the results at hand, not functions that would compute them again.
            given = [lambda *_, result=results[each]: result for each in spec.main_bounds(measures, results)]
            bound = ja.bounds.smallest(*given)
        else:
            call = calls[label]
            options = {**defaults, **relaxed} if call.name == "semidefinite" else defaults
            bound = with_defaults(call, options).build(ball=ball, attribute=attribute)
        results[label] = Calling(bound).call(bound, *arguments)
    return results


def with_defaults(call: Any, options: Mapping[str, Any]) -> Any:
    """Return a call with other defaults of options that it has and that were not given."""
    fitting = {name: value for name, value in options.items() if call.accepts(name)}
    return call.replace({**fitting, **call.arguments})


def _at(points: Array, attribute, ball, logits_fn, x, label) -> dict[str, Array]:
    """Compute the maps, labels and distances of perturbed inputs."""
    clean_label = ja.accuracy.predicted(logits_fn(x))

    def one(z: Array) -> dict[str, Array]:
        # Logits that are not finite predict no class, and keep none.
        there = ja.accuracy.predicted(logits_fn(z))
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


def _attack(attribute, ball, arguments: tuple[Any, ...], measures: Measures) -> Array:
    """Compute the perturbed inputs of the attacks, (attacks, *shape), in the order of :func:`attack_labels`."""
    logits_fn, x, label, key = arguments
    attacks = {
        name: Starts(with_defaults(starts.call, {"kinks": measures.kinks}), starts.count)
        for name, starts in spec.attacks(measures).items()
    }
    key_prediction, key_explanation = jax.random.split(key)
    found: dict[str, Array] = {}
    for group in _groups(attacks):
        first = attacks[group[0]].call
        if not first.accepts("attribute"):
            for name in group:
                attack = ja.attacks.restarts(attacks[name].call.build(ball=ball), attacks[name].count)
                found[name] = attack(logits_fn, x, label, key_prediction).x
            continue
        # All attacks on explanations begin at the same random starts.
        counts = [attacks[name].count for name in group]
        starts = jax.random.split(key_explanation, max(counts))
        which = jnp.concatenate([jnp.full(count, i) for i, count in enumerate(counts)])

        def explanation(index, start, first=first, group=group):
            options = {}
            if len(group) > 1:
                each = [attacks[name].call.arguments["dissimilarity"].build() for name in group]
                options["dissimilarity"] = _one_of(index, each)
            attack = first.replace({**first.arguments, **options}).build(ball=ball, attribute=attribute)
            return Calling(attack).call(attack, logits_fn, x, label, start).x

        moved = jax.vmap(explanation)(which, jnp.concatenate([starts[:count] for count in counts]))
        ends = [sum(counts[:i]) for i in range(1, len(counts))]
        found |= dict(zip(group, jnp.split(moved, ends), strict=True))
    return jnp.concatenate([found[name] for name in attacks])


def _groups(attacks: Mapping[str, Starts]) -> list[tuple[str, ...]]:
    """Group attacks that differ in their dissimilarity alone: one loop with several is compiled in half the time."""
    groups: dict[tuple[bool, str], list[str]] = {}
    for name, (call, _) in attacks.items():
        rest = {option: value for option, value in call.arguments.items() if option != "dissimilarity"}
        # An attack that names no dissimilarity is alone. A label may read as another attack's text does.
        alone = len(rest) == len(call.arguments)
        groups.setdefault((alone, name if alone else str(call.replace(rest))), []).append(name)
    return [tuple(names) for names in groups.values()]


def _one_of(index: Array, each: list[ja.attacks.Dissimilarity]) -> ja.attacks.Dissimilarity:
    """Select one of several dissimilarities by a traced index.

    Whether it is a distance would have to be known without the index: none counts as one, and an iterate without its
    label goes back instead of to the opposite point.
    """

    def compare(reference):
        compared = [one.compare(reference) for one in each]

        def select(name: str, other: Array) -> Array:
            values = [getattr(one, name)(other) for one in compared]
            chosen = values[-1]
            for i, value in enumerate(values[:-1]):
                chosen = jnp.where(index == i, value, chosen)
            return chosen

        return ja.attacks.Compared(lambda other: select("surrogate", other), lambda other: select("measure", other))

    return ja.attacks.Dissimilarity(" or ".join(one.name for one in each), compare)
