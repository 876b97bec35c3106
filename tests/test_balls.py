import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize
import scipy.stats

import jaxattr as ja

BALLS = [ja.L2, ja.LInf]
EPS32 = float(np.finfo(np.float32).eps)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("radius", [0.3, 5.0])
def test_projection_in_closed_form(seed, radius):
    delta = np.random.default_rng(seed).normal(size=(3, 2, 2)).astype(np.float32)
    expected = delta * min(1, radius / np.linalg.norm(delta))
    np.testing.assert_allclose(ja.L2(radius).project(jnp.asarray(delta)), expected, rtol=4 * EPS32)
    expected = np.clip(delta, -radius, radius)
    np.testing.assert_allclose(ja.LInf(radius).project(jnp.asarray(delta)), expected, rtol=4 * EPS32)


@pytest.mark.parametrize("kind", BALLS)
def test_projection_is_the_nearest_point(kind):
    # Against a general solver: min ||y - delta||^2 over the ball, in float64.
    delta = np.array([0.7, -0.2, 0.05, 0.4])
    order = 2 if kind is ja.L2 else np.inf
    found = np.asarray(kind(0.3).project(jnp.asarray(delta, jnp.float32)), np.float64)
    inside = {"type": "ineq", "fun": lambda y: 0.3**2 - y @ y}
    bounds = None if order == 2 else [(-0.3, 0.3)] * 4
    solved = scipy.optimize.minimize(
        lambda y: np.sum((y - delta) ** 2), np.zeros(4), bounds=bounds, constraints=[inside] if order == 2 else []
    )
    assert np.linalg.norm(found, order) <= 0.3 * (1 + 4 * EPS32)
    np.testing.assert_allclose(found, solved.x, atol=2e-4)  # the solver's own tolerance


@pytest.mark.parametrize("kind", BALLS)
def test_a_point_inside_is_not_moved(kind):
    delta = jnp.array([0.01, -0.02, 0.0])
    np.testing.assert_array_equal(kind(0.3).project(delta), delta)


@functools.partial(jax.jit, static_argnums=2)
def of_radius_zero(delta, radius, kind):
    """Derivatives by the perturbation and by a radius that is known to be zero, or is not."""
    return jax.jacrev(kind(0.0).project)(delta), jax.jacrev(lambda radius: kind(radius).project(delta))(radius)


@pytest.mark.parametrize("kind", BALLS)
@pytest.mark.parametrize("delta", [[0.0, 0.0, 0.0], [0.3, -4.0, 1e-30]])
def test_radius_zero_projects_to_zero_with_finite_gradients(kind, delta):
    assert not np.any(kind(0.0).project(jnp.array(delta)))
    by_delta, by_radius = of_radius_zero(jnp.array(delta), jnp.asarray(0.0), kind)
    assert np.all(np.isfinite(by_delta))
    assert np.all(np.isfinite(by_radius))
    assert not np.any(kind(0.0).sample(jax.random.key(0), (3,)))


@pytest.mark.parametrize("kind", BALLS)
def test_gradient_of_norms_is_finite_at_zero(kind):
    ball = kind(1.0)
    functions = (
        ball.norm,
        ball.dual_norm,
        lambda d: jnp.sum(ball.project(d)),
        lambda d: jnp.sum(ball.steepest(d)),
    )
    gradients = jax.jit(lambda d: [jax.grad(function)(d) for function in functions])(jnp.zeros(3))
    assert np.all(np.isfinite(gradients))


def test_norms_against_numpy():
    delta = np.random.default_rng(0).normal(size=(2, 3)).astype(np.float32)
    flat = delta.ravel()
    assert float(ja.L2(1.0).norm(delta)) == pytest.approx(np.linalg.norm(flat), rel=1e-6)
    assert float(ja.L2(1.0).dual_norm(delta)) == pytest.approx(np.linalg.norm(flat), rel=1e-6)
    assert float(ja.LInf(1.0).norm(delta)) == pytest.approx(np.abs(flat).max())
    assert float(ja.LInf(1.0).dual_norm(delta)) == pytest.approx(np.abs(flat).sum(), rel=1e-6)


@pytest.mark.parametrize("kind", BALLS)
@pytest.mark.parametrize("scale", [1e-30, 1e-8, 1.0, 1e25])
def test_steepest_attains_the_dual_norm(kind, scale):
    gradient = (scale * np.random.default_rng(0).normal(size=(3, 4))).astype(np.float32)
    ball = kind(1.0)
    step = np.asarray(ball.steepest(jnp.asarray(gradient)), np.float64)
    flat = gradient.astype(np.float64).ravel()
    expected = np.linalg.norm(flat) if kind is ja.L2 else np.abs(flat).sum()
    assert float(ball.norm(jnp.asarray(step, jnp.float32))) <= 1 + 4 * EPS32
    assert flat @ step.ravel() == pytest.approx(expected, rel=1e-6, abs=0)
    # Squares of 1e-30 are zero in float32: a norm that squares first would report a vanishing gradient.
    assert float(ball.dual_norm(jnp.asarray(gradient))) == pytest.approx(expected, rel=1e-6, abs=0)


@pytest.mark.parametrize("kind", BALLS)
def test_steepest_of_zero_is_zero_and_of_nan_is_nan(kind):
    assert not np.any(kind(1.0).steepest(jnp.zeros((2, 2))))
    assert np.any(np.isnan(kind(1.0).steepest(jnp.array([1.0, jnp.nan]))))


@pytest.mark.parametrize("kind", BALLS)
def test_no_step_of_the_ball_beats_steepest(kind):
    gradient = jnp.array([0.5, -2.0, 0.1])
    ball = kind(1.0)
    others = jax.jit(jax.vmap(lambda key: ball.sample(key, (3,))))(jax.random.split(jax.random.key(0), 200))
    assert np.max(others @ gradient) <= float(gradient @ ball.steepest(gradient))


@pytest.mark.parametrize("kind", BALLS)
@pytest.mark.parametrize("size", [1, 5])
def test_samples_are_uniform_in_the_ball(kind, size):
    ball, count = kind(0.3), 2000
    points = np.asarray(
        jax.jit(jax.vmap(lambda key: ball.sample(key, (size, 1))))(jax.random.split(jax.random.key(7), count))
    )
    assert points.shape == (count, size, 1)
    points = points.reshape(count, size)
    order = 2 if kind is ja.L2 else np.inf
    radii = np.linalg.norm(points, order, axis=1) / 0.3
    assert radii.max() <= 1 + 4 * EPS32
    # For either ball the share of the volume within the radius r is r^d. One fixed key: p is a number, not a gamble.
    assert scipy.stats.kstest(radii**size, "uniform").pvalue > 1e-3
    signs = np.sign(points).mean(axis=0)
    assert np.all(np.abs(signs) < 4 / np.sqrt(count))


@pytest.mark.parametrize("kind", BALLS)
def test_sample_takes_shape_and_dtype(kind):
    for shape in ((), (2, 3)):
        for dtype in (jnp.float16, jnp.float32):
            found = jax.eval_shape(lambda key, s=shape, d=dtype: kind(0.1).sample(key, s, d), jax.random.key(0))
            assert (found.shape, found.dtype) == (shape, dtype)


@pytest.mark.parametrize("kind", BALLS)
@pytest.mark.parametrize("seed", range(3))
def test_project_input_ends_in_ball_and_box(kind, seed):
    rng = np.random.default_rng(seed)
    x = jnp.asarray(rng.uniform(size=(4, 4)).round(), jnp.float32)  # black and white: the box cuts every direction
    ball = kind(0.4)
    perturbed = ball.project_input(x, x + jnp.asarray(rng.normal(size=(4, 4)), jnp.float32))
    assert perturbed.min() >= 0
    assert perturbed.max() <= 1
    assert float(ball.norm(perturbed - x)) <= 0.4 * (1 + 16 * EPS32)
    assert bool(ball.contains(x, perturbed))
    np.testing.assert_allclose(ball.project_input(x, perturbed), perturbed, atol=4 * EPS32)


def test_project_input_is_the_nearest_for_linf_and_ball_first_for_l2():
    x, far = jnp.array([0.9, 0.5]), jnp.array([1.7, 1.1])
    np.testing.assert_allclose(ja.LInf(0.3).project_input(x, far), [1.0, 0.8], rtol=1e-6)
    # Ball: delta = (0.8, 0.6) -> (0.4, 0.3); then the box. (Box first would leave (0.1, 0.6) -> (0.0822, 0.493).)
    np.testing.assert_allclose(ja.L2(0.5).project_input(x, far), [1.0, 0.8], rtol=1e-6)


@pytest.mark.parametrize("kind", BALLS)
def test_without_box_nothing_is_clipped(kind):
    ball = kind(1.0, box=None)
    x = jnp.array([7.0, -3.0])
    np.testing.assert_array_equal(ball.clip(x), x)
    ball.check_input(x)
    assert bool(ball.contains(x, x + 0.5))


@pytest.mark.parametrize("kind", BALLS)
def test_contains_says_no_outside_of_ball_box_or_numbers(kind):
    ball, x = kind(0.1), jnp.full(4, 0.5)
    assert bool(ball.contains(x, x))
    assert not bool(ball.contains(x, x.at[0].add(0.101)))
    assert bool(ball.contains(x, x.at[0].add(0.1 + 1e-6)))
    assert not bool(ball.contains(x, x.at[0].add(0.1 + 1e-5)))
    edge = jnp.full(4, 1.0)
    assert not bool(ball.contains(edge, edge.at[1].add(1e-3)))
    assert not bool(ball.contains(x, x.at[2].set(jnp.nan)))
    assert not bool(ball.contains(x, x.at[2].set(jnp.inf)))
    assert bool(ball.contains(x, x.at[0].add(0.11), 0.02))


@pytest.mark.parametrize("kind", BALLS)
def test_contains_knows_the_rounding_of_wide_boxes(kind):
    # At 255 one unit in the last place is 1.5e-5: x + delta cannot be nearer to the ball's edge than that.
    rng = np.random.default_rng(0)
    ball = kind(1.0, box=(0.0, 255.0))
    x = jnp.asarray(rng.uniform(100, 250, size=(64, 16)), jnp.float32)
    far = x + jnp.asarray(rng.normal(size=(64, 16)), jnp.float32)
    inside = jax.jit(jax.vmap(lambda a, b: ball.contains(a, ball.project_input(a, b))))
    assert np.all(inside(x, far))


@pytest.mark.parametrize("kind", BALLS)
def test_vmap_over_radii_equals_a_loop(kind):
    radii = jnp.array([0.0, 0.05, 0.4])
    x, perturbed = jnp.array([0.2, 0.9, 0.0]), jnp.array([0.5, 2.0, -1.0])

    def everything(radius):
        ball = kind(radius)
        return {
            "project": ball.project(perturbed),
            "input": ball.project_input(x, perturbed),
            "sample": ball.sample(jax.random.key(3), (3,)),
            "contains": ball.contains(x, perturbed),
        }

    batched, single = jax.jit(jax.vmap(everything))(radii), jax.jit(everything)
    for i, radius in enumerate(radii):
        jax.tree.map(lambda a, b, i=i: np.testing.assert_allclose(a[i], b, rtol=1e-6), batched, single(float(radius)))


@pytest.mark.parametrize("kind", BALLS)
def test_a_ball_is_a_pytree(kind):
    ball = kind(0.1, box=(0.0, jnp.ones(3)))
    leaves, structure = jax.tree.flatten(ball)
    assert len(leaves) == 3
    again = jax.tree.unflatten(structure, leaves)
    assert type(again) is kind
    assert again.epsilon == 0.1
    assert again.box[1] is ball.box[1]
    assert structure == jax.tree.structure(kind(0.7, box=(0.0, jnp.zeros(3) + 2)))
    assert structure != jax.tree.structure(kind(0.7, box=None))
    paths = [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_flatten_with_path(ball)[0]]
    assert paths == [".epsilon", ".box[0]", ".box[1]"]
    # As an argument of jit: one trace for two radii.
    traces = []

    @jax.jit
    def project(ball, delta):
        traces.append(1)
        return ball.project(delta)

    for radius in (0.1, 0.2):
        np.testing.assert_allclose(kind(radius).project(jnp.ones(3)), project(kind(radius), jnp.ones(3)), rtol=1e-6)
    assert len(traces) == 1


@pytest.mark.parametrize("kind", BALLS)
def test_box_of_arrays(kind):
    lower, upper = jnp.array([0.0, -1.0, 0.5]), jnp.array([1.0, 1.0, 0.6])
    x = jnp.array([0.5, -1.0, 0.55])
    for box in ((lower, upper), (np.asarray(lower), np.asarray(upper)), (-1.0, upper), (lower, 1.0)):
        ball = kind(10.0, box=box)
        ball.check_input(x)
        ball.check_input(jnp.broadcast_to(x, (2, 3)))
        far = ball.project_input(x, jnp.array([9.0, -9.0, 9.0]))
        low, high = np.broadcast_to(box[0], 3), np.broadcast_to(box[1], 3)
        np.testing.assert_array_equal(far, [high[0], low[1], high[2]])
        assert bool(ball.contains(x, far))
    with pytest.raises(ValueError, match="box of valid inputs"):
        kind(0.1, box=(lower, upper)).check_input(jnp.array([0.5, 0.0, 0.7]))
    with pytest.raises(ValueError, match="box of valid inputs"):
        kind(0.1, box=(0.0, upper)).check_input(jnp.array([0.5, 0.0, 0.7]))


def test_check_input_passes_rounding_and_nan():
    for ball in (ja.L2(0.1), ja.LInf(0.1)):
        ball.check_input(jnp.array([0.0, 1.0 + EPS32]))
        ball.check_input(jnp.array([0.0, jnp.nan]))
        jax.jit(lambda x, ball=ball: ball.check_input(x))(jnp.array([7.0]))
        with pytest.raises(ValueError, match=r"from -1 to 0\.5"):
            ball.check_input(jnp.array([-1.0, 0.5]))


@pytest.mark.parametrize("kind", BALLS)
@pytest.mark.parametrize("epsilon", [0.1, np.float64(0.1), "array"])
def test_dtype_of_the_input_is_kept_in_64_bit_mode(kind, epsilon):
    with jax.enable_x64(True):
        radius = jnp.asarray(0.1) if isinstance(epsilon, str) else epsilon
        ball = kind(radius)
        for dtype in (jnp.float32, jnp.float64):
            for function in (ball.project, lambda x: ball.project_input(x, x + 1), ball.steepest, ball.clip, ball.norm):
                assert jax.eval_shape(function, jax.ShapeDtypeStruct((3,), dtype)).dtype == dtype


@pytest.mark.parametrize(
    ("kind", "epsilon"), list(itertools.product(BALLS, [-0.1, float("nan"), float("inf"), [0.1, 0.2]]))
)
def test_radius_must_be_a_finite_number(kind, epsilon):
    with pytest.raises(ValueError, match="epsilon"):
        kind(epsilon)


@pytest.mark.parametrize(
    "box",
    [
        (1.0, 0.0),
        (0.0,),
        1.0,
        (jnp.zeros(2), jnp.array([1.0, -1.0])),
        (0.0, float("nan")),
        ("a", "b"),
        ([0.0, [1.0]], 2.0),
        (None, 1.0),
        (np.zeros(2), np.ones(3)),
    ],
)
def test_box_must_be_lower_below_upper(box):
    with pytest.raises(ValueError, match="`box`"):
        ja.L2(0.1, box=box)


@jax.jit
def attacked(ball, x):
    return ja.attacks.pgd(ball, num_steps=2)(lambda x: x, x, 0, jax.random.key(0))


@pytest.mark.parametrize("kind", BALLS)
@pytest.mark.parametrize("make", [list, tuple, np.asarray, jnp.asarray], ids=["list", "tuple", "numpy", "jax"])
def test_limits_of_a_box_may_be_sequences(kind, make):
    ball = kind(0.1, box=(make([0, 0.0]), make([1.0, 1])))
    x = jnp.array([0.5, 1.0])
    ball.check_input(x)
    with pytest.raises(ValueError, match="box of valid inputs"):
        ball.check_input(x + 1)
    assert len(jax.tree.leaves(ball)) == 3
    np.testing.assert_allclose(ball.project_input(x, x + 0.05), [0.55, 1.0], rtol=1e-6)
    result = attacked(ball, x)
    assert float(result.distance) <= 0.1


@pytest.mark.parametrize("kind", BALLS)
def test_a_feature_whose_limits_are_equal_cannot_move(kind):
    ball = kind(0.1, box=([0.0, 0.3, 0.0], [1.0, 0.3, 1.0]))
    x = jnp.array([0.5, 0.3, 1.0])
    ball.check_input(x)
    assert float(ball.project_input(x, x + 7)[1]) == np.float32(0.3)
    lower, upper = ball.interval(x)
    assert float(lower[1]) == float(upper[1]) == 0
    logits_fn = lambda x: jnp.stack([jnp.sum(x**3) + x[0] * x[1], 0 * x[0]])  # noqa: E731
    key, attribute = jax.random.key(0), ja.attributions.saliency()
    moved = jax.jit(lambda x: ja.attacks.pgd(ball, num_steps=3)(logits_fn, x, 0, key).x)(x)
    assert float(moved[1]) == np.float32(0.3)
    if kind is ja.LInf:
        # Its half-width is zero: nothing may divide by it.
        for bound in (ja.bounds.norm_relaxation, ja.bounds.semidefinite):
            found = jax.jit(lambda x, b=bound: b(attribute, ball, within_box=True)(logits_fn, x, 0, key))(x)
            assert np.isfinite(float(found.euclidean))
            assert float(found.direction[1]) == 0
            assert float(found.euclidean_attained) <= float(found.euclidean) * (1 + 1e-5)


@pytest.mark.parametrize("kind", BALLS)
@pytest.mark.parametrize("box", [(0.0, 1.0), (0.0, 255.0), None])
def test_projected_inputs_are_within_epsilon_exactly(kind, box):
    """In the norm as it is computed here, in NumPy's float32, and in exact arithmetic."""
    rng = np.random.default_rng(0)
    x = (rng.uniform(size=(20, 784)) * (255 if box == (0.0, 255.0) else 1)).astype(np.float32)
    x[:, ::7] *= 1e-3
    # The last one is an argument of the program, the others are known when it is compiled.
    known = (0.0, 1e-9, 8 / 255, np.float64(0.1), 3.0)
    radii = [*map(float, known), float(np.float32(0.1))]
    noise = rng.normal(size=x.shape).astype(np.float32)
    far = np.stack([x + noise * np.float32(5 * radius + 1e-8) for radius in radii])

    @jax.jit
    def project(given, x, far):
        def one(ball, x, far):
            found = ball.project_input(x, far)
            return found, ball.norm(found - x)

        balls = [kind(epsilon, box=box) for epsilon in (*known, given)]
        return [jax.vmap(functools.partial(one, ball))(x, each) for ball, each in zip(balls, far, strict=True)]

    order = 2 if kind is ja.L2 else np.inf
    for radius, (found, distance) in zip(radii, project(jnp.float32(0.1), x, far), strict=True):
        exact = np.linalg.norm(np.asarray(found, np.float64) - x, order, axis=1)
        assert np.max(np.asarray(distance, np.float64)) <= radius
        assert np.max(np.linalg.norm(np.asarray(found) - x, order, axis=1).astype(np.float64)) <= radius
        assert np.max(exact) <= radius
        if box is None and radius > 1e-3:
            # And no shorter than rounding asks for.
            assert np.min(exact) >= radius * (1 - 1e-4)


@pytest.mark.parametrize("kind", BALLS)
def test_derivatives_of_projected_inputs_are_those_of_the_projection(kind):
    ball, x, far = kind(0.3), jnp.array([0.5, 0.2]), jnp.array([0.55, 0.21])
    jacobian = jax.jit(jax.jacobian(lambda far: ball.project_input(x, far)))
    np.testing.assert_allclose(jacobian(far), np.eye(2), rtol=1e-6)
    at_the_edge = jacobian(far + 0.4)
    assert np.all(np.isfinite(at_the_edge))
