import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxattr as ja

X = jnp.full((2, 2), 0.5)
W = jnp.asarray(np.random.default_rng(0).normal(size=(3, 4)), jnp.float32)


def logits_fn(x):
    return W @ x.ravel() ** 2


@pytest.mark.parametrize("kind", ["l2", "linf"])
def test_they_equal_separate_calls_with_split_keys(kind):
    attack = ja.attacks.pgd(ja.balls.BALLS[kind](0.2), num_steps=2, step_size=0.03)
    key = jax.random.key(5)
    found = jax.jit(lambda key: ja.attacks.restarts(attack, 3)(logits_fn, X, 0, key))(key)
    single = jax.jit(lambda key: attack(logits_fn, X, 0, key))
    for i, k in enumerate(jax.random.split(key, 3)):
        alone = single(k)
        assert [leaf.shape[0] for leaf in found] == [3] * 7
        for leaf, expected in zip(found, alone, strict=True):
            np.testing.assert_allclose(leaf[i], expected, rtol=1e-5, atol=1e-6)
    gaps = [float(jnp.max(jnp.abs(found.x[i] - found.x[j]))) for i, j in ((0, 1), (0, 2), (1, 2))]
    assert min(gaps) > 1e-3


def test_one_restart_keeps_the_leading_axis_and_none_is_refused():
    attack = ja.attacks.pgd(ja.L2(0.1), num_steps=1)
    once = ja.attacks.restarts(attack, 1)
    assert jax.eval_shape(lambda x, key: once(logits_fn, x, 0, key), X, jax.random.key(0)).x.shape == (1, 2, 2)
    with pytest.raises(ValueError, match="`num_restarts` must be at least 1, got 0"):
        ja.attacks.restarts(attack, 0)
    with pytest.raises(TypeError, match="`num_restarts` must be an integer"):
        ja.attacks.restarts(attack, 2.5)
