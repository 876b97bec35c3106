"""Measure how far apart two attributions of one sample are.

Every metric is a pure function of two maps of one sample, `metric(a, b)`, and returns a scalar. For
many samples: `jax.vmap(metric)(maps_a, maps_b)` where all fit into memory at once, and
`jaxattr.map_samples(metric)(maps_a, maps_b)` in batches and on all devices. Maps are compared as
they are given, feature by feature; pass
`pixel_map(g)` or `abs(g)` where a paper compares magnitudes.
"""

from collections.abc import Callable
from functools import partial

from jax import Array

from jaxattr.metrics.distance import cosine_distance as cosine_distance
from jaxattr.metrics.distance import cosine_similarity as cosine_similarity
from jaxattr.metrics.distance import degrees as degrees
from jaxattr.metrics.distance import euclidean as euclidean
from jaxattr.metrics.maps import feature_map as feature_map
from jaxattr.metrics.maps import magnitude as magnitude
from jaxattr.metrics.maps import pixel_map as pixel_map
from jaxattr.metrics.mass_center import mass_center as mass_center
from jaxattr.metrics.mass_center import mass_center_shift as mass_center_shift
from jaxattr.metrics.rank import kendall_tau as kendall_tau
from jaxattr.metrics.rank import spearman as spearman
from jaxattr.metrics.sparsity import gini as gini
from jaxattr.metrics.topk import top_k_indices as top_k_indices
from jaxattr.metrics.topk import top_k_intersection as top_k_intersection

REGISTRY: dict[str, Callable[[Array, Array], Array]] = {
    "euclidean": euclidean,
    "cosine_similarity": cosine_similarity,
    "cosine_distance": cosine_distance,
    "degrees": degrees,
    "kendall_tau": kendall_tau,
    "kendall_tau_nonzero": partial(kendall_tau, nonzero_only=True),
    "spearman": spearman,
    # Take k = 100 of 784, the papers' choice for MNIST; `partial(..., k=...)` sets another.
    "top_k_intersection": partial(top_k_intersection, k=100),
    "mass_center_shift": mass_center_shift,
}
"""Name -> metric of two maps of one sample."""
