"""Define attributions, and the form of many that makes their Jacobians cheap.

An attribution is a function ``attribute(logits_fn, x, label) -> map`` with a name. Saliency, input x gradient and
integrated gradients are of the form

    g(x) = m(x) * F(x),        F(x) = grad phi(x),        m(x) = 1  or  x - baseline,

with a *gradient field* F (phi is the logit, or an average of logits). The Jacobian of a gradient field is a Hessian,
hence symmetric, so that products with J and with its transpose are both forward over reverse:

    J v   = m * (H v) + m' * F * v,        J^T u = H (m * u) + m' * F * u.

An average of fields, over noise at the input, is a field again. An average of maps ``(x - baseline) * F`` is not of
the form, since the noise moves both factors: it is an attribution without a field, as any other function of the same
arguments. The library then falls back on ``jvp`` and ``vjp``.
"""

from collections.abc import Callable
from typing import Any, Self

import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float

from jaxattr import _checks, _values
from jaxattr._frozen import Is
from jaxattr.types import AttributionFn, LogitsFn


class Attribution(_values.Value):
    """An attribution ``attribute(logits_fn, x, label) -> map``, given by a function or by a gradient field.

    Args:
      name: of the method, for tables and messages.
      function: ``(logits_fn, x, label) -> map``, shaped like x. Either this or ``field``.
      field: ``(logits_fn, x, label) -> F(x)``, the gradient of some scalar function of x; the map is ``m(x) * F(x)``.
      baseline: of an attribution with a field, ``m(x) = x - baseline``, and ``None`` for ``m(x) = 1``; otherwise the
        input of which a complete map explains the difference. A number or an array that broadcasts to x's shape.
      complete: whether the map sums to ``f(x) - f(baseline)``, up to quadrature.
      output: from logits function to the function that is explained; ``None`` for the logits themselves. ``field`` and
        ``function`` have it applied already: checks of the explained function read ``output``.
      gradients: gradients of the network for one map; ``None`` where the number is not known.

    Attributes:
      name, function, field, baseline, complete, output, gradients: as given.
      spec: how it was built, where a constructor of this library has built it.

    Raises:
      TypeError: if neither or both of ``function`` and ``field`` are given, or one is no function.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> import jaxattr as ja
      >>> def squared(logits_fn, x, label):
      ...     return jax.grad(lambda z: logits_fn(z)[label])(x) ** 2
      >>> attribute = ja.Attribution("squared_gradient", squared, gradients=1)
      >>> attribute(lambda x: jnp.stack([x @ x, 0.0]), jnp.array([1.0, 2.0]), 0).tolist()
      [4.0, 16.0]
    """

    def __init__(
        self,
        name: str,
        function: AttributionFn | None = None,
        *,
        field: AttributionFn | None = None,
        baseline: Any = None,
        complete: bool = False,
        output: Callable[[LogitsFn], LogitsFn] | None = None,
        gradients: int | None = None,
    ):
        if (function is None) == (field is None):
            raise TypeError(
                f"`Attribution({name!r}, ...)` takes one of `function` and `field`, got"
                f" {'neither' if function is None else 'both'}."
            )
        for argument, value in {"function": function, "field": field}.items():
            if value is not None and not callable(value):
                raise TypeError(f"`{argument}` must be a function `(logits_fn, x, label) -> map`, got {value!r}.")
        self.name, self.function, self.field = name, function, field
        self.baseline, self.complete = baseline, complete
        self.output, self.gradients = output, gradients

    def __repr__(self):
        return f"{type(self).__name__}({self.name!r})" if self.spec is None else str(self.spec)

    @property
    def symmetric(self) -> bool:
        """Return whether J is known to be symmetric: where the map is a field, and nothing multiplies it."""
        return self.field is not None and self.baseline is None

    def multiplier(self, x: Float[Array, "*shape"]) -> Float[Array, "*shape"] | None:
        """Return ``x - baseline``, or ``None`` where nothing multiplies the field."""
        return None if self.baseline is None else x - broadcast_baseline(self.baseline, x)

    def replace(self, **changes: Any) -> Self:
        """Return the same attribution with other values of some arguments, whatever else it knows.

        Raises:
          TypeError: if an argument does not exist.

        Example:
          >>> import jaxattr as ja
          >>> ja.attributions.saliency().replace(name="mine").gradients
          1
        """
        unknown = [name for name in changes if name.startswith("_") or name == "spec" or name not in vars(self)]
        if unknown:
            raise TypeError(f"{self!r} has no argument {', '.join(f'`{name}`' for name in unknown)}.")
        return _values.copied(self, **changes)

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
        if self.function is not None:
            return _checks.attribution_map(self.function(logits_fn, x, label), x)
        assert self.field is not None
        multiplier = self.multiplier(x)
        field = self.field(logits_fn, x, label)
        return field if multiplier is None else multiplier * field


def as_attribution(attribute: Attribution | AttributionFn, name: str | None = None) -> Attribution:
    """Return a function ``(logits_fn, x, label) -> map`` as an attribution, and an attribution as it is.

    Args:
      attribute: the function.
      name: for tables and messages; the function's own by default.

    Raises:
      TypeError: if it cannot be called as an attribution.

    Example:
      >>> import jaxattr as ja
      >>> as_attribution(lambda logits_fn, x, label: x, "the_input")
      Attribution('the_input')
    """
    _checks.attribution(attribute)
    if isinstance(attribute, Attribution):
        return attribute if name is None else attribute.replace(name=name)
    known: str = name or getattr(attribute, "__name__", type(attribute).__name__)
    return _values.interned(("as_attribution", known, Is(attribute)), lambda: Attribution(known, attribute))


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
