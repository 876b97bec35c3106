"""Measure by rank correlations whether the order of features survives."""

import jax.numpy as jnp
from jax import lax
from jax.scipy.stats import rankdata
from jaxtyping import Array, Float

from jaxattr.metrics import _check, _pairs

# Comparing all pairs and sorting take the same time at about 3,000 features, on two cores of a server CPU.
_COMPARE_ALL_UP_TO = 4096


def kendall_tau(
    a: Float[Array, "*shape"], b: Float[Array, "*shape"], *, nonzero_only: bool = False, magnitudes: bool = False
) -> Float[Array, ""]:
    """Compute Kendall's tau-b of the features of two maps.

    ``tau_b = (concordant - discordant) / sqrt((n0 - n1) (n0 - n2))`` over the ``n0 = n (n - 1) /
    2`` pairs of features, of which n1 are tied in a and n2 in b (Kendall 1945); equal to
    ``scipy.stats.kendalltau``. The maps are compared as they are: the papers on attribution
    robustness report ``kendall_tau(pixel_map(a), pixel_map(b))``.

    Ties cap tau-b. If 634 of the 784 attributions of an MNIST digit are exactly 0, as with a zero
    baseline, and an arbitrarily small perturbation makes all of them differ, tau-b is at most
    0.588. ``nonzero_only`` leaves those features out.

    The counts are exact integers. Up to 4,096 features all pairs are compared, beyond that features
    are sorted first; either way memory grows like n. It is piecewise constant in both maps, so its
    gradient is zero.

    Args:
      a: map of the original sample.
      b: map of the perturbed sample.
      nonzero_only: whether to use only the features with ``a != 0``.
      magnitudes: whether to compare the maps' absolute values, the importance of features.

    Returns:
      A number between -1 and 1; NaN if a map is constant (on the features used) or contains NaN, or is so small that
      parts of it were flushed to zero (below 1.2e-35 times the root of the number of features in float32).

    Raises:
      TypeError: if a dtype is not a floating one.
      ValueError: if the shapes differ, or the maps are empty or have more than 2^20 features.

    Example:
      >>> import jax.numpy as jnp
      >>> tau = kendall_tau(jnp.array([1.0, 2.0, 3.0, 4.0]), jnp.array([1.0, 3.0, 2.0, 4.0]))
      >>> round(float(tau), 3)
      0.667
    """
    a, b = _check.two_maps(a, b)
    if a.size > _pairs.MAX_FEATURES:
        raise ValueError(
            f"`kendall_tau` counts pairs of at most 2^20 features, got {a.size}; "
            "compare `pixel_map(a)` and `pixel_map(b)`, or a sample of the features."
        )
    if magnitudes:
        a, b = jnp.abs(a), jnp.abs(b)
    dtype = a.dtype
    a, b = lax.stop_gradient(a).ravel(), lax.stop_gradient(b).ravel()
    unordered = jnp.any(jnp.isnan(a) | jnp.isnan(b)) | ~_check.resolved(a) | ~_check.resolved(b)
    if nonzero_only:
        used = a != 0
        a, b = jnp.where(used, a, jnp.nan), jnp.where(used, b, jnp.nan)
    counts = (_pairs.all_pairs if a.size <= _COMPARE_ALL_UP_TO else _pairs.blocked)(a, b)
    untied = jnp.sqrt(counts.untied_a.astype(dtype)) * jnp.sqrt(counts.untied_b.astype(dtype))
    # A constant map gives 0 / 0, the NaN that the result promises; the roots may round tau past 1.
    tau = jnp.clip(counts.score.astype(dtype) / untied, -1, 1)
    return jnp.where(unordered, jnp.nan, tau)


def spearman(a: Float[Array, "*shape"], b: Float[Array, "*shape"], *, magnitudes: bool = False) -> Float[Array, ""]:
    """Compute Spearman's rho, Pearson's correlation of the ranks, where ties share their average rank.

    It is equal to ``scipy.stats.spearmanr``, and piecewise constant in both maps, so its gradient is zero.

    Args:
      a: map of the original sample.
      b: map of the perturbed sample.
      magnitudes: whether to compare the maps' absolute values, the importance of features.

    Returns:
      A number between -1 and 1; NaN if a map is constant or contains NaN, or is so small that parts of it were
      flushed to zero (below 1.2e-35 times the root of the number of features in float32).

    Raises:
      TypeError: if a dtype is not a floating one.
      ValueError: if the shapes differ or the maps are empty.

    Example:
      >>> import jax.numpy as jnp
      >>> rho = spearman(jnp.array([1.0, 2.0, 3.0, 4.0]), jnp.array([1.0, 3.0, 2.0, 4.0]))
      >>> round(float(rho), 3)
      0.8
    """
    a, b = _check.two_maps(a, b)
    if magnitudes:
        a, b = jnp.abs(a), jnp.abs(b)
    dtype = a.dtype
    unordered = jnp.any(jnp.isnan(a) | jnp.isnan(b)) | ~_check.resolved(a) | ~_check.resolved(b)

    def centered_ranks(values):
        # The mean rank is (n + 1) / 2 with or without ties; dividing by n keeps the squares near 1.
        ranks = rankdata(lax.stop_gradient(values).ravel()).astype(dtype)
        return (ranks - (values.size + 1) / 2) / values.size

    a, b = centered_ranks(a), centered_ranks(b)
    norms = jnp.sqrt(jnp.sum(jnp.square(a))) * jnp.sqrt(jnp.sum(jnp.square(b)))
    return jnp.where(unordered, jnp.nan, jnp.clip(jnp.sum(a * b) / norms, -1, 1))
