"""Explain predictions by input x gradient."""

from jaxattr._spec import described
from jaxattr.attribution import Attribution
from jaxattr.attributions.saliency import gradient_of_output


@described
def input_x_gradient() -> Attribution:
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
    return Attribution("input_x_gradient", field=gradient_of_output, baseline=0.0, gradients=1)
