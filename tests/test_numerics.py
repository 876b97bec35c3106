"""Decompositions one matrix at a time: values and derivatives are NumPy's and JAX's, and no kernel gets a batch."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxattr import _numerics

MATRICES = jax.random.normal(jax.random.key(0), (3, 4, 4))
SYMMETRIC = MATRICES + MATRICES.swapaxes(1, 2)


def test_values_are_numpys():
    values, vectors = jax.vmap(_numerics.eigh)(SYMMETRIC)
    np.testing.assert_allclose(values, np.linalg.eigvalsh(SYMMETRIC), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(SYMMETRIC @ vectors, vectors * values[:, None], rtol=0, atol=1e-5)
    sigma, v = jax.vmap(_numerics.largest_svd)(MATRICES)
    np.testing.assert_allclose(sigma, np.linalg.svd(MATRICES, compute_uv=False)[:, 0], rtol=1e-5)
    np.testing.assert_allclose(jnp.linalg.norm(MATRICES @ v[..., None], axis=1)[:, 0], sigma, rtol=1e-5)
    right = jnp.ones((3, 4))
    expected = np.linalg.solve(MATRICES, right[..., None])[..., 0]
    np.testing.assert_allclose(jax.vmap(_numerics.solve)(MATRICES, right), expected, rtol=1e-3)
    basis = jax.vmap(_numerics.orthonormal)(MATRICES[:, :, :2])
    np.testing.assert_allclose(basis.swapaxes(1, 2) @ basis, np.broadcast_to(np.eye(2), (3, 2, 2)), atol=1e-5)
    inside = basis @ (basis.swapaxes(1, 2) @ MATRICES[:, :, :2])
    np.testing.assert_allclose(inside, MATRICES[:, :, :2], rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("ours", "reference", "matrices"),
    [
        (lambda m: _numerics.largest_svd(m)[0], lambda m: jnp.linalg.svd(m, compute_uv=False)[0], MATRICES),
        (lambda m: _numerics.eigvalsh(m)[-1], lambda m: jnp.linalg.eigvalsh(m)[-1], SYMMETRIC),
    ],
    ids=["largest_svd", "eigvalsh"],
)
def test_derivatives_are_those_of_jax(ours, reference, matrices):
    actual, expected = (jax.jit(jax.vmap(jax.value_and_grad(f)))(matrices) for f in (ours, reference))
    np.testing.assert_allclose(actual[0], expected[0], rtol=1e-5)
    # Of an eigenvalue the derivative is a symmetric matrix, of which JAX may give one triangle.
    symmetric = [g + g.swapaxes(1, 2) if matrices is SYMMETRIC else g for g in (actual[1], expected[1])]
    np.testing.assert_allclose(*symmetric, rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("guessed", "excess"),
    [(1.0, 2e-5), (0.999, 2e-3), (0.5, 1.01), (1e-6, np.inf), (0.0, np.inf), (-1e-9, np.inf)],
)
def test_an_eigenvalue_limit_is_never_below_numpys_and_close_to_a_good_guess(guessed, excess):
    squares = jnp.einsum("nij,nik->njk", MATRICES, MATRICES)
    largest = np.linalg.eigvalsh(squares)[:, -1]
    found = jax.jit(jax.vmap(_numerics.eigenvalue_limit))(squares, jnp.asarray(guessed * largest))
    assert np.all(found >= largest)
    assert np.all(found <= np.minimum((1 + excess) * largest, (1 + 1e-6) * np.trace(squares, axis1=1, axis2=2)))


def test_an_eigenvalue_limit_where_a_factor_proves_nothing():
    zero = _numerics.eigenvalue_limit(jnp.zeros((3, 3)), jnp.zeros(()))
    one = _numerics.eigenvalue_limit(jnp.ones((3, 3)), jnp.asarray(3.0))
    assert float(zero) == 0
    assert 3 <= float(one) < 3.0001
    assert np.isnan(_numerics.eigenvalue_limit(jnp.full((3, 3), jnp.nan), jnp.ones(())))


def test_no_kernel_gets_a_batch():
    def both(a, b):
        limit = _numerics.eigenvalue_limit(a @ a, jnp.ones(()))
        return (
            _numerics.eigh(a)[0] + _numerics.eigvalsh(b),
            _numerics.largest_svd(a)[0],
            _numerics.solve(a, b[0]),
            limit,
        )

    def plain(a, b):
        return jnp.linalg.eigh(a)[0] + jnp.linalg.eigvalsh(b)

    def batches(function):
        text = jax.jit(jax.vmap(function)).lower(SYMMETRIC, SYMMETRIC).compile().as_text()
        calls = [line for line in text.splitlines() if "custom-call(" in line and "lapack" in line]
        return len(calls), any(re.search(r"f32\[3,4,4\]", line) for line in calls)

    count, batched = batches(both)
    assert count >= 5
    assert not batched
    # What the search would find.
    assert batches(plain)[1]
