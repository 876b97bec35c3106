"""The semidefinite bound against enumeration, an interior-point solver, and the bounds that it must not exceed."""

import functools
import importlib

import clarabel
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse
import scipy.stats
from oracles import corners, largest_at_corner, network, quadratic, symmetric, with_spectrum

import jaxattr as ja
from jaxattr.bounds import _relaxation
from jaxattr.jacobian import AttributionJacobian

# The package has the constructor under the module's name.
module = importlib.import_module("jaxattr.bounds.semidefinite")

EPSILON = 0.1
KEY = jax.random.key(3)
SALIENCY = ja.attributions.saliency()
IG = ja.attributions.integrated_gradients(4, chunk=2)
X = jnp.asarray([0.1, 0.9, 0.4, 0.0, 1.0, 0.3, 0.7, 0.2], jnp.float32)
# Quicker to compile, and nothing here is timed.
jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


@functools.cache
def program(attribute, options):
    """One for all networks of a shape, samples and radii."""

    def run(logits_fn, x, label, key, epsilon):
        return ja.bounds.semidefinite(attribute, ja.LInf(epsilon), **dict(options))(logits_fn, x, label, key)

    return jit(run)


def bound(attribute=SALIENCY, epsilon=EPSILON, **options):
    """By products and with all steps where nothing else is asked for: with so few features ``dense`` would be taken."""
    options = {"method": "products", "certificate_tolerance": 0.0, **options}
    return functools.partial(program(attribute, tuple(sorted(options.items()))), epsilon=epsilon)


@functools.partial(jit, static_argnames="attribute")
def differentiated(logits_fn, x, *, attribute):
    """J by plain forward mode of the attribution."""
    return jax.jacfwd(lambda z: attribute(logits_fn, z, 1))(x)


@jit
def others(*arguments):
    """Theorem 2 and Corollary 1."""
    ball = ja.LInf(EPSILON)
    theorem_2, corollary_1 = (
        ja.bounds.entrywise(SALIENCY, ball),
        ja.bounds.norm_relaxation(SALIENCY, ball, method="dense"),
    )
    return theorem_2(*arguments).euclidean, corollary_1(*arguments).euclidean


def interior_point(P):
    """``min {sum(u) : diag(u) - P >= 0}`` by Clarabel, which shares nothing with us."""
    n = len(P)
    # Columns of the upper triangle, off-diagonal entries times sqrt(2).
    rows, columns = np.array([(i, j) for j in range(n) for i in range(j + 1)]).T
    weights = np.where(rows == columns, 1, np.sqrt(2))
    diagonal = np.flatnonzero(rows == columns)
    A = scipy.sparse.csc_matrix((-np.ones(n), (diagonal, np.arange(n))), shape=(len(rows), n))
    settings = clarabel.DefaultSettings()
    settings.verbose = False
    nothing = scipy.sparse.csc_matrix((n, n))
    cones = [clarabel.PSDTriangleConeT(n)]
    solver = clarabel.DefaultSolver(nothing, np.ones(n), A, -weights * P[rows, columns], cones, settings)
    solution = solver.solve()
    assert str(solution.status) == "Solved"
    return solution.obj_val


def root_of_rank(seed, size, rank):
    """A symmetric matrix with some eigenvalues that count and some that hardly do."""
    rng = np.random.default_rng(seed)
    return with_spectrum(seed, np.r_[rng.uniform(0.5, 1, rank), rng.uniform(0, 0.05, size - rank)])


@pytest.mark.parametrize(
    ("attribute", "options"),
    [
        (SALIENCY, {}),
        (SALIENCY, {"method": "dense"}),
        (SALIENCY, {"cycles": 3, "rank": 8}),
        (IG, {}),
        (IG, {"method": "dense"}),
    ],
    ids=str,
)
def test_no_corner_is_beyond_and_none_better_is_claimed(attribute, options):
    """Networks in float32 against all corners of their Jacobian in float64."""
    for seed in range(4):
        with jax.enable_x64(True):
            J = np.asarray(differentiated(network(seed, (8, 12, 3)), X.astype(float), attribute=attribute))
        found = bound(attribute, **options)(network(seed, (8, 12, 3)), X, 1, KEY)
        truth = EPSILON * largest_at_corner(J)
        assert float(found.euclidean) >= truth * (1 - 5e-6)
        assert float(found.euclidean) <= 1.2534 * truth
        reached = EPSILON * np.linalg.norm(J @ np.asarray(found.direction, float))
        assert float(found.euclidean_attained) == pytest.approx(reached, rel=1e-4)
        assert float(found.euclidean_attained) <= truth * (1 + 1e-5)
        np.testing.assert_array_equal(np.abs(found.direction), 1)


@pytest.mark.parametrize("rank", [1, 2, 4, 14])
def test_within_nesterovs_constant_of_the_truth_and_never_above_the_other_bounds(rank):
    for seed in range(8):
        root = root_of_rank(seed, 14, rank)
        arguments = (quadratic(root), jnp.full(14, 0.5), 0, KEY)
        truth = EPSILON * largest_at_corner(root)
        converged = float(bound(method="dense")(*arguments).euclidean)
        assert truth * (1 - 1e-5) <= converged <= np.sqrt(np.pi / 2) * truth
        included = float(bound(include=("norm_relaxation", "entrywise"), rounds=1)(*arguments).euclidean)
        assert included >= truth * (1 - 1e-5)
        theorem_2, corollary_1 = map(float, others(*arguments))
        assert converged <= min(theorem_2, corollary_1) * (1 + 1e-5)
        assert included <= theorem_2 * (1 + 1e-5)
        # The certificate of products has the excess of a confidence, here where the Krylov space is exhausted.
        assert included <= corollary_1 * (1 + 6e-3)


@pytest.mark.parametrize("size", [5, 40])
def test_agrees_with_an_interior_point_solver(size):
    for seed in range(3):
        root = symmetric(seed, size) if seed else root_of_rank(seed, size, 3)
        optimum = EPSILON * np.sqrt(interior_point(root @ root))
        arguments = (quadratic(root), jnp.full(size, 0.5), 0, KEY)
        for options in ({"method": "dense", "rounds": 200}, {"rank": 8, "rounds": 60}):
            found = float(bound(**options)(*arguments).euclidean)
            assert optimum * (1 - 1e-5) <= found <= 1.01 * optimum


def test_the_box_against_all_corners_of_it_and_against_the_solver():
    # One ball that the box cuts deeply: intervals of every kind, with pixels at both ends.
    epsilon = 0.6
    ball = ja.LInf(epsilon)
    lower, upper = (np.asarray(limit, float) for limit in ball.interval(X))
    for seed in range(3):
        A = symmetric(seed, 8)
        arguments = (quadratic(A, np.ones(8)), X, 0, KEY)
        deltas = np.where(corners(8) > 0, upper, lower)
        truth = np.linalg.norm(deltas @ A, axis=1).max()
        B = np.column_stack([A * ((upper - lower) / 2), A @ ((upper + lower) / 2)])
        optimum = np.sqrt(interior_point(B.T @ B))
        plain = bound(epsilon=epsilon, method="dense")(*arguments)
        for options in ({"method": "dense"}, {"rank": 8, "rounds": 30}):
            found = bound(epsilon=epsilon, within_box=True, **options)(*arguments)
            assert truth * (1 - 1e-5) <= float(found.euclidean) <= 1.01 * optimum
            assert float(found.euclidean) <= float(plain.euclidean) * (1 + 6e-3)
            step = epsilon * np.asarray(found.direction, float)
            assert np.all(step <= upper + 1e-6)
            assert np.all(step >= lower - 1e-6)
            assert float(found.euclidean_attained) == pytest.approx(np.linalg.norm(A @ step), rel=1e-4)
            assert not found.two_sided


def counting(matrix, counted):
    """The Jacobian of a quadratic that counts its products as they are made."""

    def product(v):
        jax.debug.callback(lambda _: counted.append(1), v[0])
        return matrix @ v

    return AttributionJacobian(jnp.ones(len(matrix)), product, product, symmetric=True)


@pytest.mark.parametrize(
    "options",
    [{}, {"cycles": 3}, {"cycles": 3, "tolerance": 1.0}, {"include": ("norm_relaxation",)}, {"chunk": 1}],
    ids=str,
)
def test_products_are_what_was_made(monkeypatch, options):
    counted = []
    matrix = jnp.asarray(symmetric(0, 30), jnp.float32)
    monkeypatch.setattr(module, "attribution_jacobian", lambda *_, **__: counting(matrix, counted))
    method = ja.bounds.semidefinite(SALIENCY, ja.LInf(EPSILON), method="products", num_steps=7, **options)
    found = jit(method)(quadratic(np.eye(30)), jnp.full(30, 0.5), 0, KEY)
    jax.effects_barrier()
    assert int(found.products) == len(counted)
    each = 2 * 4 * (8 + 2 + 1) + 14
    cycles = 3 if options == {"cycles": 3} else 1
    assert int(found.products) == cycles * each + (14 if "include" in options else 0) + 2
    # Two gradients of the map each; the stated cost is that of all cycles.
    stated = method.gradients(30)
    assert stated == 2 * int(found.products) or ("tolerance" in options and stated > 2 * int(found.products))


def test_more_cycles_are_never_worse_and_the_confidence_is_shared():
    arguments = (quadratic(symmetric(5, 40)), jnp.full(40, 0.5), 0, KEY)
    one, four = (bound(cycles=cycles, rank=2, rounds=2)(*arguments) for cycles in (1, 4))
    assert float(four.euclidean_attained) >= float(one.euclidean_attained) * (1 - 1e-6)
    # Each of four certificates is a little more careful than one alone.
    assert float(four.euclidean) <= float(one.euclidean) * 1.005
    assert float(one.confidence) == float(four.confidence) == pytest.approx(0.999)


def test_the_way_is_chosen_by_cost_and_said_in_the_result():
    """By products: 2 * rank * (rounds + corner_steps + 1) + 2 * num_steps + 2; by the matrix: one for each feature."""

    def way(size, **options):
        arguments = (quadratic(np.eye(size)), jnp.full(size, 0.5), 0, KEY)
        found = jax.eval_shape(ja.bounds.semidefinite(SALIENCY, ja.LInf(EPSILON), **options), *arguments)
        return found.methods

    few = {"rank": 1, "rounds": 1, "corner_steps": 1, "num_steps": 1}
    assert way(10, **few) == ("semidefinite_dense",)
    assert way(11, **few) == ("semidefinite",)
    assert way(11, **few, include=("entrywise",)) == ("semidefinite_dense",)
    assert way(170) == ("semidefinite_dense",)
    assert way(171) == ("semidefinite",)
    assert way(8, method="products") == ("semidefinite",)
    assert way(171, method="dense") == ("semidefinite_dense",)
    costs = [ja.bounds.semidefinite(IG, ja.LInf(EPSILON)).gradients(size) for size in (10, 170, 171, 1000)]
    assert costs == [4 * 2 * products for products in (10, 170, 170, 170)]


def test_by_default_never_above_theorem_2_nor_corollary_1_with_few_features():
    size, count = 8, 300
    rng = np.random.default_rng(0)
    roots = rng.normal(size=(count, size, size)) * rng.integers(0, 2, size=(count, size, size))
    roots = jnp.asarray(roots + roots.swapaxes(1, 2), jnp.float32)
    ball = ja.LInf(EPSILON)
    methods = (
        ja.bounds.semidefinite(SALIENCY, ball),
        ja.bounds.entrywise(SALIENCY, ball),
        ja.bounds.norm_relaxation(SALIENCY, ball, method="dense"),
    )

    def one(root, key):
        def logits_fn(x):
            return jnp.stack([x @ root @ x / 2, 0.0])

        x = jnp.full(size, 0.5)
        return [(r.euclidean, r.euclidean_attained) for r in (method(logits_fn, x, 0, key) for method in methods)]

    found = jit(jax.vmap(one))(roots, jax.random.split(KEY, count))
    (ours, attained), *others = ((np.asarray(a, float), np.asarray(b, float)) for a, b in found)
    assert np.all(attained <= ours)
    for other, reached in others:
        assert np.all(ours <= other * (1 + 1e-5))
        assert np.all(reached <= other)


def test_a_certificate_that_ends_early_costs_fewer_products_and_at_most_its_tolerance():
    arguments = (quadratic(with_spectrum(0, 0.7 ** np.arange(40))), jnp.full(40, 0.5), 0, KEY)
    options = {"cycles": 1, "rank": 2, "rounds": 2}
    every, some = (bound(certificate_tolerance=tolerance, **options)(*arguments) for tolerance in (0.0, 0.05))
    assert int(some.products) < int(every.products)
    assert float(every.euclidean) <= float(some.euclidean) <= 1.05 * float(every.euclidean)


def test_certificates_hold_at_the_stated_rate():
    """Few steps and a low confidence, far from convergence, where a wrong weighting would show."""
    size, starts = 64, 400
    rng = np.random.default_rng(0)
    J, weights = rng.normal(size=(size, size)), rng.uniform(0.1, 2, size)
    matrix = jnp.asarray(J, jnp.float32)
    operator = _relaxation.of_products(lambda v: matrix @ v, lambda u: matrix.T @ u, 3, 0.9)
    keys = jax.random.split(KEY, starts)
    upper = jit(jax.vmap(lambda key: operator.certify(jnp.asarray(weights, jnp.float32), key)[0]))(keys)
    truth = np.linalg.norm(J / np.sqrt(weights), 2)
    assert np.sum(np.asarray(upper, float) < truth) <= scipy.stats.binom.ppf(0.9999, starts, 0.1)


@pytest.mark.parametrize("scale", [1e-22, 1e18])
@pytest.mark.parametrize("options", [{}, {"method": "dense"}], ids=str)
def test_extreme_scales_change_nothing_but_the_scale(scale, options):
    A, b = symmetric(0, 8), np.arange(8) - 3.0
    plain, scaled = (bound(**options)(quadratic(s * A, s * b), X, 0, KEY) for s in (1.0, scale))
    np.testing.assert_allclose(scaled.euclidean / np.float32(scale), plain.euclidean, rtol=1e-3)
    np.testing.assert_allclose(scaled.euclidean_attained / np.float32(scale), plain.euclidean_attained, rtol=1e-3)


@pytest.mark.parametrize("options", [{}, {"method": "dense"}, {"within_box": True, "rank": 8, "rounds": 30}], ids=str)
def test_a_linear_model_does_not_move_and_nan_is_not_hidden(options):
    still = bound(**options)(quadratic(np.zeros((8, 8)), np.arange(8) - 3.0), X, 0, KEY)
    assert float(still.attribution_norm) > 0
    for value in (still.euclidean, still.euclidean_attained, still.degrees, still.slope):
        assert float(value) == 0
    # Of the sample, which the map depends on and its Jacobian does not; and of the Jacobian.
    matrix = symmetric(0, 8)
    broken = matrix.copy()
    broken[1, 2] = broken[2, 1] = np.nan
    for problem in ((quadratic(matrix), X.at[2].set(jnp.nan)), (quadratic(broken), X)):
        lost = bound(**options)(*problem, 0, KEY)
        assert np.isnan(lost.euclidean)
        assert bool(lost.vacuous)


@pytest.mark.parametrize("options", [{}, {"method": "dense"}, {"cycles": 2}], ids=str)
def test_gradient_is_that_of_the_relaxation(options):
    """By the envelope theorem, at convergence; finite differences re-optimize the dual."""
    with jax.enable_x64(True):
        logits_fn, x = network(0, (8, 12, 3)), X.astype(float)
        options = {"method": "products", "certificate_tolerance": 0.0, **options}
        method = ja.bounds.semidefinite(SALIENCY, ja.LInf(EPSILON, box=None), rank=8, rounds=150, **options)

        def value(x):
            return method(logits_fn, x, 1, KEY).euclidean

        # The same program for the value alone.
        both, h = jit(jax.value_and_grad(value)), 1e-4
        gradient = both(x)[1]
        rng = np.random.default_rng(0)
        for direction in rng.normal(size=(3, 8)):
            slope = float(both(x + h * direction)[0] - both(x - h * direction)[0]) / (2 * h)
            assert float(gradient @ direction) == pytest.approx(slope, rel=2e-2, abs=1e-4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "sdp"}, "`method` must be one of 'products', 'dense'"),
        ({"rank": 0}, "`rank` must be at least 1"),
        ({"rounds": 0}, "`rounds` must be at least 1"),
        ({"cycles": 0}, "`cycles` must be at least 1"),
        ({"corner_steps": 0}, "`corner_steps` must be at least 1"),
        ({"tolerance": -0.1}, "`tolerance` must be a finite number of at least 0"),
        ({"certificate_tolerance": -0.1}, "`certificate_tolerance` must be a finite number of at least 0"),
        ({"confidence": 1.0}, "`confidence` must lie strictly between 0 and 1"),
        ({"include": ("theorem_2",)}, "`include` must be one of 'norm_relaxation', 'entrywise'"),
    ],
)
def test_options_are_checked_when_the_bound_is_built(options, message):
    with pytest.raises(ValueError, match=message):
        ja.bounds.semidefinite(SALIENCY, ja.LInf(EPSILON), **options)


def test_another_ball_and_a_bare_name_are_refused():
    with pytest.raises(TypeError, match="`semidefinite` bounds perturbations of LInf, got L2"):
        ja.bounds.semidefinite(SALIENCY, ja.L2(EPSILON))
    with pytest.raises(TypeError, match=r"For one: `include=\('entrywise',\)`"):
        ja.bounds.semidefinite(SALIENCY, ja.LInf(EPSILON), include="entrywise")
