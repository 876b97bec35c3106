"""Take the smallest of several bounds, sample by sample."""

import dataclasses

import jax
import jax.numpy as jnp

from jaxattr import _checks
from jaxattr._cost import gradients_of, total
from jaxattr._spec import described
from jaxattr.bounds._result import DeviationBound, require_result
from jaxattr.method import Calling, Method
from jaxattr.types import Bound


@described
def smallest(*bounds: Bound) -> Method[DeviationBound]:
    """Take the smallest of several bounds of the same attribution over the same ball, and which one it was.

    ``euclidean`` is the smallest upper value, ``euclidean_attained`` (with ``direction``) the largest lower one. With
    probability ``1 - confidence`` an upper value fails; if another bound attains more, both are seen in the result.

    Args:
      *bounds: at least one ``bound(logits_fn, x, label, key) -> DeviationBound``.

    Returns:
      A bound whose ``methods`` name all of them and whose ``active`` is the index of the one that was smallest. Its
      confidence accounts for every one of them: failure probabilities add up, and so do products. ``kinks`` is the
      largest of them. Where one of them is NaN, so is the result.

    Raises:
      TypeError: if one is no bound; on call, if one returns something else than a :class:`DeviationBound`.
      ValueError: if no bound is given, or their balls differ.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> import jaxattr as ja
      >>> A = 3 * jnp.eye(3) - 1  # Theorem 2 gives sqrt(12 * 3), Corollary 1 sqrt(9 * 3) per unit of epsilon
      >>> logits_fn = lambda x: jnp.stack([x @ A @ x / 2, 0.0])
      >>> saliency, ball = ja.attributions.saliency(), ja.LInf(0.1)
      >>> bound = ja.bounds.smallest(ja.bounds.entrywise(saliency, ball), ja.bounds.norm_relaxation(saliency, ball))
      >>> result = jax.jit(bound, static_argnums=0)(logits_fn, jnp.full(3, 0.5), 0, jax.random.key(0))
      >>> result.methods[int(result.active)]
      'norm_relaxation'
    """
    if not bounds:
        raise ValueError("`smallest` needs at least one bound, got none.")
    for i, each in enumerate(bounds):
        _checks.bound(each, f"bounds[{i}]")
    balls = [ball for ball in (getattr(each, "ball", None) for each in bounds) if ball is not None]
    if len({(type(ball), repr(ball)) for ball in balls}) > 1:
        raise ValueError(f"`smallest` compares bounds over the same ball, got {', '.join(map(repr, balls))}.")

    def bound(logits_fn, x, label, key):
        keys = [None] * len(bounds) if key is None else list(jax.random.split(key, len(bounds)))
        results = [
            require_result(Calling(each).call(each, logits_fn, x, label, k), "smallest", f"bounds[{i}]")
            for i, (each, k) in enumerate(zip(bounds, keys, strict=True))
        ]
        stacked = jax.tree.map(
            lambda *leaves: jnp.stack(leaves), *[dataclasses.replace(r, methods=(), two_sided=True) for r in results]
        )
        # Compare slopes: values are all zero at a radius of zero.
        tight = jnp.argmin(stacked.slope)
        far = jnp.argmax(stacked.euclidean_attained)
        offsets = jnp.cumsum(jnp.asarray([0] + [len(r.methods) for r in results[:-1]]))
        chosen: DeviationBound = jax.tree.map(lambda leaf: leaf[tight], stacked)
        return dataclasses.replace(
            chosen,
            euclidean_attained=stacked.euclidean_attained[far],
            direction=stacked.direction[far],
            confidence=jnp.maximum(0, 1 - jnp.sum(1 - stacked.confidence)),
            kinks=jnp.max(stacked.kinks),
            products=jnp.sum(stacked.products).astype(jnp.int32),
            active=(offsets[tight] + stacked.active[tight]).astype(jnp.int32),
            methods=sum((r.methods for r in results), ()),
            two_sided=all(r.two_sided for r in results),
        )

    random = any(Calling(each).required for each in bounds)

    def gradients(size):
        return total(gradients_of(each, size) for each in bounds)

    return Method("smallest", bound, balls[0] if balls else None, needs_key=random, gradients=gradients)
