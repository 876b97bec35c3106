"""Explain predictions by input x gradient."""

from jaxattr._spec import described
from jaxattr.attributions.saliency import gradient_of_output
from jaxattr.gradient_attribution import GradientAttribution


@described
def input_x_gradient() -> GradientAttribution:
    """Build input x gradient, ``g(x) = x * grad f_y(x)``, entry by entry.

    Returns:
      ``attribute(logits_fn, x, label) -> map``.

    References:
      Shrikumar et al., 2016; Wang and Kong 2023, Table 1.

    Example:
      >>> import jax.numpy as jnp
      >>> import jaxattr as ja
      >>> logits_fn = lambda x: jnp.stack([jnp.sum(x**2), jnp.sum(x)])
      >>> ja.attributions.input_x_gradient()(logits_fn, jnp.array([1.0, 3.0]), 0).tolist()
      [2.0, 18.0]
    """
    return GradientAttribution("input_x_gradient", gradient_of_output, baseline=0.0)
