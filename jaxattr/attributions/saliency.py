"""Explain predictions by saliency, the gradient of the explained output."""

import jax

from jaxattr import _checks
from jaxattr._spec import described
from jaxattr.attribution import Attribution


def gradient_of_output(logits_fn, x, label):
    """Compute ``grad_x logits_fn(x)[label]``."""
    return jax.grad(lambda z: _checks.of_class(logits_fn(z), label))(x)


@described
def saliency() -> Attribution:
    """Build the saliency map, ``g(x) = grad f_y(x)``, with its sign.

    The absolute values that are often shown are :func:`jaxattr.metrics.pixel_map` of it.

    Returns:
      ``attribute(logits_fn, x, label) -> map``; its Jacobian is the Hessian of ``f_y``.

    References:
      Simonyan et al., 2014; Wang and Kong 2023, Table 1.

    Example:
      >>> import jax.numpy as jnp
      >>> import jaxattr as ja
      >>> logits_fn = lambda x: jnp.stack([jnp.sum(x**2), jnp.sum(x)])
      >>> ja.attributions.saliency()(logits_fn, jnp.array([1.0, 3.0]), 0).tolist()
      [2.0, 6.0]
    """
    return Attribution("saliency", field=gradient_of_output, gradients=1)
