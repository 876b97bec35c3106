"""Which output of a classifier is explained: the logit by default, or a wrapper from here.

A wrapper maps a logits function to another function ``(*shape) -> (classes,)``, so that it goes wherever logits do:

    saliency()(outputs.probability(logits_fn), x, label)

An attack or a label constraint needs the logits themselves while the attribution explains something else;
:func:`explaining` puts the wrapper inside of the attribution:

    ifia(ball, outputs.explaining(saliency(), outputs.margin))(logits_fn, x, label, key)

Bounds scale with the explained output. Probabilities saturate, which changes Jacobian and norm alike.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array
from jax.tree_util import Partial

from jaxattr.gradient_attribution import GradientAttribution
from jaxattr.types import Attribution, LogitsFn

Output = Callable[[LogitsFn], LogitsFn]


def _wrapper(transform: Callable[[Array], Array]) -> Output:
    def evaluate(logits_fn: LogitsFn, x: Array) -> Array:
        return transform(logits_fn(x))

    @functools.wraps(transform)
    def wrap(logits_fn: LogitsFn) -> LogitsFn:
        # A Partial carries its weights as a pytree, and stays one; a plain function stays a plain function.
        if isinstance(logits_fn, Partial):
            return Partial(evaluate, logits_fn)
        return functools.partial(evaluate, logits_fn)

    return wrap


@_wrapper
def logit(logits: Array) -> Array:
    """The logits as they are, ``f_y(x)``."""
    return logits


@_wrapper
def probability(logits: Array) -> Array:
    """``softmax(f(x))_y``."""
    return jax.nn.softmax(logits)


@_wrapper
def log_probability(logits: Array) -> Array:
    """``log softmax(f(x))_y``."""
    return jax.nn.log_softmax(logits)


@_wrapper
def loss(logits: Array) -> Array:
    """Cross-entropy of class y, ``-log softmax(f(x))_y``. The predicted class has the SMALLEST entry."""
    return -jax.nn.log_softmax(logits)


@_wrapper
def margin(logits: Array) -> Array:
    """``f_y(x) - max_{j != y} f_j(x)``, positive for the predicted class only."""
    others = jnp.where(jnp.eye(logits.size, dtype=bool), -jnp.inf, logits)
    return logits - jnp.max(others, axis=1)


REGISTRY: dict[str, Output] = {
    "logit": logit,
    "probability": probability,
    "log_probability": log_probability,
    "loss": loss,
    "margin": margin,
}


def explaining(attribute: Attribution, output: Output) -> Attribution:
    """The attribution of another output than the logit.

    Args:
      attribute: ``(logits_fn, x, label) -> map``.
      output: one of this module's wrappers, or another function from logits function to logits function.

    Returns:
      ``attribute'(logits_fn, x, label) = attribute(output(logits_fn), x, label)``, of the same kind, so that the
      shortcuts for gradient attributions keep working.

    Example:
      >>> import jax.numpy as jnp
      >>> import jaxattr as ja
      >>> logits_fn = lambda x: jnp.stack([2 * x[0], 0 * x[0]])
      >>> explained = ja.outputs.explaining(ja.attributions.saliency(), ja.outputs.probability)
      >>> explained(logits_fn, jnp.array([0.0]), 0).tolist()  # 2 p (1 - p)
      [0.5]
    """
    if not callable(output):
        raise TypeError(f"`output` must be a wrapper such as jaxattr.outputs.probability, got {output!r}.")
    if isinstance(attribute, GradientAttribution):
        field = attribute.field
        return GradientAttribution(
            attribute.name,
            lambda logits_fn, x, label: field(output(logits_fn), x, label),
            baseline=attribute.baseline,
            complete=False,
        )
    return lambda logits_fn, x, label: attribute(output(logits_fn), x, label)
