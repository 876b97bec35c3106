"""Attack explanations by iterative feature importance attacks, IFIA (Ghorbani et al. 2019)."""

from typing import Any

from jaxattr._spec import described
from jaxattr.attacks._ascent import projected_ascent
from jaxattr.attacks._result import AttackResult
from jaxattr.attacks.dissimilarities import Dissimilarity, top_k
from jaxattr.attacks.objectives import deviation
from jaxattr.balls import Ball
from jaxattr.method import Method
from jaxattr.programs.guard import Kinks
from jaxattr.types import AttributionFn


@described
def ifia(
    ball: Ball,
    attribute: AttributionFn,
    dissimilarity: Dissimilarity | None = None,
    *,
    num_steps: int = 200,
    step_size: Any = None,
    random_start: bool = True,
    unroll: int = 1,
    kinks: Kinks = "refuse",
) -> Method[AttackResult]:
    """Build IFIA, which changes the explanation, keeps the label, and returns the best iterate.

    Ghorbani et al. 2019; Wang and Kong 2023 evaluate their l-infinity bounds with 200 steps of the top-k variant. Of
    the iterates that keep the predicted label, the one with the largest measure is returned; the clean sample where
    none moves.

    Deviations: the released code has no random start, so that its repetitions are identical; the 20 repetitions of Wang
    and Kong need one, and it is on by default. They state no step size: ``epsilon / 10`` lets 200 steps cross the ball
    many times. The released code attacks a softplus twin of a ReLU network; here the network that is explained is the
    one that is attacked, and has to be smooth (``jaxattr.smooth``). In the released code an iterate that has lost the
    label walks on; here it goes to the opposite point the first time, where the dissimilarity is a distance (of ``x +-
    d`` one keeps the label to first order, and both are as far), and half of the way back to the last iterate that had
    the label otherwise.

    Args:
      ball: the threat model; the steps are signed for LInf (as published), normalized for L2.
      attribute: the attribution that is attacked.
      dissimilarity: the dissimilarity to climb; ``top_k(100)`` by default. ``euclidean()`` is that of the bounds.
      num_steps: gradient steps.
      step_size: in units of the input; ``epsilon / 10`` by default.
      random_start: start uniformly in the ball, then clipped to the box.
      unroll: loop steps per compiled iteration.
      kinks: what to do with a network that is not twice differentiable in x, such as one with ReLU or max-pooling:
        ``refuse``, or ``allow``, with their number in the result. Its attribution jumps, and this gradient does not
        see it.

    Returns:
      ``attack(logits_fn, x, label, key) -> AttackResult``; ``objective`` is the dissimilarity's measure.

    Raises:
      ValueError: if an option is out of range; on call, if k exceeds the map, x lies outside of the box, the label
        does not fit, or the network has kinks or one logit.
      TypeError: if ``attribute`` or ``dissimilarity`` is none, such as a constructor without its parentheses.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> import jaxattr as ja
      >>> logits_fn = lambda x: jnp.stack([x @ jnp.diag(jnp.array([1.0, 3.0])) @ x / 2 + 9.0, 0.0])
      >>> deviation = ja.attacks.dissimilarities.euclidean()
      >>> attack = ja.attacks.ifia(ja.L2(0.1), ja.attributions.saliency(), deviation, num_steps=50)
      >>> result = attack(logits_fn, jnp.array([0.5, 0.5]), 0, jax.random.key(0))
      >>> round(float(result.objective), 3)  # sigma_max * epsilon
      0.3
    """
    compared = top_k(100) if dissimilarity is None else dissimilarity
    return projected_ascent(
        deviation(attribute, compared, kinks=kinks, method="ifia"),
        ball,
        num_steps=num_steps,
        step_size=step_size,
        default_step=0.1,
        random_start=random_start,
        keep="best_label_kept",
        unroll=unroll,
        name="ifia",
    )
