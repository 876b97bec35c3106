"""The smallest of several bounds: which one it was, what it is worth, and that NaN is no small number."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cube import BALL, BOUNDS, KEY, SALIENCY, X, saliency_at
from oracles import assert_of_exhausted_run, network, quadratic, symmetric

import jaxattr as ja


def test_smallest_names_theorem_2_where_p_is_diagonal():
    values = np.array([1.0, 0.5, 0.2, 0.1, 0.1, 0.1, 0.1, 0.1])
    squares, found = saliency_at(np.diag(values))
    assert squares["entrywise"] == pytest.approx((values**2).sum(), rel=1e-5)
    assert_of_exhausted_run(np.sqrt(squares["norm_relaxation"]), np.sqrt(8), 8)
    smallest = found["smallest"]
    assert smallest.methods[int(smallest.active)] == "entrywise"
    assert float(smallest.euclidean) == pytest.approx(float(found["entrywise"].euclidean))
    assert float(smallest.degrees) == pytest.approx(float(found["entrywise"].degrees))


def test_smallest_of_one_and_of_nested_bounds():
    logits_fn, x = quadratic(symmetric(0, 8), np.ones(8)), jnp.asarray(X, jnp.float32)
    entrywise = ja.bounds.entrywise(SALIENCY, BALL)
    relaxed = ja.bounds.norm_relaxation(SALIENCY, BALL, confidence=0.99, tolerance=0.0)
    single = BOUNDS["saliency"](logits_fn, x, 0, KEY)["entrywise"]
    alone = jax.jit(ja.bounds.smallest(entrywise))(logits_fn, x, 0, KEY)
    np.testing.assert_allclose(alone.euclidean, single.euclidean, rtol=1e-6)
    assert alone.methods == ("entrywise",)
    nested = jax.jit(ja.bounds.smallest(relaxed, ja.bounds.smallest(relaxed, entrywise)))(logits_fn, x, 0, KEY)
    assert nested.methods == ("norm_relaxation", "norm_relaxation", "entrywise")
    expected = int(np.argmin([np.sqrt(8) * np.linalg.norm(symmetric(0, 8), 2), float(single.slope)]))
    assert nested.methods[int(nested.active)] == ("norm_relaxation", "entrywise")[expected]
    # Failure probabilities add up: two bounds of 0.99.
    assert float(nested.confidence) == pytest.approx(0.98, abs=1e-6)
    with pytest.raises(ValueError, match="at least one bound"):
        ja.bounds.smallest()


def test_nan_is_not_hidden_by_the_smaller_bound():
    found = BOUNDS["saliency"](network(0, (8, 12, 3)), jnp.asarray(X, jnp.float32).at[2].set(jnp.nan), 0, KEY)
    for name, each in found.items():
        assert np.isnan(each.euclidean), name
        assert np.isnan(each.degrees), name
        assert bool(each.vacuous), name
