import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import quadratic, symmetric

import jaxattr as ja

KEY = jax.random.key(0)
SALIENCY = ja.attributions.saliency()
X = np.linspace(0.1, 0.9, 6)
RADII = jnp.array([0.01, 0.1, 0.3])
BUILD = {
    "singular_value": lambda epsilon: ja.bounds.singular_value(SALIENCY, ja.L2(epsilon), method="dense"),
    "entrywise": lambda epsilon: ja.bounds.entrywise(SALIENCY, ja.LInf(epsilon)),
}


@functools.partial(jax.jit, static_argnums=0)
def bounds_at(name, radii, logits_fn):
    x = jnp.asarray(X, jnp.float32)
    return jax.vmap(lambda epsilon: BUILD[name](epsilon)(logits_fn, x, 0, KEY))(radii)


@pytest.mark.parametrize("name", sorted(BUILD))
def test_inverse_of_the_bound(name):
    # epsilon(omega(epsilon)) = epsilon for all three targets, and again at another radius than the bound's own.
    logits_fn = quadratic(symmetric(0, 6), 20 * np.ones(6))
    found = bounds_at(name, RADII, logits_fn)
    assert not np.any(found.vacuous)
    one = jax.tree.map(lambda leaf: leaf[0], found)
    for target in ("euclidean", "cosine", "degrees"):
        wanted = getattr(found, target)
        np.testing.assert_allclose(ja.bounds.largest_epsilon(found, **{target: wanted}), RADII, rtol=1e-4)
        np.testing.assert_allclose(ja.bounds.largest_epsilon(one, **{target: wanted}), RADII, rtol=1e-4)
    np.testing.assert_allclose(
        ja.bounds.largest_epsilon(found, euclidean=found.euclidean, constant=2.0), RADII / 2, rtol=1e-4
    )


def test_targets_in_closed_form():
    # sigma = 2, ||g|| = 5.
    logits_fn = quadratic(np.diag([2.0, 1, 0, 0, 0, 0]), np.r_[3 - 0.2, 4 - 0.26, -0.0 * X[2:]])
    found = jax.tree.map(lambda leaf: leaf[0], bounds_at("singular_value", RADII, logits_fn))
    assert float(found.attribution_norm) == pytest.approx(5, rel=1e-5)
    for target, value, expected in (
        ("euclidean", 0.0, 0.0),
        ("euclidean", 1, 0.5),
        ("euclidean", 100.0, 50.0),
        ("degrees", 30, 1.25),
        ("degrees", 90, 2.5),
        ("degrees", 0.0, 0.0),
        ("cosine", 1 - np.sqrt(0.75), 1.25),
        ("cosine", 1, 2.5),
        ("cosine", 1e-8, 5 * np.sqrt(2e-8) / 2),
    ):
        assert float(ja.bounds.largest_epsilon(found, **{target: value})) == pytest.approx(expected, rel=1e-4)


def test_any_radius_is_allowed_where_nothing_moves():
    found = bounds_at("singular_value", RADII, quadratic(np.zeros((6, 6)), np.ones(6)))
    assert np.all(np.isinf(ja.bounds.largest_epsilon(found, euclidean=0.1)))
    assert np.all(np.isinf(ja.bounds.largest_epsilon(found, degrees=10.0)))


def test_targets_may_be_batched_by_vmap():
    # A curve of radii over angles: values that are not known yet pass the check.
    found = jax.tree.map(lambda leaf: leaf[0], bounds_at("singular_value", RADII, quadratic(np.eye(6))))
    angles = jnp.array([5.0, 45.0, 90.0])
    curve = jax.vmap(lambda angle: ja.bounds.largest_epsilon(found, degrees=angle))(angles)
    np.testing.assert_allclose(curve, np.sin(np.radians(angles)) * np.linalg.norm(X), rtol=1e-4)


@pytest.mark.parametrize("targets", [{}, {"euclidean": 1.0, "degrees": 3.0}])
def test_exactly_one_target(targets):
    found = bounds_at("singular_value", RADII, quadratic(np.eye(6)))
    with pytest.raises(ValueError, match="exactly one"):
        ja.bounds.largest_epsilon(found, **targets)


@pytest.mark.parametrize(
    "target", [{"euclidean": -1.0}, {"cosine": 1.01}, {"degrees": 91.0}, {"degrees": float("nan")}, {"cosine": -0.1}]
)
def test_targets_out_of_range(target):
    found = bounds_at("singular_value", RADII, quadratic(np.eye(6)))
    with pytest.raises(ValueError, match=f"`{next(iter(target))}` must be between 0 and"):
        ja.bounds.largest_epsilon(found, **target)
