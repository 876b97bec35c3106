"""Define the form that gradient attributions share, and that makes their Jacobians cheap.

Saliency, input x gradient, integrated gradients and their averages over noise are all

    g(x) = m(x) * F(x),        F(x) = grad phi(x),        m(x) = 1  or  x - baseline,

with a *gradient field* F (phi is the logit, or an average of logits). The Jacobian of a gradient field is a Hessian,
hence symmetric, so that products with J and with its transpose are both forward over reverse:

    J v   = m * (H v) + m' * F * v,        J^T u = H (m * u) + m' * F * u.

An attribution that is not of this shape is any other function; the library then falls back on ``jvp`` and ``vjp``.
"""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float

from jaxattr import _checks
from jaxattr._spec import Spec
from jaxattr.types import LogitsFn


class GradientAttribution:
    """An attribution ``attribute(logits_fn, x, label)`` of the form ``m(x) * F(x)``.

    Args:
      name: of the method, for tables and messages.
      field: ``(logits_fn, x, label) -> F(x)``, the gradient of some scalar function of x.
      baseline: ``m(x) = x - baseline``; ``None`` for ``m(x) = 1``. A number or an array that
        broadcasts to x's shape.
      complete: whether the map sums to ``f(x) - f(baseline)``, up to quadrature.
      output: from logits function to the function that is explained; ``None`` for the logits themselves. ``field`` has
        it applied already: checks of the explained function read ``output``.

    Attributes:
      spec: how it was built, where a constructor of this library has built it.
    """

    spec: Spec | None = None

    def __init__(
        self,
        name: str,
        field: Callable[[LogitsFn, Array, Any], Array],
        baseline: Any = None,
        complete: bool = False,
        output: Callable[[LogitsFn], LogitsFn] | None = None,
    ):
        self.name, self.field, self.baseline, self.complete = name, field, baseline, complete
        self.output = output

    def __repr__(self):
        return f"{type(self).__name__}({self.name!r})" if self.spec is None else str(self.spec)

    @property
    def symmetric(self) -> bool:
        """Return whether J is symmetric: only where nothing multiplies the field."""
        return self.baseline is None

    def multiplier(self, x: Float[Array, "*shape"]) -> Float[Array, "*shape"] | None:
        """Return ``x - baseline``, or ``None`` where nothing multiplies the field."""
        return None if self.baseline is None else x - broadcast_baseline(self.baseline, x)

    def __call__(
        self, logits_fn: LogitsFn, x: Float[Array, "*shape"], label: Any, key: Array | None = None
    ) -> Float[Array, "*shape"]:
        """Compute the attribution of one sample.

        Args:
          logits_fn: classifier of one input.
          x: the sample.
          label: class whose output is explained.
          key: ignored, so that every method is called alike: an attribution that averages over noise has fixed it at
            construction.

        Raises:
          ValueError: if the label is out of range, or the shapes of model, input or baseline do not fit.
          TypeError: if the input is not floating-point or the label not an integer.
        """
        del key
        x = _checks.sample(x)
        label = _checks.label(logits_fn, x, label)
        multiplier = self.multiplier(x)
        field = self.field(logits_fn, x, label)
        return field if multiplier is None else multiplier * field


def broadcast_baseline(baseline: Any, x: Array) -> Array:
    """Return the baseline as an array shaped like ``x``: a number, one value a channel, or an input of its own.

    Raises:
      ValueError: if it does not broadcast to the input's shape.
      TypeError: if it holds no real numbers.

    Example:
      >>> import jax.numpy as jnp
      >>> broadcast_baseline([0.1, 0.2, 0.3], jnp.zeros((8, 8, 3))).shape
      (8, 8, 3)
    """
    values = baseline if hasattr(baseline, "dtype") else np.asarray(baseline)
    if not jnp.issubdtype(values.dtype, jnp.number) or jnp.issubdtype(values.dtype, jnp.complexfloating):
        raise TypeError(f"`baseline` must hold real numbers, got {baseline!r}.")
    shape = tuple(values.shape)
    fits = len(shape) <= x.ndim and all(a in (1, b) for a, b in zip(shape[::-1], x.shape[::-1], strict=False))
    if not fits:
        raise ValueError(
            f"`baseline` must be a number or an array that broadcasts to the input's shape {x.shape}, such as one value"
            f" a channel, {x.shape[-1:]}; got shape {shape}."
        )
    return jnp.broadcast_to(jnp.asarray(values, x.dtype), x.shape)
