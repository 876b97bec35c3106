"""Corollary 1, Theorem 2 and the smaller of both, against the corners of the cube."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import assert_of_exhausted_run, largest_at_corner, network, quadratic, symmetric
from units import one_unit

import jaxattr as ja

EPSILON = 0.1
KEY = jax.random.key(3)
SALIENCY = ja.attributions.saliency()
ATTRIBUTIONS = {
    "saliency": SALIENCY,
    "input_x_gradient": ja.attributions.input_x_gradient(),
    "integrated_gradients": ja.attributions.integrated_gradients(4, chunk=2),
}
X = np.array([0.1, 0.9, 0.4, 0.0, 1.0, 0.3, 0.7, 0.2])
BALL = ja.LInf(EPSILON)


def all_bounds(attribute, ball=BALL):
    """Both bounds and their minimum, in one trace."""
    each = {
        "norm_relaxation": ja.bounds.norm_relaxation(attribute, ball, tolerance=0.0),
        "dense_relaxation": ja.bounds.norm_relaxation(attribute, ball, method="dense"),
        "entrywise": ja.bounds.entrywise(attribute, ball, chunk=3),
    }

    def run(*arguments):
        found = {name: bound(*arguments) for name, bound in each.items()}
        # Of what there is already: each bound is in the program once.
        both = ja.bounds.smallest(lambda *_: found["norm_relaxation"], lambda *_: found["entrywise"])
        return {**found, "smallest": both(*arguments)}

    return jax.jit(run)


BOUNDS = {name: all_bounds(attribute) for name, attribute in ATTRIBUTIONS.items()}


@functools.partial(jax.jit, static_argnames="name")
def differentiated(logits_fn, x, *, name):
    """J by plain forward mode of the attribution."""
    return jax.jacfwd(lambda z: ATTRIBUTIONS[name](logits_fn, z, 1))(x)


def assert_sound(found, J, slack=2e-6):
    """No corner beyond a bound, nothing attained beyond the best corner, and directions that are corners."""
    truth = EPSILON * largest_at_corner(J)
    for name, each in found.items():
        assert float(each.euclidean) >= truth * (1 - slack), name
        assert float(each.euclidean_attained) <= truth * (1 + 1e-5), name
        direction = np.asarray(each.direction, np.float64).ravel()
        np.testing.assert_array_equal(np.abs(direction), 1)
        reached = EPSILON * np.linalg.norm(J @ direction)
        assert float(each.euclidean_attained) == pytest.approx(reached, rel=1e-4, abs=1e-7), name


@pytest.mark.parametrize("name", sorted(ATTRIBUTIONS))
@pytest.mark.parametrize("seed", range(2))
def test_quadratic_in_closed_form_and_no_corner_beyond(name, seed):
    A, b = symmetric(seed, 8), np.arange(8) - 3.0
    J = {
        "saliency": A,
        "input_x_gradient": np.diag(A @ X + b) + X[:, None] * A,
        "integrated_gradients": np.diag(A @ X / 2 + b) + X[:, None] * A / 2,
    }[name]
    found = BOUNDS[name](quadratic(A, b), jnp.asarray(X, jnp.float32), 0, KEY)
    entries = EPSILON * np.sqrt(np.abs(J.T @ J).sum())
    relaxed = EPSILON * np.sqrt(8) * np.linalg.norm(J, 2)
    assert float(found["entrywise"].euclidean) == pytest.approx(entries, rel=1e-5)
    assert float(found["dense_relaxation"].euclidean) == pytest.approx(relaxed, rel=1e-5)
    assert float(found["norm_relaxation"].euclidean) == pytest.approx(relaxed, rel=1e-4)
    assert float(found["smallest"].euclidean) == pytest.approx(min(entries, relaxed), rel=1e-4)
    assert_sound(found, J)
    # Orientation: J J^T has the same singular values but other entries.
    if name != "saliency":
        assert abs(entries - EPSILON * np.sqrt(np.abs(J @ J.T).sum())) > 1e-3 * entries


@pytest.mark.parametrize("name", sorted(ATTRIBUTIONS))
def test_networks_in_float32_against_corners_in_float64(name):
    for seed in range(4):
        with jax.enable_x64(True):
            x = jnp.asarray(X.astype(np.float32), jnp.float64)
            J = np.asarray(differentiated(network(seed, (8, 12, 3)), x, name=name))
        found = BOUNDS[name](network(seed, (8, 12, 3)), jnp.asarray(X, jnp.float32), 1, KEY)
        assert_sound(found, J, slack=5e-6)
        assert all(float(each.euclidean) >= float(each.euclidean_attained) for each in found.values())


def saliency_at(P_root):
    """Bounds of a quadratic whose Jacobian is the given symmetric root of P, with P and the best corner."""
    size = len(P_root)
    found = BOUNDS["saliency"](quadratic(P_root, np.ones(size)), jnp.full(size, 0.5, jnp.float32), 0, KEY)
    return {name: float(each.euclidean / EPSILON) ** 2 for name, each in found.items()}, found


def test_theorem_2_is_neither_attained_nor_always_smaller():
    # P = 3 I - ones: entries sum to 12, no corner is above 8, and Corollary 1 gives 9.
    P = 3 * np.eye(3) - 1
    root = P / np.sqrt(3)
    squares, found = saliency_at(root)
    assert largest_at_corner(root) ** 2 == pytest.approx(8)
    assert squares["entrywise"] == pytest.approx(12, rel=1e-5)
    # The space of a start has two dimensions of three.
    for name in ("norm_relaxation", "smallest"):
        assert_of_exhausted_run(np.sqrt(squares[name]), 3, 3)
    smallest = found["smallest"]
    assert smallest.methods == ("norm_relaxation", "entrywise")
    assert smallest.methods[int(smallest.active)] == "norm_relaxation"
    assert float(smallest.euclidean_attained / EPSILON) ** 2 == pytest.approx(8, rel=1e-5)


def test_theorem_2_on_a_conference_matrix():
    # Order 14 from the quadratic residues modulo 13: C^2 = 13 I, P = sqrt(13) I + C.
    squares_mod = {i * i % 13 for i in range(1, 13)}
    residues = [[0 if i == j else (1 if (i - j) % 13 in squares_mod else -1) for j in range(13)] for i in range(13)]
    C = np.block([[np.zeros((1, 1)), np.ones((1, 13))], [np.ones((13, 1)), np.array(residues)]])
    np.testing.assert_array_equal(C @ C, 13 * np.eye(14))
    P = np.sqrt(13) * np.eye(14) + C
    root = P / np.sqrt(2 * np.sqrt(13))
    np.testing.assert_allclose(root @ root, P, atol=1e-12)
    squares, found = saliency_at(root)
    assert squares["entrywise"] == pytest.approx(232.5, abs=0.05)
    assert squares["norm_relaxation"] == pytest.approx(101.0, abs=0.05)
    assert int(found["smallest"].active) == 0
    assert_sound(found, root)


def test_smallest_names_theorem_2_where_p_is_diagonal():
    values = np.array([1.0, 0.5, 0.2, 0.1, 0.1, 0.1, 0.1, 0.1])
    squares, found = saliency_at(np.diag(values))
    assert squares["entrywise"] == pytest.approx((values**2).sum(), rel=1e-5)
    assert_of_exhausted_run(np.sqrt(squares["norm_relaxation"]), np.sqrt(8), 8)
    smallest = found["smallest"]
    assert smallest.methods[int(smallest.active)] == "entrywise"
    assert float(smallest.euclidean) == pytest.approx(float(found["entrywise"].euclidean))
    assert float(smallest.degrees) == pytest.approx(float(found["entrywise"].degrees))


@pytest.mark.parametrize("seed", range(2))
def test_theorem_2_is_exact_where_signs_are_balanced(seed):
    # P = S |P| S with signs S: the corner S attains the bound.
    rng = np.random.default_rng(seed)
    signs = rng.choice([-1.0, 1.0], 8)
    root = np.abs(symmetric(seed, 8)) * np.outer(signs, signs)
    squares, found = saliency_at(root)
    assert squares["entrywise"] == pytest.approx(largest_at_corner(root) ** 2, rel=1e-5)
    assert float(found["entrywise"].euclidean_attained) == pytest.approx(float(found["entrywise"].euclidean), rel=1e-5)


def test_one_softplus_unit():
    # Rank one with balanced signs: Theorem 2 is exact, s' ||w||_2 ||w||_1; Corollary 1 gives sqrt(d) s' ||w||_2^2.
    # Where w.x + b = 0 with weights that are powers of two, J is exact in float32 and only the run is rounded.
    w, b, x = np.array([1, -2, 0.5, 1, -1, 2, -0.5, 1]), -1.0, np.full(8, 0.5)
    s = 1 / (1 + np.exp(-(w @ x + b)))
    found = BOUNDS["saliency"](one_unit(w, b), jnp.asarray(x, jnp.float32), 0, KEY)
    norm = np.linalg.norm(w)
    truth = EPSILON * s * (1 - s) * norm * np.abs(w).sum()
    for value in (found["entrywise"].euclidean, found["entrywise"].euclidean_attained, found["smallest"].euclidean):
        assert float(value) == pytest.approx(truth, rel=1e-5)
    relaxed = EPSILON * np.sqrt(8) * s * (1 - s) * norm**2
    assert_of_exhausted_run(found["norm_relaxation"].euclidean, relaxed, 8)
    np.testing.assert_array_equal(np.abs(found["entrywise"].direction @ np.sign(w)), 8)


def test_linear_model_does_not_move():
    w = np.random.default_rng(0).normal(size=8)
    found = BOUNDS["saliency"](quadratic(np.zeros((8, 8)), w), jnp.asarray(X, jnp.float32), 0, KEY)
    for each in found.values():
        for value in (each.euclidean, each.euclidean_attained, each.cosine, each.degrees, each.slope):
            assert float(value) == 0
        assert not bool(each.vacuous)
        np.testing.assert_array_equal(np.abs(each.direction), 1)


def test_input_x_gradient_of_a_linear_model_is_exact():
    w = np.random.default_rng(0).normal(size=8)
    found = BOUNDS["input_x_gradient"](quadratic(np.zeros((8, 8)), w), jnp.asarray(X, jnp.float32), 0, KEY)
    # J = diag(w): every corner is a maximizer.
    truth = EPSILON * np.linalg.norm(w)
    assert float(found["entrywise"].euclidean) == pytest.approx(truth, rel=1e-5)
    assert float(found["entrywise"].euclidean_attained) == pytest.approx(truth, rel=1e-5)


@pytest.mark.parametrize("scale", [1e-22, 1e18])
def test_extreme_scales_are_still_bounded(scale):
    # Entries of P are squares: 1e-44 is zero in float32, and a bound of zero would be below the truth.
    A, b = symmetric(0, 8), np.arange(8) - 3.0
    x = jnp.asarray(X, jnp.float32)
    base = BOUNDS["saliency"](quadratic(A, b), x, 0, KEY)
    scaled = BOUNDS["saliency"](quadratic(scale * A, scale * b), x, 0, KEY)
    for name in base:
        np.testing.assert_allclose(scaled[name].euclidean / np.float32(scale), base[name].euclidean, rtol=1e-4)
        np.testing.assert_allclose(scaled[name].degrees, base[name].degrees, rtol=1e-3)


def test_ordering_of_the_bounds():
    # sigma <= sqrt(tr P) <= sqrt(sum |P|): at one radius the l-infinity bound is never below the l2 bound.
    l2 = jax.jit(ja.bounds.singular_value(SALIENCY, ja.L2(EPSILON), method="dense"))
    for seed in range(4):
        logits_fn, x = network(seed, (8, 12, 3)), jnp.asarray(X, jnp.float32)
        found = BOUNDS["saliency"](logits_fn, x, 1, KEY)
        assert float(l2(logits_fn, x, 1, KEY).euclidean) <= float(found["smallest"].euclidean)


def test_radius_zero_and_shapes():
    logits_fn, x = network(0, (8, 12, 3)), jnp.asarray(X, jnp.float32)
    flat = BOUNDS["saliency"](logits_fn, x, 1, KEY)
    image = all_bounds(SALIENCY, ja.LInf(0.0))(logits_fn, x.reshape(2, 2, 2), 1, KEY)
    for name, each in image.items():
        assert each.direction.shape == (2, 2, 2)
        assert float(each.euclidean) == float(each.cosine) == float(each.degrees) == 0
        assert not bool(each.vacuous)
        np.testing.assert_allclose(each.slope, flat[name].slope, rtol=1e-4)


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


@pytest.mark.parametrize("name", ["norm_relaxation", "entrywise"])
def test_another_ball_is_refused(name):
    with pytest.raises(TypeError, match=f"`{name}` bounds perturbations of LInf, got L2. For L2: `singular_value`"):
        getattr(ja.bounds, name)(SALIENCY, ja.L2(0.1))


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("entrywise", {"chunk": 0}),
        ("entrywise", {"corner_steps": 0}),
        ("entrywise", {"corner_starts": 0}),
        ("norm_relaxation", {"corner_steps": 0}),
    ],
)
def test_options_are_checked_when_the_bound_is_built(name, options):
    with pytest.raises(ValueError, match=f"`{next(iter(options))}` must be at least 1"):
        getattr(ja.bounds, name)(SALIENCY, BALL, **options)
