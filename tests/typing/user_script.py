"""What a user's type checker knows of results; `make types` checks this file, and the tests run it."""

from typing import assert_type

import jax
import jax.numpy as jnp

import jaxattr as ja
from jaxattr.attacks import AttackResult
from jaxattr.bounds import DeviationBound

ball, key, xs, labels = ja.L2(0.1), jax.random.key(0), jnp.full((2, 3), 0.5), jnp.zeros(2, int)


def logits_fn(x: jax.Array) -> jax.Array:
    return jnp.stack([x @ x, x.sum()])


bound, attack = ja.bounds.singular_value(ja.attributions.saliency(), ball), ja.attacks.pgd(ball, num_steps=2)
assert_type(bound(logits_fn, xs[0], 0, key), DeviationBound)
assert_type(attack(logits_fn, xs[0], 0, key), AttackResult)
assert_type(ja.over_samples(bound, logits_fn)(xs, labels, key), DeviationBound)
assert_type(ja.over_samples(attack, logits_fn)(xs, labels, key), AttackResult)
mean_angle: float = float(ja.over_samples(bound, logits_fn)(xs, labels, key).degrees.mean())
