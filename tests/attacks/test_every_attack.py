"""The distance of a perturbed input is at most epsilon: to the last bit, as ``distance`` measures it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxattr as ja

SALIENCY = ja.attributions.saliency()


def logits_fn(x):
    return jnp.stack([jnp.mean(x**2), jnp.mean(x) / 2])


MAKE = {
    "pgd": lambda ball: ja.attacks.pgd(ball, num_steps=3),
    "pgd_best": lambda ball: ja.attacks.pgd(ball, num_steps=3, keep="best"),
    "ifia": lambda ball: ja.attacks.ifia(ball, SALIENCY, ja.attacks.dissimilarities.euclidean(), num_steps=3),
    "worst_direction": lambda ball: ja.attacks.worst_direction(
        ball,
        SALIENCY,
        ja.bounds.singular_value(SALIENCY, ball, num_steps=3)
        if isinstance(ball, ja.L2)
        else ja.bounds.norm_relaxation(SALIENCY, ball, num_steps=3),
    ),
}


@pytest.mark.parametrize("name", sorted(MAKE))
@pytest.mark.parametrize("kind", ["l2", "linf"])
def test_distance_is_at_most_epsilon(kind, name):
    """``x + epsilon`` is rounded, away from x for half of the pixels."""
    xs = jnp.asarray(np.random.default_rng(0).uniform(size=(200, 50)), jnp.float32)

    def attack(epsilon, x, key):
        return MAKE[name](ja.balls.BALLS[kind](epsilon))(logits_fn, x, 0, key)

    run = jax.jit(jax.vmap(attack, in_axes=(None, 0, 0)))
    for epsilon in np.array([8 / 255, 0.1, 0.3, 1e-4], np.float32):
        found = run(epsilon, xs, jax.random.split(jax.random.key(0), len(xs)))
        assert np.all(np.asarray(found.distance) <= epsilon)
        # And it is what anyone measures.
        delta = np.asarray(found.x) - np.asarray(xs)
        if kind == "linf":
            assert np.all(np.abs(delta).max(axis=1) <= epsilon)
        else:
            assert np.all(np.linalg.norm(delta.astype(float), axis=1) <= epsilon * (1 + 1e-6))
        # Nothing is given away beyond a few units in the last place of x.
        if name.startswith("pgd") and kind == "linf":
            assert np.median(found.distance) >= epsilon * (1 - 1e-5) - 4e-7
