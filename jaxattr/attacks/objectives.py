"""What an attack climbs: the classification loss, or how far an attribution has moved."""

import jax

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
