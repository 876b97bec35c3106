"""Measure how different two attributions are, for attacks that climb the measure and compare iterates by it."""

import functools
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxattr import _checks, _values, metrics
from jaxattr._spec import described

Map = Literal["pixel", "feature"]
RANK_MEASURES = ("intersection", "kendall", "spearman")


class Compared(NamedTuple):
    """A dissimilarity to one reference map: two functions of the other map, which grow as it moves away.

    Attributes:
      surrogate: the differentiable function that is climbed.
      measure: the function that compares iterates; it need not be differentiable.
    """

    surrogate: Callable[[Array], Array]
    measure: Callable[[Array], Array]


class Dissimilarity(_values.Value):
    """A named dissimilarity; ``compare(reference) -> Compared``.

    Args:
      name: for tables and messages.
      compare: ``reference -> Compared``.
      even: whether it is a distance, so that moving the map one way counts as much as moving it the other way.

    Attributes:
      name, compare, even: as given.
      spec: how it was built, where a constructor of this library has built it.
    """

    def __init__(self, name: str, compare: Callable[[Array], Compared], even: bool = False):
        self.name, self.compare, self.even = name, compare, even

    def __repr__(self) -> str:
        return f"<dissimilarity {self.name}>" if self.spec is None else str(self.spec)


def _as_map(kind: Map, attribution: Array) -> Array:
    """Return a non-negative map of mean 1, per pixel or per feature."""
    return metrics.pixel_map(attribution if kind == "pixel" else attribution.ravel())


@described
def top_k(k: int, map: Map = "pixel", measure: str = "intersection") -> Dissimilarity:
    """Build IFIA's top-k dissimilarity (Ghorbani et al. 2019; Wang and Kong 2023, Section 5).

    It climbs ``- sum_{p in B} S_p(x')``, with B the k largest entries of the original map and S the map of absolute
    values scaled to mean 1; iterates are compared by one minus a rank similarity.

    Args:
      k: entries in B; the paper takes 100 on MNIST and 1,000 of 3,072 features on CIFAR-10.
      map: ``pixel`` sums absolute values over channels (released code), ``feature`` does not (which the paper's
        k = 1,000 on CIFAR-10 implies).
      measure: ``intersection`` of the top-k sets, ``kendall`` or ``spearman`` of the maps (released code: Kendall).

    Raises:
      ValueError: if an option is unknown, or on use if k exceeds the number of entries.

    Example:
      >>> import jax.numpy as jnp
      >>> import jaxattr as ja
      >>> compared = ja.attacks.dissimilarities.top_k(1).compare(jnp.array([1.0, 0.0, 0.5]))
      >>> float(compared.measure(jnp.array([0.1, 0.2, 0.5])))
      1.0
    """
    _checks.positive_int("k", k)
    _checks.choice("map", map, ("pixel", "feature"))
    _checks.choice("measure", measure, RANK_MEASURES)

    def compare(reference):
        original = _as_map(map, reference)
        top = metrics.top_k_indices(original, k)

        def similarity(values):
            if measure == "intersection":
                return metrics.top_k_intersection(original, values, k)
            return (metrics.kendall_tau if measure == "kendall" else metrics.spearman)(original, values)

        return Compared(
            surrogate=lambda other: -jnp.sum(_as_map(map, other).ravel()[top]),
            measure=lambda other: 1 - similarity(_as_map(map, other)),
        )

    return Dissimilarity("top_k", compare)


@described
def mass_center() -> Dissimilarity:
    """Build IFIA's mass-center dissimilarity, the distance that the center of an image's pixel map has moved.

    It climbs ``||c(x') - trunc(c(x))||^2``. As in the released code the original center is truncated to whole pixels
    inside of the surrogate, which keeps the first gradient from being zero; the measure is not truncated.
    """

    def compare(reference):
        origin = jnp.trunc(metrics.mass_center(reference))
        return Compared(
            surrogate=lambda other: jnp.sum((metrics.mass_center(other) - origin) ** 2),
            measure=functools.partial(metrics.mass_center_shift, reference),
        )

    return Dissimilarity("mass_center", compare, even=True)


@described
def targeted(weights: Any) -> Dissimilarity:
    """Build IFIA's targeted dissimilarity, the mass of the pixel map under given weights, ``sum_p S_p(x') W_p``.

    Args:
      weights: non-negative, shaped like the pixel map.

    Raises:
      ValueError: if a weight is negative, or on use if the shape is not the pixel map's.
    """
    if _checks.is_concrete(weights) and np.any(np.asarray(weights) < 0):
        raise ValueError("`weights` must not be negative.")

    def compare(reference):
        expected = metrics.pixel_map(reference).shape
        if np.shape(weights) != expected:
            raise ValueError(f"`weights` must be shaped like the pixel map {expected}, got shape {np.shape(weights)}.")

        def mass(other):
            return jnp.sum(metrics.pixel_map(other) * jnp.asarray(weights, other.dtype))

        return Compared(mass, mass)

    return Dissimilarity("targeted", compare)


@described
def euclidean() -> Dissimilarity:
    """Build ``||g(x') - g(x)||_2`` of signed feature maps, the deviation in the bounds: their strongest attack."""

    def compare(reference):
        # Climb the square: it has the same ascent direction, and a gradient where the norm has a kink.
        return Compared(
            surrogate=lambda other: jnp.sum((other - reference) ** 2) / 2,
            measure=functools.partial(metrics.euclidean, reference),
        )

    return Dissimilarity("euclidean", compare, even=True)


@described
def cosine() -> Dissimilarity:
    """Build ``1 - cos(g(x), g(x'))`` of signed feature maps."""

    def compare(reference):
        distance = functools.partial(metrics.cosine_distance, reference)
        return Compared(distance, distance)

    return Dissimilarity("cosine", compare, even=True)


@described
def pearson() -> Dissimilarity:
    """Build ``1 - (r + 1) / 2``, r Pearson's correlation of signed feature maps: 0 where they agree, 1 where opposite.

    Attributional adversarial training (Ivankay et al. 2020) climbs and penalizes it, as Wang and Kong 2023, Section
    2.2, state. NaN where a map is constant.

    Example:
      >>> import jax.numpy as jnp
      >>> import jaxattr as ja
      >>> compared = ja.attacks.dissimilarities.pearson().compare(jnp.array([1.0, 2.0, 3.0]))
      >>> round(float(compared.measure(jnp.array([5.0, 4.0, 3.0]))), 6)
      1.0
    """

    def compare(reference):
        def distance(other):
            return metrics.cosine_distance(reference - jnp.mean(reference), other - jnp.mean(other)) / 2

        return Compared(distance, distance)

    return Dissimilarity("pearson", compare, even=True)


DISSIMILARITIES = {
    "top_k": top_k,
    "mass_center": mass_center,
    "targeted": targeted,
    "euclidean": euclidean,
    "cosine": cosine,
    "pearson": pearson,
}
