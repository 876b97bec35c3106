"""Run an attack from several random starts."""

import jax

from jaxattr import _checks
from jaxattr._cost import gradients_of, times
from jaxattr._spec import described
from jaxattr.attacks._result import AttackResult
from jaxattr.method import Method
from jaxattr.types import Attack


@described
def restarts(attack: Attack, num_restarts: int) -> Method[AttackResult]:
    """Run an attack from several random starts, by ``vmap`` over keys.

    All results are kept: Wang and Kong 2023 report means over 20 attacks per sample, and the worst of them says more.

    Args:
      attack: ``(logits_fn, x, label, key) -> AttackResult``.
      num_restarts: how many.

    Returns:
      An attack whose result has a leading axis of ``num_restarts`` in every field.

    Raises:
      ValueError: if ``num_restarts`` is below 1.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> import jaxattr as ja
      >>> attack = ja.attacks.restarts(ja.attacks.pgd(ja.L2(0.1), num_steps=2), 3)
      >>> jax.jit(attack, static_argnums=0)(lambda x: x, jnp.full(2, 0.5), 0, jax.random.key(0)).x.shape
      (3, 2)
    """
    _checks.attack(attack)
    _checks.positive_int("num_restarts", num_restarts)

    def repeated(logits_fn, x, label, key):
        return jax.vmap(lambda k: attack(logits_fn, x, label, k))(jax.random.split(key, num_restarts))

    def gradients(size):
        return times(num_restarts, gradients_of(attack, size))

    return Method("restarts", repeated, getattr(attack, "ball", None), gradients=gradients)
