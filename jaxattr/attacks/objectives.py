"""What an attack climbs: the classification loss, how far an attribution has moved, or a sum of such."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from jaxattr import _checks
from jaxattr.attacks.ascent import Climb, Objective
from jaxattr.attacks.dissimilarity import Dissimilarity
from jaxattr.jacobian import attribution_jacobian
from jaxattr.types import Attribution


def cross_entropy() -> Objective:
    """Cross-entropy of the label, ``-log softmax(f(x'))_y``: the attack on the prediction.

    Returns:
      An objective for :func:`~jaxattr.attacks.pgd`.

    Example:
      >>> import jax.numpy as jnp
      >>> import jaxattr as ja
      >>> climb = ja.attacks.cross_entropy()(lambda x: x, jnp.zeros(2), 0)
      >>> climb.merit_and_gradient(jnp.zeros(2))[1].tolist()
      [-0.5, 0.5]
    """

    def objective(logits_fn, _, label):
        def merit(z):
            return -_checks.of_class(jax.nn.log_softmax(logits_fn(z)), label)

        return Climb(merit, jax.value_and_grad(merit))

    return objective


def kl_divergence() -> Objective:
    """``KL(p(x) || p(x'))`` of the predicted probabilities, the inner objective of TRADES (Zhang et al. 2019).

    It is 0 with gradient 0 at x, so that an attack on it has to start somewhere else.

    Returns:
      An objective for :func:`~jaxattr.attacks.pgd`; the label is not used.

    Example:
      >>> import jax.numpy as jnp
      >>> import jaxattr as ja
      >>> climb = ja.attacks.kl_divergence()(lambda x: x, jnp.zeros(2), 0)
      >>> round(float(climb.merit(jnp.array([0.0, 1.0]))), 4)  # (log((1 + e)^2 / e) - log 4) / 2
      0.1201
    """

    def objective(logits_fn, x, _):
        clean = jax.nn.log_softmax(logits_fn(x))

        def merit(z):
            return jnp.sum(jnp.exp(clean) * (clean - jax.nn.log_softmax(logits_fn(z))))

        return Climb(merit, jax.value_and_grad(merit))

    return objective


def weighted_sum(terms: Sequence[tuple[float, Objective]]) -> Objective:
    """``sum_i weight_i * objective_i``, for attacks on prediction and explanation at once.

    Args:
      terms: ``(weight, objective)``, at least one.

    Raises:
      ValueError: without terms.

    Returns:
      An objective for :func:`~jaxattr.attacks.pgd`.

    Example:
      >>> import jax.numpy as jnp
      >>> import jaxattr as ja
      >>> twice = ja.attacks.weighted_sum([(2.0, ja.attacks.cross_entropy())])
      >>> twice(lambda x: x, jnp.zeros(2), 0).merit_and_gradient(jnp.zeros(2))[1].tolist()
      [-1.0, 1.0]
    """
    terms = tuple(terms)
    if not terms:
        raise ValueError("`terms` needs at least one pair (weight, objective).")

    def objective(logits_fn, x, label):
        climbs = [(weight, term(logits_fn, x, label)) for weight, term in terms]

        def merit(z):
            return jnp.sum(jnp.stack([weight * climb.merit(z) for weight, climb in climbs]))

        def merit_and_gradient(z):
            merits, gradients = zip(*[climb.merit_and_gradient(z) for _, climb in climbs], strict=True)
            weights = jnp.asarray([weight for weight, _ in climbs], z.dtype)
            return weights @ jnp.stack(merits), jnp.tensordot(weights, jnp.stack(gradients), axes=1)

        return Climb(merit, merit_and_gradient)

    return objective


def deviation(attribute: Attribution, dissimilarity: Dissimilarity) -> Objective:
    """Dissimilarity of the attributions of x and x': the attack on the explanation.

    The gradient of ``score(g(x'))`` is one product with the transposed attribution Jacobian at x', forward over
    reverse for gradient attributions, so that memory does not grow with the path points of IG.

    Args:
      attribute: the attribution that is attacked.
      dissimilarity: what is climbed and by what iterates are compared.

    Raises:
      TypeError: if ``dissimilarity`` is not one.

    Returns:
      An objective for :func:`~jaxattr.attacks.pgd`.

    Example:
      >>> import jax.numpy as jnp
      >>> import jaxattr as ja
      >>> objective = ja.attacks.deviation(ja.attributions.saliency(), ja.attacks.euclidean())
      >>> climb = objective(lambda x: jnp.stack([x @ x / 2, 0.0]), jnp.zeros(2), 0)  # g(x) = x
      >>> climb.merit(jnp.array([3.0, 4.0])).tolist()
      5.0
    """
    if not isinstance(dissimilarity, Dissimilarity):
        raise TypeError(
            f"`dissimilarity` must be a Dissimilarity such as `jaxattr.attacks.euclidean()`, got {dissimilarity!r}."
        )

    def objective(logits_fn, x, label):
        compared = dissimilarity.compare(attribute(logits_fn, x, label))

        def merit(z):
            return compared.measure(attribute(logits_fn, z, label))

        def merit_and_gradient(z):
            jacobian = attribution_jacobian(attribute, logits_fn, z, label, linearize=False)
            slope = jax.grad(compared.score)(jacobian.value)
            return compared.measure(jacobian.value), jacobian.rmatvec(slope)

        return Climb(merit, merit_and_gradient)

    return objective
