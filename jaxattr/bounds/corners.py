"""Sign corners: perturbations of the l-infinity ball that come near its maximum, from below.

``s -> sign(P s)`` never decreases ``s^T P s`` for a positive semidefinite P. The maximum over all 2^d corners is
NP-hard; what the iteration reaches says how loose a bound can at most be.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array


def ascend_signs(product: Callable[[Array], Array], start: Array, num_steps: int) -> Array:
    """``num_steps`` iterations of ``s <- sign(P s)`` from the signs of ``start``.

    A zero entry of ``P s`` keeps its sign, so that the result is a corner and no step decreases the form.

    Args:
      product: ``s -> P s``, for arrays shaped like ``start``.
      start: any array; zeros count as positive.
      num_steps: products.
    """

    def step(_, signs):
        image = product(signs)
        return jnp.where(image == 0, signs, jnp.sign(image))

    return jax.lax.fori_loop(0, num_steps, step, jnp.where(start < 0, -1, 1).astype(start.dtype))
