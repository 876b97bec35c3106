"""The label constraint of all classes, against closed forms and searches over what the constraints leave."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial
from oracles import assert_of_exhausted_run, symmetric
from scipy.optimize import minimize

import jaxattr as ja

KEY = jax.random.key(3)
EPSILON = 0.1
SALIENCY = ja.attributions.saliency()
SIZE, COMPETITORS = 5, 4
TRACES = []


def _logits(parameters, x):
    TRACES.append(None)
    matrix, shared, normals, margins, height = parameters
    z = x.ravel() - 0.5
    # The shared slope keeps the attribution from vanishing and changes no difference of logits.
    return jnp.append(z @ matrix @ z / 2, normals @ z - margins) + shared @ z + height


def model(matrix, normals, margins, dtype=jnp.float32, scale=1.0):
    """J = A at x = 1/2, and competitor k takes over label 0 where ``<normals[k], delta> >= margins[k]``."""
    parameters = (matrix, np.ones(len(matrix)), normals, margins, 0.0)
    return Partial(_logits, tuple(jnp.asarray(scale * np.asarray(each), dtype) for each in parameters))


def center(size=SIZE, dtype=jnp.float32):
    return jnp.full(size, 0.5, dtype)


def jitted(ball, **options):
    """One program for all models of a shape and all radii."""

    def run(logits_fn, x, label, key, epsilon):
        return ja.bounds.label_constrained(SALIENCY, ball(epsilon), **options)(logits_fn, x, label, key)

    return jax.jit(run)


L2 = {method: jitted(ja.L2, method=method) for method in ("products", "dense")}
LINF = {method: jitted(ja.LInf, method=method) for method in ("products", "dense")}
both = pytest.mark.parametrize("method", ["products", "dense"])


def filled(rows, margins):
    """As many competitors as everywhere, the last ones out of reach."""
    rows, missing = np.asarray(rows, float), COMPETITORS - len(rows)
    return np.vstack([rows, np.eye(missing, SIZE)]), np.append(margins, np.full(missing, 10.0))


def random_problem(seed, ball):
    """J with one large direction, which two of the competitors exclude; the others stand anywhere."""
    rng = np.random.default_rng(seed)
    basis = np.linalg.qr(rng.normal(size=(SIZE, SIZE)))[0]
    values = np.sort(rng.uniform(0.1, 1, SIZE))[::-1] * rng.choice([-1, 1], SIZE)
    matrix = (basis * values) @ basis.T
    far = basis[:, 0] if ball is ja.L2 else np.sign(basis[:, 0]) / np.sqrt(SIZE)
    normals = rng.normal(size=(COMPETITORS, SIZE))
    normals[0] += 2 * far
    normals[1] -= 2 * far
    reach = np.linalg.norm(normals, axis=1) if ball is ja.L2 else np.abs(normals).sum(axis=1)
    return matrix, normals, EPSILON * rng.uniform(0.15, 0.7, COMPETITORS) * reach


def searched(matrix, normals, margins, starts=12):
    """The largest ``||J delta||`` that SciPy's SLSQP finds in the Euclidean ball and the half-spaces."""
    rng, gram, limits = np.random.default_rng(0), matrix.T @ matrix, margins / EPSILON
    constraints = [
        {"type": "ineq", "fun": lambda y: limits - normals @ y, "jac": lambda _: -normals},
        {"type": "ineq", "fun": lambda y: 1 - y @ y, "jac": lambda y: -2 * y},
    ]
    best = 0.0
    for _ in range(starts):
        start = 0.1 * rng.normal(size=len(matrix))
        found = minimize(
            lambda y: -y @ gram @ y, start, jac=lambda y: -2 * gram @ y, method="SLSQP", constraints=constraints
        ).x
        # Feasible to the last bit: scaled back into the ball and the half-spaces.
        beyond = max(1, np.linalg.norm(found), (normals @ found / limits).max())
        best = max(best, float(np.linalg.norm(matrix @ found) / beyond))
    return EPSILON * best


def at_vertices(matrix, normals, margins):
    """The largest ``||J delta||`` at any vertex of cube and half-spaces: a convex function is largest there."""
    size = len(matrix)
    rows = np.vstack([np.eye(size), -np.eye(size), normals])
    limits = np.append(np.ones(2 * size), margins / EPSILON)
    chosen = np.array(list(itertools.combinations(range(len(rows)), size)))
    systems = rows[chosen]
    regular = np.abs(np.linalg.det(systems)) > 1e-9
    points = np.linalg.solve(systems[regular], limits[chosen[regular]][..., None])[..., 0]
    points = points[(points @ rows.T <= limits + 1e-9).all(axis=1)]
    return EPSILON * float(np.linalg.norm(points @ matrix.T, axis=1).max())


def assert_consistent(found, matrix, normals, margins, ball):
    """The final bound is no larger than the other, and its direction is allowed and reaches what it says."""
    bound, without = found.bound, found.unconstrained
    assert float(bound.euclidean) <= float(without.euclidean)
    assert float(bound.euclidean_attained) <= float(bound.euclidean)
    assert float(bound.euclidean) == pytest.approx(EPSILON * float(bound.slope), rel=1e-6)
    cosine, degrees, vacuous = ja.bounds.cosine_from_euclidean(bound.euclidean, bound.attribution_norm)
    assert (float(bound.cosine), float(bound.degrees), bool(bound.vacuous)) == (cosine, degrees, vacuous)
    assert bound.methods == (*without.methods, "label_constrained")
    assert not bound.two_sided
    direction = np.asarray(bound.direction, np.float64)
    reached = EPSILON * np.linalg.norm(matrix @ direction)
    assert float(bound.euclidean_attained) == pytest.approx(reached, rel=1e-4)
    assert float(ball(1.0).norm(jnp.asarray(direction))) <= 1 + 1e-6
    step = EPSILON * np.asarray(without.direction, np.float64)
    plus, minus = bool((normals @ step < margins).all()), bool((-normals @ step < margins).all())
    assert (bool(found.keeps_plus), bool(found.keeps_minus)) == (plus, minus)
    assert bool(found.both_excluded) == (not plus and not minus)
    assert (EPSILON * normals @ direction < margins).all()


# Closed forms


@both
@pytest.mark.parametrize(("right", "left"), [(0.3, 0.3), (0.6, 0.2), (0.05, 0.9), (0.5, 0.001)])
def test_a_slab_in_closed_form(method, right, left):
    # J = diag(2, 1, ...) and -left <= y_1 <= right: the best point has y_1 at the further side, the rest along y_2.
    matrix = np.diag([2, 1, 0.9, 0.3, 0.1])
    normals, margins = filled([[3, 0, 0, 0, 0], [-1, 0, 0, 0, 0]], EPSILON * np.array([3 * right, left]))
    found = L2[method](model(matrix, normals, margins), center(), 0, KEY, EPSILON)
    side = max(right, left)
    truth = EPSILON * np.sqrt(4 * side**2 + 1 - side**2)
    assert bool(found.both_excluded)
    assert float(found.unconstrained.euclidean) == pytest.approx(2 * EPSILON, rel=1e-4)
    assert truth * (1 - 1e-6) <= float(found.bound.euclidean) <= truth * 1.002
    assert float(found.bound.euclidean_attained) >= truth * 0.995
    assert found.bound.methods[int(found.bound.active)] == "label_constrained"
    assert_consistent(found, matrix, normals, margins, ja.L2)


@both
def test_the_cube_cut_by_a_slab(method):
    # J = I and |sum(y)| <= 1 in the cube of five features: two pairs of opposite signs and a fifth coordinate of 1,
    # which is allowed, so that the constraint takes nothing off. With J = ones ones^T it is all that counts.
    ones = np.ones((2, SIZE)) * np.array([[1], [-1]])
    normals, margins = filled(ones, EPSILON * np.ones(2))
    run = LINF[method]
    found = run(model(np.eye(SIZE), normals, margins), center(), 0, KEY, EPSILON)
    assert float(found.bound.euclidean) >= EPSILON * np.sqrt(SIZE) * (1 - 1e-6)
    found = run(model(np.ones((SIZE, SIZE)), normals, margins), center(), 0, KEY, EPSILON)
    if method == "dense":
        assert float(found.unconstrained.euclidean) == pytest.approx(EPSILON * SIZE * np.sqrt(SIZE), rel=1e-5)
    else:
        assert_of_exhausted_run(found.unconstrained.euclidean, EPSILON * SIZE * np.sqrt(SIZE), SIZE)
    truth = EPSILON * np.sqrt(SIZE)
    assert truth <= float(found.bound.euclidean) <= truth * 1.02
    assert_consistent(found, np.ones((SIZE, SIZE)), normals, margins, ja.LInf)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_no_key_is_below_the_truth_where_everything_cancels(dtype):
    # J = ones ones^T and the slab |sum(y)| <= 1: half-spaces take off all of P, and what is left is the rounding of
    # terms of size one, divided by a weight that is as small.
    normals, margins = filled(np.ones((2, SIZE)) * np.array([[1], [-1]]), EPSILON * np.ones(2))
    with jax.enable_x64(dtype == jnp.float64):
        problem, x = model(np.ones((SIZE, SIZE)), normals, margins, dtype), center(dtype=dtype)
        keys = jax.random.split(jax.random.key(0), 300)
        found = [LINF["products"](problem, x, 0, key, EPSILON).bound for key in keys]
        values = np.array([[each.euclidean, each.euclidean_attained] for each in found], np.float64)
    assert found[0].euclidean.dtype == dtype
    # The margins are those of the dtype.
    truth = float(np.dtype(dtype).type(EPSILON)) * np.sqrt(SIZE)
    assert values[:, 0].min() >= truth
    # Not more than the slack that is stated for it.
    assert values[:, 0].max() <= truth * (1.01 if dtype == jnp.float32 else 1.001)
    # What is attained is a value of its own, next to the truth whatever the bound is.
    assert values[:, 1].min() >= truth * 0.999
    assert values[:, 1].max() <= truth * (1 + 1e-6)


# Searches


@both
def test_random_problems_against_a_search(method):
    excess, reached = [], []
    for seed in range(10):
        problem = random_problem(seed, ja.L2)
        found = L2[method](model(*problem), center(), 0, KEY, EPSILON)
        assert_consistent(found, *problem, ja.L2)
        truth = searched(*problem)
        assert float(found.bound.euclidean) >= truth * (1 - 2e-6), seed
        if bool(found.both_excluded):
            assert float(found.bound.euclidean) < float(found.unconstrained.euclidean), seed
            excess.append(float(found.bound.euclidean) / truth - 1)
            reached.append(float(found.bound.euclidean_attained) / truth)
    assert len(excess) >= 7
    assert np.median(excess) < 1e-3
    assert max(excess) < 0.05
    assert min(reached) > 0.99


@both
def test_cubes_against_all_vertices(method):
    gained, reached = [], []
    for seed in range(10):
        problem = random_problem(seed, ja.LInf)
        found = LINF[method](model(*problem), center(), 0, KEY, EPSILON)
        assert_consistent(found, *problem, ja.LInf)
        truth = at_vertices(*problem)
        assert float(found.bound.euclidean) >= truth * (1 - 2e-6), seed
        if bool(found.both_excluded):
            gained.append(1 - float(found.bound.euclidean / found.unconstrained.euclidean))
            reached.append(float(found.bound.euclidean_attained) / truth)
    assert len(gained) >= 5
    assert max(gained) > 0.05
    # By products, the cube is only known by the ball around it.
    assert method == "products" or np.median(reached) > 0.99


def test_a_few_lanczos_steps_and_a_jacobian_that_is_not_symmetric():
    # 20 features and 5 steps: neither the Krylov space nor the last eigenvalue has converged.
    attribute, size = ja.attributions.input_x_gradient(), 20
    rng = np.random.default_rng(0)
    x, matrix = rng.uniform(0.2, 0.8, size), symmetric(1, size)
    J = np.diag(matrix @ (x - 0.5) + 1) + x[:, None] * matrix
    top = np.linalg.svd(J)[2][0]
    normals = rng.normal(size=(COMPETITORS, size))
    normals[0] += 8 * top
    normals[1] -= 8 * top
    # Of label 0 at x, where the rows of the region are less the gradient of its own logit.
    own, z = matrix @ (x - 0.5), x - 0.5
    margins = EPSILON * np.array([2.0, 3.0, 4.0, 4.0])
    logits_fn = model(matrix, normals + own, margins + (normals + own) @ z - z @ matrix @ z / 2)
    truth = searched(J, normals, margins, starts=2)

    def run(key):
        bound = ja.bounds.label_constrained(attribute, ja.L2(EPSILON), num_steps=5)
        return bound(logits_fn, jnp.asarray(x, jnp.float32), 0, key)

    found = jax.jit(jax.vmap(run))(jax.random.split(KEY, 30))
    # The base's direction has not converged either, and keeps the label for a few of the keys.
    assert float(found.both_excluded.mean()) > 0.9
    # What any key attains is allowed, so that no other key's bound is below it.
    allowed = np.asarray(found.bound.direction, np.float64)[np.asarray(found.both_excluded)]
    assert (EPSILON * allowed @ normals.T <= margins * (1 + 1e-4)).all()
    truth = max(truth, EPSILON * np.linalg.norm(allowed @ J.T, axis=1).max())
    assert (np.asarray(found.bound.euclidean) >= truth * (1 - 1e-5)).all()
    assert float(jnp.median(found.bound.euclidean)) < float(jnp.median(found.unconstrained.euclidean))


# Where there is nothing to gain


@both
def test_one_sign_that_keeps_the_label_leaves_the_bound_as_it_is(method):
    matrix = np.diag([2, 1, 0.9, 0.3, 0.1])
    normals, margins = filled([[3, 0, 0, 0, 0], [3, 1, 0, 0, 0]], EPSILON * np.array([0.2, 0.1]))
    found = L2[method](model(matrix, normals, margins), center(), 0, KEY, EPSILON)
    assert bool(found.keeps_plus) != bool(found.keeps_minus)
    assert not bool(found.both_excluded)
    for name in ("euclidean", "euclidean_attained", "degrees", "slope", "active"):
        assert float(getattr(found.bound, name)) == float(getattr(found.unconstrained, name))
    sign = 1 if bool(found.keeps_plus) else -1
    np.testing.assert_array_equal(found.bound.direction, sign * found.unconstrained.direction)


@both
def test_a_misclassified_sample_and_a_radius_of_zero(method):
    matrix, normals, margins = random_problem(0, ja.L2)
    excluded = L2[method](model(matrix, normals, margins), center(), 0, KEY, EPSILON)
    assert bool(excluded.both_excluded)
    wrong = L2[method](model(matrix, normals, np.append(margins[:-1], -0.01)), center(), 0, KEY, EPSILON)
    zero = L2[method](model(matrix, normals, margins), center(), 0, KEY, 0.0)
    for found in (wrong, zero):
        assert not bool(found.both_excluded)
        assert float(found.bound.euclidean) == float(found.unconstrained.euclidean)
        assert float(found.bound.slope) == float(found.unconstrained.slope) > 0
    assert bool(zero.keeps_plus & zero.keeps_minus)
    assert float(zero.bound.euclidean) == 0


def test_an_attribution_that_does_not_move():
    problem = random_problem(0, ja.L2)
    found = L2["products"](model(np.zeros((SIZE, SIZE)), *problem[1:]), center(), 0, KEY, EPSILON)
    assert float(found.bound.euclidean) == float(found.bound.euclidean_attained) == 0
    assert np.isfinite(found.bound.direction).all()


@both
def test_nan_is_not_hidden(method):
    matrix, normals, margins = random_problem(0, ja.L2)
    matrix[1, 2] = np.nan
    found = L2[method](model(matrix, normals, margins), center().at[1].set(jnp.nan), 0, KEY, EPSILON)
    assert np.isnan(found.bound.euclidean)
    assert np.isnan(found.bound.direction).all()
    assert bool(found.bound.vacuous)
    assert not bool(found.both_excluded)


# Numbers and transformations


@pytest.mark.parametrize("scale", [1e-18, 1e15])
def test_extreme_scales(scale):
    problem = random_problem(1, ja.L2)
    one, other = (L2["products"](model(*problem, scale=each), center(), 0, KEY, EPSILON) for each in (1, scale))
    assert bool(other.both_excluded)
    for name in ("slope", "euclidean_attained"):
        ratio = float(getattr(other.bound, name)) / float(getattr(one.bound, name))
        assert ratio == pytest.approx(scale, rel=2e-3), name


def test_float32_agrees_with_float64():
    method, problem = "dense", random_problem(2, ja.L2)
    single = L2[method](model(*problem), center(), 0, KEY, EPSILON)
    with jax.enable_x64(True):
        double = L2[method](model(*problem, jnp.float64), center(dtype=jnp.float64), 0, KEY, EPSILON)
        assert double.bound.euclidean.dtype == jnp.float64
    assert single.bound.euclidean.dtype == jnp.float32
    assert float(single.bound.euclidean) == pytest.approx(float(double.bound.euclidean), rel=2e-4)
    assert float(double.bound.euclidean) >= searched(*problem) * (1 - 1e-9)


def test_batches_radii_and_weights_share_one_trace():
    run, problems = L2["dense"], [random_problem(seed, ja.L2) for seed in range(3)]
    run(model(*problems[0]), center(), 0, KEY, EPSILON)
    traced = len(TRACES)
    singles = [run(model(*problem), center(), 0, KEY, EPSILON * (1 + i)) for i, problem in enumerate(problems)]
    assert len(TRACES) == traced
    models = jax.tree.map(lambda *leaves: jnp.stack(leaves), *[model(*problem) for problem in problems])
    batched = jax.vmap(run, in_axes=(0, None, None, None, 0))(models, center(), 0, KEY, EPSILON * jnp.arange(1.0, 4.0))
    for i, single in enumerate(singles):
        one = jax.tree.map(lambda leaf, i=i: leaf[i], batched)
        # Where the lower value is reached is up to rounding.
        for name in ("bound", "unconstrained"):
            np.testing.assert_allclose(getattr(one, name).euclidean, getattr(single, name).euclidean, rtol=1e-4)
        np.testing.assert_array_equal(one[2:], single[2:])


def test_confidence_products_and_images():
    logits_fn, x = model(*random_problem(0, ja.L2)), center()
    found = L2["products"](logits_fn, x, 0, KEY, EPSILON)
    assert float(found.unconstrained.confidence) == pytest.approx(0.999)
    assert float(found.bound.confidence) == pytest.approx(0.998, abs=1e-6)
    # Beside the base: 5 for the Krylov space, 5 in its span, two each for 6 steps and a quotient, 3 directions.
    own = int(found.bound.products - found.unconstrained.products)
    assert own == 5 + 5 + 2 * 7 + 3
    # Two gradients of the map each.
    method, base = (
        bound(SALIENCY, ja.L2(EPSILON)) for bound in (ja.bounds.label_constrained, ja.bounds.singular_value)
    )
    assert method.gradients(SIZE) - base.gradients(SIZE) == 2 * own
    assert float(L2["dense"](logits_fn, x, 0, KEY, EPSILON).bound.confidence) == 1
    image = jax.eval_shape(L2["products"], logits_fn, x.reshape(5, 1), 0, KEY, EPSILON)
    assert image.bound.direction.shape == (5, 1)


def test_derivatives_are_finite_and_those_of_the_value():
    matrix, normals, margins = random_problem(1, ja.L2)

    def value(scale):
        parameters = (scale * jnp.asarray(matrix), jnp.ones(SIZE), jnp.asarray(normals), jnp.asarray(margins), 0.0)
        logits_fn = Partial(_logits, parameters)
        bound = ja.bounds.label_constrained(SALIENCY, ja.L2(EPSILON), method="dense")
        return bound(logits_fn, center(), 0, KEY).bound.euclidean

    found, slope = jax.jit(jax.value_and_grad(value))(1.0)
    # Proportional to J.
    assert float(slope) == pytest.approx(float(found), rel=1e-3)


# Another base, and wrong usage


def test_another_base_and_fewer_competitors():
    problem, ball = random_problem(3, ja.LInf), ja.LInf(EPSILON)
    base = ja.bounds.entrywise(SALIENCY, ball)
    bound = ja.bounds.label_constrained(SALIENCY, ball, base=base, method="dense", competitors=2)
    found = jax.jit(bound)(model(*problem), center(), 0, KEY)
    alone = EPSILON * np.sqrt(np.abs(problem[0] @ problem[0]).sum())
    assert float(found.unconstrained.euclidean) == pytest.approx(alone, rel=1e-5)
    assert found.bound.methods == ("entrywise", "label_constrained")
    assert bool(found.both_excluded)
    assert at_vertices(*problem) <= float(found.bound.euclidean) * (1 + 2e-6)
    assert float(found.bound.euclidean) <= float(found.unconstrained.euclidean)
    every = LINF["dense"](model(*problem), center(), 0, KEY, EPSILON)
    assert float(every.bound.euclidean) <= float(found.bound.euclidean) * (1 + 1e-3)


def test_the_opposite_direction_does_not_count_where_the_box_forbids_it():
    ball = ja.LInf(EPSILON)
    base = ja.bounds.entrywise(SALIENCY, ball, within_box=True)
    bound = ja.bounds.label_constrained(SALIENCY, ball, base=base, method="dense")
    found = jax.eval_shape(bound, model(*random_problem(3, ja.LInf)), center(), 0, KEY)
    assert not found.unconstrained.two_sided


def test_bases_that_do_not_fit_are_refused():
    ball = ja.L2(0.1)
    with pytest.raises(ValueError, match=r"`base` must be a bound over the same ball L2\(0.1.*got one over L2\(0.2"):
        ja.bounds.label_constrained(SALIENCY, ball, base=ja.bounds.singular_value(SALIENCY, ja.L2(0.2)))
    corrected = ja.bounds.corrected(ja.bounds.singular_value(SALIENCY, ball), SALIENCY)
    bound = ja.bounds.label_constrained(SALIENCY, ball, base=corrected)
    with pytest.raises(
        TypeError, match=r"`base` of `label_constrained` must return a DeviationBound.*returned CorrectedBound"
    ):
        jax.eval_shape(bound, model(*random_problem(0, ja.L2)), center(), 0, KEY)
    with pytest.raises(TypeError, match="`ball` must be"):
        ja.bounds.label_constrained(SALIENCY, 0.1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "lanczos"}, "`method` must be one of 'products', 'dense'; got 'lanczos'"),
        ({"num_steps": 0}, "`num_steps` must be at least 1"),
        ({"newton_steps": 0}, "`newton_steps` must be at least 1"),
        ({"competitors": 0}, "`competitors` must be at least 1"),
        ({"chunk": 0}, "`chunk` must be at least 1"),
        ({"confidence": 1.0}, "`confidence` must lie strictly between 0 and 1"),
    ],
)
def test_options_are_checked_when_the_bound_is_built(options, message):
    with pytest.raises(ValueError, match=message):
        ja.bounds.label_constrained(SALIENCY, ja.L2(0.1), **options)
