"""Measure the completeness gap, the difference between an attribution's sum and the output that it explains."""

from collections.abc import Callable

import jax.numpy as jnp
from jax import Array

from jaxattr import _checks
from jaxattr.attribution import as_attribution, broadcast_baseline
from jaxattr.types import AttributionFn


def completeness_gap(attribute: AttributionFn) -> Callable[..., Array]:
    """Build the completeness gap, ``sum_i g_i(x) - (f_y(x) - f_y(a))``.

    For integrated gradients it is the quadrature error alone: more steps or ``gauss_legendre`` make it smaller. A few
    percent of ``f_y(x) - f_y(a)`` matter little for heat maps, but the label constraint of Wang and Kong 2023
    (Proposition 1) leans on completeness.

    Args:
      attribute: an attribution with a baseline, such as ``integrated_gradients()``.

    Returns:
      ``gap(logits_fn, x, label) -> scalar``.

    Raises:
      ValueError: if the attribution is not complete.
      TypeError: if it is none, such as a constructor without its parentheses.

    Example:
      >>> import jax.numpy as jnp
      >>> import jaxattr as ja
      >>> logits_fn = lambda x: jnp.stack([jnp.sum(x**2), jnp.sum(x)])
      >>> gap = ja.attributions.completeness_gap(ja.attributions.integrated_gradients(num_steps=4, rule="right"))
      >>> float(gap(logits_fn, jnp.array([1.0, 3.0]), 0))
      2.5
    """
    explained = as_attribution(attribute)
    if explained.baseline is None or not explained.complete:
        raise ValueError(
            f"`attribute` must be complete against a baseline, got {attribute!r}. Accepted:"
            " `integrated_gradients(...)`, or another `jaxattr.Attribution` with a `baseline` and `complete=True`."
            " For another output than the logit: `gap(jaxattr.outputs.probability(logits_fn), x, label)`."
        )

    def gap(logits_fn, x, label):
        x = _checks.sample(x)
        label = _checks.label(logits_fn, x, label)
        start = broadcast_baseline(explained.baseline, x)
        return jnp.sum(explained(logits_fn, x, label)) - _checks.of_class(logits_fn(x) - logits_fn(start), label)

    return gap
