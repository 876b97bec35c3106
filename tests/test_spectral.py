import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from oracles import with_spectrum

from jaxattr._krylov import golub_kahan, lanczos
from jaxattr._ritz import upper_edge
from jaxattr.spectral import (
    Extreme,
    largest_eigenvalue,
    largest_singular_value,
    overlap_quantile,
)

SIZE, STARTS = 64, 400
SPECTRA = {
    "flat": np.ones(SIZE),
    "geometric": 0.8 ** np.arange(SIZE),
    "linear": np.linspace(1, 0, SIZE),
    "outlier": np.r_[1.2, np.ones(SIZE - 1)],
    "clustered": np.r_[1 - 1e-3 * np.arange(8), np.linspace(0.9, 0, SIZE - 8)],
    "rank_one": np.r_[1.0, np.zeros(SIZE - 1)],
    "zero": np.zeros(SIZE),
    "negative": -(0.8 ** np.arange(SIZE)),
    "both_signs": np.r_[1, -1, np.linspace(-0.95, 0.95, SIZE - 2)],
}


@functools.partial(jax.jit, static_argnames=("symmetric", "num_steps", "confidence"))
def run(matrix, keys, *, symmetric, num_steps, confidence) -> Extreme:
    """One run per key."""

    def one(key):
        return largest_singular_value(
            lambda v: matrix @ v,
            lambda u: matrix.T @ u,
            (matrix.shape[1],),
            key,
            symmetric=symmetric,
            num_steps=num_steps,
            confidence=confidence,
            dtype=matrix.dtype,
        )

    return jax.vmap(one)(keys)


def matrix_of(name, symmetric, scale=1.0):
    matrix = with_spectrum(0, SPECTRA[name])
    if not symmetric:
        matrix = matrix @ np.linalg.qr(np.random.default_rng(1).normal(size=(SIZE, SIZE)))[0]
    return jnp.asarray(scale * matrix, jnp.float32)


def truth_of(matrix):
    return np.linalg.norm(np.asarray(matrix, np.float64), 2)


def most_failures(probability, starts=STARTS):
    """What a binomial of the stated failure probability exceeds once in ten thousand."""
    return scipy.stats.binom.ppf(0.9999, starts, probability)


# Stated confidence of 0.9 and few steps: far from convergence, where a wrong quantile would show.
@pytest.mark.parametrize("num_steps", [3, 12])
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("name", sorted(SPECTRA))
def test_upper_value_holds_at_the_stated_rate(name, symmetric, num_steps):
    matrix = matrix_of(name, symmetric)
    truth = truth_of(matrix)
    keys = jax.random.split(jax.random.key(5), STARTS)
    found = run(matrix, keys, symmetric=symmetric, num_steps=num_steps, confidence=0.9)
    upper, attained = np.asarray(found.upper, np.float64), np.asarray(found.attained, np.float64)
    assert np.sum(upper < truth) <= most_failures(0.1)
    assert np.all(attained <= truth * (1 + 1e-6))
    # What was attained may give an upper value away that failed, and never one that holds.
    assert np.all((upper >= attained) | (upper < truth))
    np.testing.assert_allclose(found.confidence, 0.9)
    directions = np.asarray(found.direction, np.float64)
    np.testing.assert_allclose(np.linalg.norm(directions, axis=1), 1, rtol=1e-5)
    reached = np.linalg.norm(directions @ np.asarray(matrix, np.float64).T, axis=1)
    np.testing.assert_allclose(attained, reached, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("symmetric", [True, False])
def test_upper_value_is_near_when_the_spectrum_allows(symmetric):
    keys = jax.random.split(jax.random.key(6), STARTS)
    # Exhausted spaces may cost rounding over overlap, 2.4e-7 / 8e-5; a spectrum that decays costs nothing.
    for name, slack in (("geometric", 2e-5), ("rank_one", 5e-3), ("flat", 5e-3), ("outlier", 5e-3), ("linear", 0.05)):
        matrix = matrix_of(name, symmetric)
        found = run(matrix, keys, symmetric=symmetric, num_steps=30, confidence=0.999)
        ratio = np.asarray(found.upper, np.float64) / truth_of(matrix)
        assert np.sum(ratio < 1) <= most_failures(1e-3)
        assert np.median(ratio) <= 1 + slack, name


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("gap", [1e-5, 1e-4, 1e-3])
def test_an_outlier_that_the_start_hardly_sees_is_within_the_upper_value(symmetric, gap):
    # A flat spectrum exhausts the Krylov space but for the outlier's share of the start. Where that share is lost in
    # rounding, the run ends as if the spectrum were flat; the upper value must allow for what it could not see.
    matrix = jnp.asarray(np.diag(np.r_[1 + gap, np.ones(SIZE - 1)]), jnp.float32)
    keys = jax.random.split(jax.random.key(5), 4000)
    found = run(matrix, keys, symmetric=symmetric, num_steps=12, confidence=0.999)
    failures = np.sum(np.asarray(found.upper, np.float64) < truth_of(matrix))
    assert failures <= most_failures(1e-3, 4000)


@pytest.mark.parametrize("scale", [1e-22, 1e22])
@pytest.mark.parametrize("symmetric", [True, False])
def test_scale_changes_nothing_but_the_scale(symmetric, scale):
    # Squares of 1e-22 underflow in float32, those of 1e22 overflow.
    keys = jax.random.split(jax.random.key(5), STARTS)
    options = {"symmetric": symmetric, "num_steps": 12, "confidence": 0.9}
    plain = run(matrix_of("geometric", symmetric), keys, **options)
    scaled = run(matrix_of("geometric", symmetric, scale), keys, **options)
    np.testing.assert_allclose(scaled.attained / np.float32(scale), plain.attained, rtol=1e-4)
    np.testing.assert_allclose(scaled.upper / np.float32(scale), plain.upper, rtol=1e-4)


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("size", [1, 2, 5])
def test_more_steps_than_features_are_exact(symmetric, size):
    rng = np.random.default_rng(size)
    values = np.r_[-3.0, rng.normal(size=size - 1)] if symmetric else np.ones(size)
    matrix = with_spectrum(0, values) if symmetric else rng.normal(size=(size, size))
    keys = jax.random.split(jax.random.key(0), 20)
    found = run(jnp.asarray(matrix, jnp.float32), keys, symmetric=symmetric, num_steps=40, confidence=0.999)
    truth = np.linalg.norm(matrix, 2)
    np.testing.assert_allclose(found.attained, truth, rtol=1e-5)
    np.testing.assert_allclose(found.upper, truth, rtol=1e-4)
    assert np.all(np.asarray(found.upper, np.float64) >= truth * (1 - 1e-7))
    assert np.all(np.isfinite(found.residual))


@pytest.mark.parametrize("symmetric", [True, False])
def test_zero_operator_has_a_direction_and_no_nan(symmetric):
    keys = jax.random.split(jax.random.key(0), STARTS)
    found = run(jnp.zeros((SIZE, SIZE)), keys, symmetric=symmetric, num_steps=12, confidence=0.9)
    assert not np.any(found.upper)
    assert not np.any(found.attained)
    assert not np.any(found.residual)
    np.testing.assert_allclose(np.linalg.norm(found.direction, axis=1), 1, rtol=1e-5)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("symmetric", [True, False])
def test_a_product_without_a_number_gives_nan_and_never_a_number(symmetric, bad):
    matrix = matrix_of("geometric", symmetric).at[3, 5].set(bad)
    keys = jax.random.split(jax.random.key(0), STARTS)
    found = run(matrix, keys, symmetric=symmetric, num_steps=12, confidence=0.9)
    assert np.all(np.isnan(found.upper))
    assert np.all(np.isnan(found.attained))
    assert np.all(np.isnan(found.residual))


def test_same_key_same_answer_and_another_key_another():
    matrix, keys = matrix_of("linear", False), jax.random.split(jax.random.key(5), STARTS)
    options = {"symmetric": False, "num_steps": 12, "confidence": 0.9}
    first, again = run(matrix, keys, **options), run(matrix, keys, **options)
    jax.tree.map(np.testing.assert_array_equal, first, again)
    assert len(np.unique(first.attained)) > STARTS / 2


def test_shaped_arguments():
    # The operator of a (2, 3) image: J as a tensor.
    tensor = np.random.default_rng(0).normal(size=(2, 3, 2, 3)).astype(np.float32)
    found = jax.jit(
        lambda key: largest_singular_value(
            lambda v: jnp.tensordot(tensor, v, 2), lambda u: jnp.tensordot(u, tensor, 2), (2, 3), key
        )
    )(jax.random.key(0))
    assert found.direction.shape == (2, 3)
    assert float(found.attained) == pytest.approx(np.linalg.norm(tensor.reshape(6, 6), 2), rel=1e-5)


def test_lanczos_relation_and_orthonormal_basis():
    with jax.enable_x64(True):
        matrix = with_spectrum(3, np.linspace(-1, 2, 20))
        start = np.random.default_rng(0).normal(size=20)
        state = jax.jit(lambda s: lanczos(lambda v: jnp.asarray(matrix) @ v, s, 8))(jnp.asarray(start))
        Q, diagonal, residuals = (np.asarray(leaf) for leaf in (state.basis, state.diagonal, state.residuals))
        np.testing.assert_allclose(Q @ Q.T, np.eye(8), atol=1e-14)
        np.testing.assert_allclose(Q[0], start / np.linalg.norm(start), rtol=1e-13)
        T = np.diag(diagonal) + np.diag(residuals[:-1], 1) + np.diag(residuals[:-1], -1)
        np.testing.assert_allclose(Q @ matrix @ Q.T, T, atol=1e-13)
        remainder = matrix @ Q.T - Q.T @ T
        np.testing.assert_allclose(remainder[:, :-1], 0, atol=1e-13)
        assert np.linalg.norm(remainder[:, -1]) == pytest.approx(residuals[-1], rel=1e-12)


@pytest.mark.parametrize(("size", "probability"), [(2, 0.3), (3, 0.1), (50, 0.5), (784, 0.02)])
def test_overlap_quantile_by_simulation(size, probability):
    draws = np.random.default_rng(0).normal(size=(20000 if size < 100 else 4000, size))
    overlap = np.abs(draws[:, 0]) / np.linalg.norm(draws, axis=1)
    count = np.sum(overlap < overlap_quantile(size, probability))
    low, high = scipy.stats.binom.ppf([1e-4, 1 - 1e-4], len(draws), probability)
    assert low <= count <= high


def test_overlap_quantile_in_closed_form():
    assert overlap_quantile(1, 0.001) == 1.0
    # On a circle the angle is uniform, on a sphere the coordinate is (Archimedes).
    assert overlap_quantile(2, 0.001) == pytest.approx(np.sin(np.pi / 2 * 0.001), rel=1e-9)
    assert overlap_quantile(3, 0.001) == pytest.approx(0.001, rel=1e-9)


def polynomials(diagonal, residuals, t):
    """``p_0(t) ... p_k(t)`` by their three-term recurrence."""
    values = [1.0]
    for j, (alpha, beta) in enumerate(zip(diagonal, residuals, strict=True)):
        before = residuals[j - 1] * values[j - 1] if j else 0.0
        values.append(((t - alpha) * values[j] - before) / beta)
    return np.array(values)


@pytest.mark.parametrize("seed", range(3))
def test_upper_edge_is_the_root(seed):
    with jax.enable_x64(True):
        rng = np.random.default_rng(seed)
        diagonal, residuals = rng.normal(size=7), rng.uniform(0.1, 0.5, size=7)
        ritz, vectors = np.linalg.eigh(np.diag(diagonal) + np.diag(residuals[:-1], 1) + np.diag(residuals[:-1], -1))
        arguments = (jnp.asarray(values) for values in (ritz, vectors[-1], residuals))
        edge = float(upper_edge(*arguments, 1e-6))
        assert edge > ritz.max()
        assert np.sum(polynomials(diagonal, residuals, edge) ** 2) == pytest.approx(1e12, rel=1e-6)


def test_upper_edge_of_one_step_and_of_an_exhausted_space():
    # k = 1: 1 + ((t - theta) / beta)^2 = 1 / delta^2.
    one = upper_edge(jnp.array([2.0]), jnp.array([1.0]), jnp.array([0.25]), 0.5)
    assert float(one) == pytest.approx(2 + 0.25 * np.sqrt(3), rel=1e-5)
    exhausted = upper_edge(jnp.array([2.0, 1.0]), jnp.array([0.6, 0.8]), jnp.array([0.25, 0.0]), 0.5)
    assert float(exhausted) == 2.0


@pytest.mark.slow
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("size", [784, 3072])
def test_rate_and_excess_at_the_sizes_of_images(size, symmetric):
    """Random positive semidefinite operators with the defaults: 40 steps and a confidence of 0.999.

    A start uniform on the sphere meets every orthonormal basis alike, so that diagonal matrices stand for all.
    """
    chunk = 25 if size == 784 else 20
    spectra = ("flat", "geometric", "outlier", "clustered", "rank_one", "zero")

    def values(kind, key):
        position, (a, b) = jnp.arange(size), jax.random.uniform(key, (2,), minval=0.1)
        bulk = 1 - 0.3 * a - (1 - 0.3 * a) * position / size
        return jnp.stack(
            [
                jnp.full(size, 1 + a),
                (0.8 + 0.19 * a) ** position,
                jnp.where(position == 0, 1 + a, 1.0),
                jnp.where(position < 1 + 20 * b, 1 - 1e-3 * a * position, bulk),
                jnp.where(position == 0, a, 0.0),
                jnp.zeros(size),
            ]
        )[kind]

    @jax.jit
    def simulate(kind, keys):
        def one(key):
            for_values, for_start = jax.random.split(key)
            diagonal = values(kind, for_values)
            found = largest_singular_value(
                lambda v: diagonal * v, lambda u: diagonal * u, (size,), for_start, symmetric=symmetric
            )
            return jnp.stack([found.upper, found.attained, jnp.max(diagonal)])

        return jax.vmap(one, out_axes=1)(keys)

    failures = runs = 0
    for kind, name in enumerate(spectra):
        # Many different values take nearly all of the time. Where an outlier, or the rest of a flat spectrum, may hide
        # from the start, runs are short and many.
        count = (75 if size == 784 else 20) if name in ("geometric", "clustered") else (300 if size == 784 else 60)
        runs += count
        keys = jax.random.split(jax.random.key(kind), (count // chunk, chunk))
        upper, attained, truth = np.concatenate([np.asarray(simulate(kind, some), np.float64) for some in keys], axis=1)
        failures += np.sum(upper < truth)
        assert np.all(attained <= truth * (1 + 1e-6)), name
        if name != "zero":
            assert np.median(upper / truth) <= (1.015 if size == 784 else 1.02), name
    assert failures <= most_failures(1e-3, runs)


def test_bidiagonal_relation_and_orthonormal_bases():
    with jax.enable_x64(True):
        rng = np.random.default_rng(3)
        matrix, start = rng.normal(size=(15, 20)), rng.normal(size=20)
        product = jnp.asarray(matrix)
        state = jax.jit(lambda s: golub_kahan(lambda v: product @ v, lambda u: product.T @ u, s, 8))(jnp.asarray(start))
        alpha, beta, V, U = (np.asarray(leaf) for leaf in state[:4])
        np.testing.assert_allclose(V @ V.T, np.eye(8), atol=1e-14)
        np.testing.assert_allclose(U @ U.T, np.eye(8), atol=1e-14)
        B = np.diag(alpha) + np.diag(beta[:-1], 1)
        np.testing.assert_allclose(matrix @ V.T, U.T @ B, atol=1e-13)
        remainder = matrix.T @ U.T - V.T @ B.T
        np.testing.assert_allclose(remainder[:, :-1], 0, atol=1e-13)
        assert np.linalg.norm(remainder[:, -1]) == pytest.approx(beta[-1], rel=1e-12)


def test_an_operator_that_is_not_square():
    matrix = jnp.asarray(np.random.default_rng(0).normal(size=(5, 40)), jnp.float32)
    for operator in (matrix, matrix.T):
        found = jax.jit(
            lambda key, A=operator: largest_singular_value(lambda v: A @ v, lambda u: A.T @ u, A.shape[1:], key)
        )(jax.random.key(0))
        assert float(found.attained) == pytest.approx(truth_of(matrix), rel=1e-5)
        # Rank 5 exhausts the Krylov space: exact up to what rounding may hide from the start.
        assert truth_of(matrix) * (1 - 1e-6) <= float(found.upper) <= 1.003 * truth_of(matrix)


@functools.partial(jax.jit, static_argnames="num_steps")
def rightmost(matrix, keys, *, num_steps) -> Extreme:
    """One run per key."""
    return jax.vmap(
        lambda key: largest_eigenvalue(lambda v: matrix @ v, (SIZE,), key, num_steps=num_steps, confidence=0.9)
    )(keys)


@pytest.mark.parametrize("num_steps", [3, 12])
@pytest.mark.parametrize("name", sorted(SPECTRA))
def test_largest_eigenvalue_at_the_stated_rate(name, num_steps):
    """The rightmost one, also of a negative or indefinite operator."""
    matrix = matrix_of(name, symmetric=True)
    truth = np.linalg.eigvalsh(np.asarray(matrix, np.float64))[-1]
    keys = jax.random.split(jax.random.key(5), STARTS)
    found = rightmost(matrix, keys, num_steps=num_steps)
    upper, attained = np.asarray(found.upper, np.float64), np.asarray(found.attained, np.float64)
    size = np.abs(SPECTRA[name]).max()
    assert np.sum(upper < truth) <= most_failures(0.1)
    assert np.all(attained <= truth + 1e-6 * size)
    assert np.all(upper >= attained)
    directions = np.asarray(found.direction, np.float64)
    quotients = np.einsum("ni,ij,nj->n", directions, np.asarray(matrix, np.float64), directions)
    np.testing.assert_allclose(attained, quotients, rtol=1e-4, atol=1e-6)
    assert np.all(found.products <= num_steps + 1)
    assert np.all(found.products > min(num_steps, 3))


def test_an_exhausted_run_on_a_negative_operator_does_not_report_zero():
    found = jax.jit(lambda key: largest_eigenvalue(lambda v: -2.0 * v, (30,), key))(jax.random.key(0))
    assert float(found.attained) == pytest.approx(-2, rel=1e-5)
    assert -2 <= float(found.upper) <= -1.99


# Diagonals stand for all symmetric matrices, as the start is uniform. What they do to a rule that ends runs: nothing to
# see but the outlier's share of the start; Ritz values that seem to have converged, to a cluster below the largest one;
# the largest at the other end; steps that gain a little each.
ADVERSARIAL = {
    "outlier": np.r_[1.2, np.ones(SIZE - 1)],
    "stagnating": np.r_[1.03, 1 + 1e-3 * np.linspace(-1, 1, 8), np.linspace(0.9, 0, SIZE - 9)],
    "two_clusters": np.r_[1.05, np.linspace(0.99, 1, 31), np.linspace(0, 0.01, 32)],
    "rank_two": np.r_[1.02, 1, np.zeros(SIZE - 2)],
    "other_end": np.r_[-1.03, np.linspace(0.9, 1, 20), np.zeros(SIZE - 21)],
    "ladder": np.r_[1.04, 1.02, 1.0, np.linspace(0.98, -0.98, SIZE - 3)],
}


# All but those of the ladder at a confidence of 0.999 end before. Each look decomposes matrices of this size.
MOST_STEPS = 28


@functools.partial(jax.jit, static_argnames=("kind", "confidence", "tolerance"))
def ended(diagonals, keys, *, kind, confidence, tolerance) -> Extreme:
    """Runs that may end early: for every diagonal one for every key."""
    options = {"confidence": confidence, "tolerance": tolerance, "num_steps": MOST_STEPS}

    def one(diagonal, key):
        if kind == "eigenvalue":
            return largest_eigenvalue(lambda v: diagonal * v, (SIZE,), key, **options)
        symmetric = kind == "symmetric"
        return largest_singular_value(
            lambda v: diagonal * v, lambda u: diagonal * u, (SIZE,), key, symmetric=symmetric, **options
        )

    # One diagonal after the other, so that none waits for the slowest of all.
    return jax.lax.map(lambda diagonal: jax.vmap(lambda key: one(diagonal, key))(keys), diagonals)


@pytest.mark.slow
@pytest.mark.parametrize(("confidence", "tolerance"), [(0.5, 0.1), (0.9, 0.01), (0.999, 0.01)])
@pytest.mark.parametrize("kind", ["symmetric", "general", "eigenvalue"])
def test_runs_that_end_by_the_tolerance_fail_no_more_often_than_stated(kind, confidence, tolerance):
    # The rarer a failure is meant to be, the more starts it takes to see that there are too many.
    starts = 600 if confidence > 0.99 else 400
    keys = jax.random.split(jax.random.key(11), starts)
    diagonals = np.stack(list(ADVERSARIAL.values()))
    options = {"kind": kind, "confidence": confidence}
    found = ended(jnp.asarray(diagonals, jnp.float32), keys, tolerance=tolerance, **options)
    truth = (diagonals if kind == "eigenvalue" else np.abs(diagonals)).max(axis=1, keepdims=True)
    upper, attained = np.asarray(found.upper, np.float64), np.asarray(found.attained, np.float64)
    failures = np.sum(upper < truth * (1 - 1e-7), axis=1)
    assert np.all(failures <= most_failures(1 - confidence, starts)), dict(zip(ADVERSARIAL, failures, strict=True))
    assert np.all(attained <= truth * (1 + 1e-6))
    steps = (np.asarray(found.products) - 1) // (2 if kind == "general" else 1)
    early = steps < MOST_STEPS
    # A measured ||J v|| is above the Ritz value that the rule looks at, so that the ratio is no larger.
    assert np.all(upper[early] <= attained[early] * (1 + tolerance) * (1 + 1e-4))
    # Runs do end; with a tolerance of a tenth the first look or the second is enough for some, with a hundredth not all
    # at the same.
    assert np.mean(early) > 0.5
    assert len(np.unique(steps)) > 2 if tolerance < 0.1 else np.max(steps) < MOST_STEPS


def test_a_tolerance_of_zero_makes_all_steps_and_the_others_agree():
    matrix, keys = matrix_of("linear", False), jax.random.split(jax.random.key(5), 20)

    def one(key, tolerance):
        return largest_singular_value(
            lambda v: matrix @ v, lambda u: matrix.T @ u, (SIZE,), key, num_steps=12, tolerance=tolerance
        )

    every, some, none = (jax.jit(jax.vmap(functools.partial(one, tolerance=t)))(keys) for t in (0.0, 0.5, 1e-9))
    np.testing.assert_array_equal(every.products, 25)
    assert np.all(some.products < 25)
    assert np.all(some.upper >= every.upper)
    # A run that is looked at and never ended is the same run.
    np.testing.assert_array_equal(none.products, 25)
    np.testing.assert_allclose(none.upper, every.upper, rtol=1e-6)


def test_gradient_of_a_run_that_ends_early_is_that_of_the_singular_value():
    matrix = matrix_of("geometric", False)

    def values(matrix):
        found = largest_singular_value(lambda v: matrix @ v, lambda u: matrix.T @ u, (SIZE,), jax.random.key(0))
        return found.attained, found.upper

    u, _, v = np.linalg.svd(np.asarray(matrix, np.float64))
    for gradient in jax.jit(jax.jacrev(values))(matrix):
        np.testing.assert_allclose(gradient, np.outer(u[:, 0], v[0]), atol=2e-2)


@pytest.mark.parametrize("confidence", [0.0, 1.0, -1.0, 2.0])
def test_confidence_must_be_a_probability(confidence):
    with pytest.raises(ValueError, match="confidence"):
        largest_singular_value(lambda v: v, lambda u: u, (2,), jax.random.key(0), confidence=confidence)


def test_tolerance_must_not_be_negative():
    with pytest.raises(ValueError, match="`tolerance` must be a finite number of at least 0"):
        largest_singular_value(lambda v: v, lambda u: u, (2,), jax.random.key(0), tolerance=-0.1)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_sixteen_bits_are_computed_in_thirty_two(dtype):
    matrix = matrix_of("geometric", True)
    found = jax.jit(
        lambda key: largest_singular_value(lambda v: matrix @ v, lambda u: u, (SIZE,), key, symmetric=True, dtype=dtype)
    )(jax.random.key(0))
    assert found.upper.dtype == jnp.float32
    assert truth_of(matrix) <= float(found.upper) <= 1.01 * truth_of(matrix)
