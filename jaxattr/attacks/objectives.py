"""Define the objectives that attacks climb: classification losses, the deviation of an attribution, weighted sums."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from jaxattr import _checks, _logits, _values
from jaxattr._cost import gradients_of, times, total
from jaxattr._spec import described
from jaxattr.attacks._ascent import AttackObjective, PointObjective
from jaxattr.attacks.dissimilarities import Dissimilarity
from jaxattr.attribution import as_attribution
from jaxattr.jacobian import unchecked_jacobian
from jaxattr.programs import guard
from jaxattr.programs.guard import Kinks
from jaxattr.types import AttributionFn, LogitsFn


class NamedObjective(_values.Value):
    """An objective ``objective(logits_fn, x, label) -> PointObjective`` with a name.

    Args:
      name: for tables and messages.
      function: ``(logits_fn, x, label) -> PointObjective``.
      gradients: gradients of the network for one step of an attack; ``None`` where the number is not known.

    Attributes:
      name, gradients: as given.
      spec: how it was built, where a constructor of this library has built it.
    """

    def __init__(self, name: str, function: AttackObjective, *, gradients: int | None = None):
        self.name, self._function, self.gradients = name, function, gradients

    def __repr__(self) -> str:
        return f"<objective {self.name}>" if self.spec is None else str(self.spec)

    def __call__(self, logits_fn: LogitsFn, x: Array, label: Any) -> PointObjective:
        """Return the functions of the objective at one clean sample."""
        return self._function(logits_fn, x, label)


@described
def cross_entropy() -> NamedObjective:
    """Build the cross-entropy of the label, ``-log softmax(f(x'))_y``, which attacks the prediction.

    It does not stand still on confident samples. ``CE = softplus(-o_y)`` with the log-odds ``o_y = f_y - log sum_{j !=
    y} exp(f_j)``, so that its gradient ``-(1 - p_y) grad o_y`` points along ``-grad o_y``, which is what attacks with
    normalized steps follow. (A softmax rounds ``1 - p_y`` to 0 where the label is 17 ahead, and its gradient with it.)

    Returns:
      An objective for :func:`~jaxattr.attacks.pgd`.

    Raises:
      ValueError: on call, if the network has one logit.

    Example:
      >>> import jax.numpy as jnp
      >>> import jaxattr as ja
      >>> objective = ja.attacks.cross_entropy()(lambda x: x, jnp.zeros(2), 0)
      >>> objective.value_and_grad(jnp.zeros(2))[1].tolist()
      [-0.5, 0.5]
    """

    def objective(logits_fn, x, label):
        _at_least(2, logits_fn, x, "cross_entropy")

        def value(z):
            return _logits.cross_entropy(logits_fn(z), label)

        def log_odds_against(z):
            return -_logits.log_odds_of(logits_fn(z), label)

        return PointObjective(value, jax.value_and_grad(value), jax.value_and_grad(log_odds_against))

    return NamedObjective("cross_entropy", objective, gradients=1)


@described
def margin() -> NamedObjective:
    """Build the lead of the best other class, ``max_{j != y} f_j(x') - f_y(x')``; positive where it is predicted.

    Its gradient does not depend on how confident the network is, and looks at one rival at a time (the untargeted form
    of the loss of Carlini and Wagner 2017, without its cap).

    Returns:
      An objective for :func:`~jaxattr.attacks.pgd`.

    Raises:
      ValueError: on call, if the network has one logit.

    Example:
      >>> import jax.numpy as jnp
      >>> import jaxattr as ja
      >>> objective = ja.attacks.margin()(lambda x: x, jnp.zeros(3), 0)
      >>> objective.value_and_grad(jnp.array([5.0, 1.0, 2.0]))
      (Array(-3., dtype=float32), Array([-1.,  0.,  1.], dtype=float32))
    """

    def objective(logits_fn, x, label):
        _at_least(2, logits_fn, x, "margin")

        def value(z):
            return _lead(logits_fn(z), label)

        return PointObjective(value, jax.value_and_grad(value))

    return NamedObjective("margin", objective, gradients=1)


@described
def difference_of_logits_ratio() -> NamedObjective:
    """Build the DLR loss ``(max_{j != y} f_j - f_y) / (f_(1) - f_(3))``, ``f_(1) >= f_(2) >= ...`` the ordered logits.

    The untargeted "difference of logits ratio" of Croce and Hein 2020, "Reliable evaluation of adversarial robustness
    with an ensemble of diverse parameter-free attacks". It changes neither with the scale of the logits nor with their
    offset; it is positive where another class is predicted, and at least -1 where the label is. Where the three largest
    logits are equal, the numerator alone is climbed.

    Returns:
      An objective for :func:`~jaxattr.attacks.pgd`.

    Raises:
      ValueError: on call, if the network has fewer than three logits.

    Example:
      >>> import jax.numpy as jnp
      >>> import jaxattr as ja
      >>> objective = ja.attacks.difference_of_logits_ratio()(lambda x: x, jnp.zeros(4), 0)
      >>> float(objective.value(jnp.array([6.0, 1.0, 3.0, 2.0])))  # (3 - 6) / (6 - 2)
      -0.75
    """

    def objective(logits_fn, x, label):
        _at_least(3, logits_fn, x, "difference_of_logits_ratio")

        def value(z):
            logits = logits_fn(z)
            largest = jax.lax.top_k(logits, 3)[0]
            spread = largest[0] - largest[2]
            return _lead(logits, label) / jnp.where(spread > 0, spread, 1)

        return PointObjective(value, jax.value_and_grad(value))

    return NamedObjective("difference_of_logits_ratio", objective, gradients=1)


@described
def kl_divergence() -> NamedObjective:
    """Build ``KL(p(x) || p(x'))`` of the predicted probabilities, the inner objective of TRADES (Zhang et al. 2019).

    It is 0 with gradient 0 at x, so that an attack on it has to start somewhere else. By the logits its gradient is
    ``p(x') - p(x)``; attacks with normalized steps follow that divided by its largest entry, so that a confident
    network does not stop them.

    Returns:
      An objective for :func:`~jaxattr.attacks.pgd`; the label is not used.

    Raises:
      ValueError: on call, if the network has one logit.

    Example:
      >>> import jax.numpy as jnp
      >>> import jaxattr as ja
      >>> objective = ja.attacks.kl_divergence()(lambda x: x, jnp.zeros(2), 0)
      >>> round(float(objective.value(jnp.array([0.0, 1.0]))), 4)  # (log((1 + e)^2 / e) - log 4) / 2
      0.1201
    """

    def objective(logits_fn, x, _):
        _at_least(2, logits_fn, x, "kl_divergence")
        clean = _logits.log_softmax(logits_fn(x))

        def value(z):
            return _logits.divergence(clean, _logits.log_softmax(logits_fn(z)))

        def steer(z):
            logits, pullback = jax.vjp(logits_fn, z)
            moved = _logits.log_softmax(logits)
            # The entries sum to zero: that of the predicted class, where 1 - 1 would be left, is minus the sum of all
            # others.
            leads = jnp.arange(logits.size) == jnp.argmax(logits)
            largest = jnp.max(jnp.where(leads, -jnp.inf, jnp.maximum(clean, moved)))
            scale = jnp.where(jnp.isfinite(largest), largest, 0)
            others = jnp.where(leads, 0, jnp.exp(moved - scale) - jnp.exp(clean - scale))
            (gradient,) = pullback(jnp.where(leads, -jnp.sum(others), others))
            return _logits.divergence(clean, moved), gradient

        return PointObjective(value, jax.value_and_grad(value), steer)

    return NamedObjective("kl_divergence", objective, gradients=1)


@described
def weighted_sum(terms: Sequence[tuple[float, AttackObjective]]) -> NamedObjective:
    """Build ``sum_i weight_i * objective_i``, which attacks prediction and explanation at once.

    A term of weight 0 is left out.

    Args:
      terms: ``(weight, objective)``, at least one.

    Raises:
      ValueError: without terms.
      TypeError: if a term is no pair of a number and an objective.

    Returns:
      An objective for :func:`~jaxattr.attacks.pgd`.

    Example:
      >>> import jax.numpy as jnp
      >>> import jaxattr as ja
      >>> twice = ja.attacks.weighted_sum([(2.0, ja.attacks.cross_entropy())])
      >>> twice(lambda x: x, jnp.zeros(2), 0).value_and_grad(jnp.zeros(2))[1].tolist()
      [-1.0, 1.0]
    """
    terms = tuple(terms)
    if not terms:
        raise ValueError("`terms` needs at least one pair (weight, objective).")
    terms = tuple((weight, require_objective(term, "terms")) for weight, term in terms)
    terms = tuple(term for term in terms if not (_checks.is_concrete(term[0]) and term[0] == 0)) or terms

    def objective(logits_fn, x, label):
        parts = [(weight, term(logits_fn, x, label)) for weight, term in terms]
        kinks = max(part.kinks for _, part in parts)

        def value(z):
            return jnp.sum(jnp.stack([weight * part.value(z) for weight, part in parts]))

        def value_and_grad(z):
            values, gradients = zip(*[part.value_and_grad(z) for _, part in parts], strict=True)
            weights = jnp.asarray([weight for weight, _ in parts], z.dtype)
            return weights @ jnp.stack(values), jnp.tensordot(weights, jnp.stack(gradients), axes=1)

        # A sum of several terms keeps their scales, and a gradient that underflows hardly counts in it.
        weight, first = parts[0]
        alone = first.steer
        if len(parts) > 1 or alone is None:
            return PointObjective(value, value_and_grad, kinks=kinks)

        def steer(z):
            score, direction = alone(z)
            return weight * score, weight * direction

        return PointObjective(value, value_and_grad, steer, kinks=kinks)

    return NamedObjective("weighted_sum", objective, gradients=total(gradients_of(term) for _, term in terms))


@described
def deviation(
    attribute: AttributionFn, dissimilarity: Dissimilarity, *, kinks: Kinks = "refuse", method: str = "deviation"
) -> NamedObjective:
    """Build the dissimilarity of the attributions of x and x', which attacks the explanation.

    The gradient of ``surrogate(g(x'))`` is one product with the transposed attribution Jacobian at x', forward over
    reverse for attributions with a gradient field, so that memory does not grow with the path points of IG.

    Args:
      attribute: the attribution that is attacked.
      dissimilarity: the dissimilarity to climb, which also compares iterates.
      kinks: what to do with a network that is not twice differentiable in x, such as one with ReLU or max-pooling,
        whose attribution jumps where this gradient sees a plain: ``refuse``, or ``allow``.
      method: name of the calling method, for messages.

    Raises:
      TypeError: if ``dissimilarity`` is not one.
      ValueError: on call, if the network has kinks.

    Returns:
      An objective for :func:`~jaxattr.attacks.pgd`.

    Example:
      >>> import jax.numpy as jnp
      >>> import jaxattr as ja
      >>> objective = ja.attacks.deviation(ja.attributions.saliency(), ja.attacks.dissimilarities.euclidean())
      >>> at_sample = objective(lambda x: jnp.stack([x @ x / 2, 0.0]), jnp.zeros(2), 0)  # g(x) = x
      >>> at_sample.value(jnp.array([3.0, 4.0])).tolist()
      5.0
    """
    attribute = as_attribution(attribute)
    if not isinstance(dissimilarity, Dissimilarity):
        raise TypeError(
            "`dissimilarity` must be a Dissimilarity such as `jaxattr.attacks.dissimilarities.euclidean()`, with"
            f" parentheses, got {dissimilarity!r}."
        )

    def objective(logits_fn, x, label):
        found = guard.check(attribute, logits_fn, x, kinks, method=method)
        compared = dissimilarity.compare(attribute(logits_fn, x, label))

        def value(z):
            return compared.measure(attribute(logits_fn, z, label))

        def value_and_grad(z):
            jacobian = unchecked_jacobian(attribute, logits_fn, z, label, linearize=False)
            slope = jax.grad(compared.surrogate)(jacobian.value)
            return compared.measure(jacobian.value), jacobian.rmatvec(slope)

        return PointObjective(value, value_and_grad, even=dissimilarity.even, kinks=found)

    return NamedObjective("deviation", objective, gradients=times(2, attribute.gradients))


OBJECTIVES: dict[str, Callable[..., NamedObjective]] = {
    "cross_entropy": cross_entropy,
    "margin": margin,
    "difference_of_logits_ratio": difference_of_logits_ratio,
    "kl_divergence": kl_divergence,
    "weighted_sum": weighted_sum,
    "deviation": deviation,
}
"""Constructors by name, for scripts and tables of tests."""


def require_objective(objective: Any, name: str = "objective") -> Any:
    """Return ``objective``, or raise ``TypeError`` if it is a name, or a constructor without its parentheses."""
    accepted = "an objective such as `jaxattr.attacks.cross_entropy()`"
    if isinstance(objective, str) or not callable(objective):
        raise TypeError(f"`{name}` must be {accepted}, got {objective!r}.")
    for known, constructor in OBJECTIVES.items():
        if objective is constructor:
            raise TypeError(
                f"`{name}` must be {accepted}, got the constructor `{known}` itself: write"
                f" `jaxattr.attacks.{known}(...)`, with parentheses."
            )
    return objective


def _lead(logits: Array, label: Any) -> Array:
    """Return the best other logit minus the label's."""
    own, others = _logits.split(logits, label)
    return jnp.max(others) - own


def _at_least(count: int, logits_fn: LogitsFn, x: Any, name: str) -> None:
    """Refuse a network with fewer logits than the objective compares."""
    classes = _checks.num_classes(logits_fn, x)
    _logits.require_classes(classes, name)
    if classes < count:
        raise ValueError(
            f"`{name}` compares the {count} largest logits, but the network has {classes}: for two classes take"
            " `jaxattr.attacks.margin()` or `jaxattr.attacks.cross_entropy()`, whose direction is the same there."
        )
