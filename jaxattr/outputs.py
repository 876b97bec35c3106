"""Choose the explained output of a classifier: the logit by default, or a wrapper from here.

A wrapper maps a logits function to another function ``(*shape) -> (classes,)``, so that it goes wherever logits do:

    saliency()(outputs.probability(logits_fn), x, label)

An attack or a label constraint needs the logits themselves while the attribution explains something else;
:func:`explaining` puts the wrapper inside of the attribution:

    ifia(ball, outputs.explaining(saliency(), outputs.margin))(logits_fn, x, label, key)

Bounds scale with the explained output. Probabilities saturate, which changes Jacobian and norm alike.
"""

import functools
from collections.abc import Callable

import jax.numpy as jnp
from jax import Array
from jax.tree_util import Partial

from jaxattr import _logits, networks
from jaxattr._activations import sigmoid
from jaxattr._spec import described
from jaxattr.attribution import Attribution, as_attribution
from jaxattr.types import AttributionFn, LogitsFn

Output = Callable[[LogitsFn], LogitsFn]


def _wrapper(transform: Callable[[Array], Array]) -> Output:
    def evaluate(logits_fn: LogitsFn, x: Array) -> Array:
        logits = logits_fn(x)
        if transform is not _identity:
            _logits.require_classes(logits.size, f"outputs.{transform.__name__}")
        return transform(logits)

    @functools.wraps(transform)
    def wrap(logits_fn: LogitsFn) -> LogitsFn:
        # A callable pytree carries its weights along, and stays one; a plain function stays a plain function.
        network = networks.as_pytree(logits_fn)
        if networks.is_callable_pytree(network):
            return Partial(evaluate, network)
        return functools.partial(evaluate, logits_fn)

    return wrap


def _identity(logits: Array) -> Array:
    """Return the logits as they are, ``f_y(x)``."""
    return logits


_identity.__name__ = _identity.__qualname__ = "logit"
logit = _wrapper(_identity)


@_wrapper
def probability(logits: Array) -> Array:
    """Explain the probability of class y, ``p_y = softmax(f(x))_y``.

    It is computed as ``sigmoid(o_y)`` from the log-odds: of a confident prediction ``1 - p_y`` is rounded to 0, and the
    gradient of a softmax with it (in float32 12 % off where the label is 15 ahead, and 94 % from 20 on). Here value,
    gradient and Hessian products keep their relative precision while ``p_y`` and ``1 - p_y`` are above about 1e-33;
    beyond, parts of a float32 gradient are flushed to zero.

    Raises:
      ValueError: on call, if the network has one logit.
    """
    return sigmoid(_logits.jaxattr_log_odds(logits))


@_wrapper
def log_probability(logits: Array) -> Array:
    """Explain the log-probability of class y, ``log softmax(f(x))_y``; precise as :func:`probability` is.

    Raises:
      ValueError: on call, if the network has one logit.
    """
    return _logits.log_softmax(logits)


@_wrapper
def loss(logits: Array) -> Array:
    """Explain the cross-entropy of class y, ``-log softmax(f(x))_y``; the predicted class has the SMALLEST entry.

    It is as precise as :func:`probability`.

    Raises:
      ValueError: on call, if the network has one logit.
    """
    return -_logits.log_softmax(logits)


@_wrapper
def margin(logits: Array) -> Array:
    """Explain the margin of class y, ``f_y(x) - max_{j != y} f_j(x)``, positive for the predicted class only.

    With three classes or more the maximum has a kink where the runner-up changes, and bounds refuse it;
    :func:`log_odds` is its smooth stand-in.

    Raises:
      ValueError: on call, if the network has one logit.
    """
    if logits.size == 2:
        # With two classes this needs no maximum, and so has no kink.
        return logits - logits[::-1]
    others = jnp.where(jnp.eye(logits.size, dtype=bool), -jnp.inf, logits)
    return logits - jnp.max(others, axis=1)


@_wrapper
def log_odds(logits: Array) -> Array:
    """Explain the log-odds of class y, ``o_y = f_y(x) - log sum_{j != y} exp(f_j(x)) = log(p_y / (1 - p_y))``.

    They are a smooth margin: ``margin - log(classes - 1) <= log_odds <= margin``, equal to the margin for two classes.
    They do not saturate as probabilities do.

    Raises:
      ValueError: on call, if the network has one logit.

    Example:
      >>> import jax.numpy as jnp
      >>> import jaxattr as ja
      >>> odds = ja.outputs.log_odds(lambda x: jnp.array([3.0, 0.0, 0.0]))
      >>> round(float(odds(jnp.zeros(1))[0]), 4)  # 3 - log 2
      2.3069
    """
    return _logits.jaxattr_log_odds(logits)


REGISTRY: dict[str, Output] = {
    "logit": logit,
    "probability": probability,
    "log_probability": log_probability,
    "loss": loss,
    "margin": margin,
    "log_odds": log_odds,
}


@described
def explaining(attribute: AttributionFn, output: Output) -> Attribution:
    """Build the attribution of another output than the logit.

    Args:
      attribute: ``(logits_fn, x, label) -> map``.
      output: one of this module's wrappers, or another function from logits function to logits function.

    Returns:
      ``attribute'(logits_fn, x, label) = attribute(output(logits_fn), x, label)``, with all else that is known
      of it: field, baseline and cost.

    Example:
      >>> import jax.numpy as jnp
      >>> import jaxattr as ja
      >>> logits_fn = lambda x: jnp.stack([2 * x[0], 0 * x[0]])
      >>> explained = ja.outputs.explaining(ja.attributions.saliency(), ja.outputs.probability)
      >>> explained(logits_fn, jnp.array([0.0]), 0).tolist()  # 2 p (1 - p)
      [0.5]
    """
    attribute = as_attribution(attribute)
    if not callable(output):
        raise TypeError(f"`output` must be a wrapper such as jaxattr.outputs.probability, got {output!r}.")
    inner = attribute.output

    def of_output(function: AttributionFn | None) -> AttributionFn | None:
        if function is None:
            return None
        return lambda logits_fn, x, label: function(output(logits_fn), x, label)

    def explained(logits_fn: LogitsFn) -> LogitsFn:
        return output(logits_fn) if inner is None else inner(output(logits_fn))

    return attribute.replace(
        function=of_output(attribute.function), field=of_output(attribute.field), complete=False, output=explained
    )
