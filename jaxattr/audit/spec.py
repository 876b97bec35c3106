"""Say what an audit measures: attributions, threat models, bounds, attacks and metrics, each as the text of its call.

A method is given as ``integrated_gradients(num_steps=5)``, and where two share a name, with a label of its own, as
``ascent=restarts(ifia(dissimilarity=euclidean()), 5)``. The label is the name in rows, tables and paths; the canonical
text of the call is what identifies results.
"""

import dataclasses
import hashlib
import json
import math
import re
from collections.abc import Iterable, Mapping
from typing import Any, Literal, NamedTuple

import jax

import jaxattr as ja
from jaxattr.attribution import as_attribution

NUMERICS = 1
"""Version of the computations. Raise it when the same methods would give other numbers than stored rows have.

The change of IFIA that brings it back to the label did not raise it: with and without, what counts are perturbations
that keep the label, and the pages of older results say so.
"""

NORMS = ("l2", "linf")
_LABEL = re.compile(r"\s*([A-Za-z_]\w*)\s*=\s*(.+)", re.DOTALL)
# Bounds that form the whole Jacobian, d x d numbers, and are left out above `max_dense_features`.
DENSE = ("entrywise",)
SMALLEST = "smallest"
"""Label of the smallest one of several main bounds."""
WORST_DIRECTION = "worst_direction"
"""Label of the points that bounds name, as attacks: x + epsilon v and x - epsilon v of the furthest direction, clipped
to the box, and the corners of bounds within the box."""


class Starts(NamedTuple):
    """An attack, and from how many random starts it runs."""

    call: Any
    count: int


@dataclasses.dataclass(frozen=True)
class Measures:
    """What is measured of every sample. Methods are texts such as `integrated_gradients(num_steps=5)`."""

    dataset: str = "digits"
    """Name of the data set whose samples are explained."""
    num_samples: int | None = 100
    """Number of samples of each model, the first that it classifies correctly; None for all."""
    attributions: tuple[str, ...] = ("saliency", "input_x_gradient", "integrated_gradients")
    """Attributions whose deviations are bounded and attacked, such as `integrated_gradients(num_steps=20)`; with a
    label of your own where two have one name: `ig20=integrated_gradients(num_steps=20)`."""
    l2: tuple[float, ...] | None = None
    """Radii in the Euclidean norm, in units of the input in [0, 1]."""
    linf: tuple[float, ...] | None = None
    """Radii in the maximum norm."""
    bounds: tuple[str, ...] = ("singular_value(tolerance=0.0)", "norm_relaxation(tolerance=0.0)", "entrywise")
    """Bounds, each computed for the norms that it is of. A tolerance of 0 takes all steps, for exact gaps."""
    main_bounds: tuple[str, ...] = ("singular_value", "norm_relaxation", "entrywise")
    """Labels of the bounds whose smallest one counts in tables: by default those of Wang and Kong 2023."""
    attacks: tuple[str, ...] = (
        "restarts(pgd, 5)",
        "restarts(ifia(dissimilarity=top_k({k})), 5)",
        "ascent=restarts(ifia(dissimilarity=euclidean()), 5)",
    )
    """Attacks; `restarts(ATTACK, 5)` runs one from five random starts, and `{k}` is the top-k of the data set."""
    metrics: tuple[str, ...] = (
        "kendall=kendall_tau(magnitudes=True)",
        "kendall_nonzero=kendall_tau(magnitudes=True, nonzero_only=True)",
        "spearman(magnitudes=True)",
        "top_k=top_k_intersection({k})",
    )
    """Metrics of the maps before and after an attack, beside Euclidean and cosine distance and degrees."""
    max_dense_features: int = 784
    """Largest number of features for which Jacobians are formed, as Theorem 2 of Wang and Kong 2023 needs."""
    rank_samples: int = 0
    """Number of first samples with guarantees for ranks: a second per radius for 784 features on a core.
    They need the Jacobian as well."""
    top_k: int | None = None
    """Size k of the top-k set of a map, in attacks, metrics and guarantees; default: the data set's."""
    top_k_map: Literal["pixel", "feature"] | None = None
    """Whether the top of a color map counts pixels (sums over channels) or features."""
    kinks: Literal["refuse", "allow"] = "refuse"
    """A network that is not twice differentiable in its input (ReLU, max-pooling) is refused, since no bound of it
    holds. With `allow` it is computed all the same, and tables and page say so."""
    seed: int = 0
    """Seed of the keys of bounds and attacks, one for each sample, and of attributions that draw noise."""
    batch_size: int = 50
    """Number of samples that are computed and stored at a time."""
    pictures: int = 4
    """Number of first samples per model, attribution and norm that are stored for the heat maps."""
    workers: int = 2
    """Number of processes, each with another pair of attribution and norm; one on an accelerator."""
    skip_damaged: bool = False
    """Leave out the samples of files that cannot be read."""


def with_top_k(measures: Any) -> Any:
    """Put the size of the top-k set in the place of ``{k}`` in attacks and metrics."""
    if measures.top_k is None or measures.top_k_map is None:
        raise ValueError("`top_k` and `top_k_map` are not given, and this data set has no default for them.")
    words = f"k={measures.top_k}, map={measures.top_k_map!r}"
    filled = {
        name: tuple(text.replace("{k}", words) for text in getattr(measures, name)) for name in ("attacks", "metrics")
    }
    return dataclasses.replace(measures, **filled)


def norms(measures: Measures) -> dict[str, tuple[float, ...]]:
    """Return the radii of each norm that has any."""
    given = {"l2": measures.l2 or (), "linf": measures.linf or ()}
    return {norm: epsilons for norm, epsilons in given.items() if epsilons}


def attributions(measures: Measures) -> dict[str, Any]:
    """Parse the attributions: their calls by label."""
    return labeled("attributions", ja.attributions.REGISTRY, measures.attributions)


def with_attributions(measures: Any, labels: Iterable[str]) -> Any:
    """Add attributions of these labels, with the defaults of their names, where the audit has none of a label."""
    known = attributions(measures)
    added = tuple(label for label in labels if label not in known)
    return dataclasses.replace(measures, attributions=(*measures.attributions, *added))


def attribution(measures: Measures, label: str) -> Any:
    """Build an attribution by its label; one that draws noise gets its key from the seed.

    Raises:
      ValueError: if there is none of this label, or its options do not fit.
    """
    calls = attributions(measures)
    if label not in calls:
        raise ValueError(f"the attribution is {label!r}; this audit has {', '.join(calls)}.")
    # Samples are numbered from 0, and so are their keys: no sample shares the noise of the map.
    key = jax.random.fold_in(jax.random.key(measures.seed), 2**31 - 1)
    return as_attribution(calls[label].build(key=key), name=label)


def bounds(measures: Measures, norm: str) -> dict[str, Any]:
    """Parse the bounds that are of a norm: their calls by label."""
    found = labeled("bounds", {**ja.bounds.REGISTRY, "smallest": ja.bounds.smallest}, measures.bounds)
    return {label: call for label, call in found.items() if _is_of(call, norm)}


def main_bounds(measures: Measures, labels: Iterable[str]) -> tuple[str, ...]:
    """Return which of some bounds count in the tables: those that are named so, or all where none is."""
    labels = tuple(labels)
    return tuple(label for label in labels if label in measures.main_bounds) or labels


def attacks(measures: Measures) -> dict[str, Starts]:
    """Parse the attacks: their calls by label, without the random starts, which are counted beside them."""
    found = {}
    for label, outer in labeled(
        "attacks", {**ja.attacks.REGISTRY, "restarts": ja.attacks.restarts}, measures.attacks
    ).items():
        repeated = outer.name == "restarts"
        call, count = (outer.arguments[name] for name in ("attack", "num_restarts")) if repeated else (outer, 1)
        found[label] = Starts(call, int(count))
    return found


def metrics(measures: Measures) -> dict[str, Any]:
    """Parse the metrics: their calls by label."""
    return labeled("metrics", ja.metrics.REGISTRY, measures.metrics, bind=True)


def labeled(option: str, registry: Mapping[str, Any], texts: Iterable[str], bind: bool = False) -> dict[str, Any]:
    """Parse methods, and return their calls by label.

    Raises:
      ValueError: if a name or an option is unknown, or two methods have one label.
    """
    found: dict[str, Any] = {}
    for text in texts:
        label, words = split_label(text)
        try:
            call = ja.parse(registry, words, bind=bind)
        except ValueError as error:
            raise ValueError(f"`{option}`: {error}") from error
        if label is None:
            inner = call.arguments["attack"] if call.name == "restarts" else call
            label = inner.name
        if label in found:
            raise ValueError(
                f"`{option}`: two are called {label!r}. Give one another label, such as '{label}_2={words.strip()}'."
            )
        found[label] = call
    return found


def split_label(text: str) -> tuple[str | None, str]:
    """Split ``label=call`` into its label and its call; the label is ``None`` where there is none.

    Example:
      >>> split_label("ig20=integrated_gradients(num_steps=20)"), split_label("saliency")
      (('ig20', 'integrated_gradients(num_steps=20)'), (None, 'saliency'))
    """
    match = _LABEL.fullmatch(text)
    return (match[1], match[2]) if match else (None, text)


def check(measures: Measures, reserved: Iterable[str] = ()) -> None:
    """Check everything that can be checked before computing.

    Args:
      measures: with every default filled in.
      reserved: names of columns, which a metric or an attack cannot have as its label.

    Raises:
      ValueError: if an option is unknown or out of range; the message names it and what is accepted.
    """
    _check_numbers(measures)
    try:
        _check_methods(measures)
    except TypeError as error:
        raise ValueError(str(error)) from error
    for option, labels in {"attacks": attacks(measures), "metrics": metrics(measures)}.items():
        taken = sorted(set(labels) & set(reserved))
        if taken:
            raise ValueError(f"`{option}`: {taken[0]!r} is the name of a column already; give it another label.")


def _check_numbers(measures: Measures) -> None:
    if not norms(measures):
        raise ValueError("there is no radius: give `--l2` or `--linf`.")
    for norm, epsilons in norms(measures).items():
        if not all(0 < epsilon < math.inf for epsilon in epsilons) or len(set(epsilons)) < len(epsilons):
            raise ValueError(f"`{norm}` must be different, positive radii in units of the input, got {epsilons}.")
    least = {"batch_size": 1, "workers": 1, "max_dense_features": 1, "top_k": 1, "num_samples": 1}
    for name, low in {**least, "rank_samples": 0, "pictures": 0}.items():
        value = getattr(measures, name)
        if value is not None and value < low:
            raise ValueError(f"`{name}` must be at least {low}, got {value}.")


def _check_methods(measures: Measures) -> None:
    """Build every method once: unknown names and options that do not fit are refused before anything is computed."""
    registries = {
        "attributions": (attributions(measures), ja.attributions.REGISTRY),
        "attacks": (attacks(measures), ja.attacks.REGISTRY),
    }
    for option, (found, registry) in registries.items():
        if not found:
            raise ValueError(f"`{option}` is empty; accepted are {', '.join(sorted(registry))}.")
    explained = {label: attribution(measures, label) for label in attributions(measures)}
    attribute = next(iter(explained.values()))
    for norm in norms(measures):
        labels = bounds(measures, norm)
        if not labels:
            raise ValueError(f"`bounds` has none for {norm}; accepted are {', '.join(sorted(ja.bounds.REGISTRY))}.")
        if SMALLEST in labels:
            raise ValueError(
                f"`bounds`: {SMALLEST!r} is the label of the smallest main bound; give yours another label."
            )
        for starts in attacks(measures).values():
            starts.call.build(ball=ja.balls.BALLS[norm](0.1), attribute=attribute)
    for label, starts in attacks(measures).items():
        if label == WORST_DIRECTION:
            raise ValueError(
                f"`attacks`: {label!r} is the label of the points that bounds name; give yours another label."
            )
        if starts.count < 1:
            raise ValueError(f"`attacks`: {label} has {starts.count} starts, and one at least is needed.")
    for call in metrics(measures).values():
        call.build()


def identity(measures: Measures, label: str, norm: str) -> dict[str, Any]:
    """Return everything that determines a cell's rows, beside the weights: the values of its hash, as JSON has them.

    Texts are canonical, without options that have their defaults: an option that is added to a method leaves the
    identity of stored results as it is. Metrics are not among them: a metric that is added later is null in older rows.

    Args:
      measures: with every default filled in.
      label: of the attribution.
      norm: ``l2`` or ``linf``.
    """
    # A key that is added here changes the identity of all stored results, unless it is left out at its default.
    found = {
        "numerics": NUMERICS,
        "data": measures.dataset,
        "attribution": str(attributions(measures)[label]),
        "norm": norm,
        "radii": list(norms(measures)[norm]),
        "bounds": {name: str(call) for name, call in bounds(measures, norm).items()},
        "main_bounds": list(main_bounds(measures, bounds(measures, norm))),
        "attacks": {name: f"{starts.count} x {starts.call}" for name, starts in attacks(measures).items()},
        "max_dense_features": measures.max_dense_features,
        "rank_samples": measures.rank_samples,
        "top_k": measures.top_k,
        "seed": measures.seed,
    }
    return json.loads(json.dumps(found))


def identity_hash(values: Mapping[str, Any]) -> str:
    """Hash an identity."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]


def _is_of(call: Any, norm: str) -> bool:
    """Whether a bound is of a norm: its constructor refuses the other norm's ball.

    Raises:
      ValueError: if it is of neither.
    """
    refused = {}
    for each in NORMS:
        try:
            call.build(ball=ja.balls.BALLS[each](0.1), attribute=ja.attributions.saliency())
        except TypeError as error:
            refused[each] = error
    if len(refused) == len(NORMS):
        raise ValueError(f"`bounds`: {call} is of no norm here. {refused[norm]}") from refused[norm]
    return norm not in refused
