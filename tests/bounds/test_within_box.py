"""Bounds that know the box: against all corners of the box, and what is built on bounds that are not symmetric."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import corners, network

import jaxattr as ja
from jaxattr.bounds._sign_form import SignForm

KEY = jax.random.key(3)
IG = ja.attributions.integrated_gradients(4, chunk=2)
# Black, white and between: intervals of all kinds.
X = jnp.asarray([0.1, 0.9, 0.4, 0.0, 1.0, 0.3, 0.7, 0.0], jnp.float32)
RADII = (0.05, 0.3, 1.0)
jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
BOUNDS = {
    "norm_relaxation": lambda ball, **options: ja.bounds.norm_relaxation(IG, ball, method="dense", **options),
    "entrywise": lambda ball, **options: ja.bounds.entrywise(IG, ball, chunk=3, **options),
}


@functools.cache
def compiled(name, within_box, box):
    def run(logits_fn, x, epsilon):
        return BOUNDS[name](ja.LInf(epsilon, box=box), within_box=within_box)(logits_fn, x, 1, KEY)

    return jit(jax.vmap(run, in_axes=(None, None, 0)))


def program(name, within_box, x=X, box=(0.0, 1.0)):
    """One for all networks, samples and three radii."""
    return lambda logits_fn, radii: compiled(name, within_box, box)(logits_fn, x, radii)


def limits(epsilon):
    """The interval of every coordinate, without the library."""
    x = np.asarray(X, float)
    return np.maximum(-epsilon, -x), np.minimum(epsilon, 1 - x)


@jax.jit
def differentiated(logits_fn, x):
    return jax.jacfwd(lambda z: IG(logits_fn, z, 1))(x)


@functools.cache
def jacobian(seed):
    with jax.enable_x64(True):
        return np.asarray(differentiated(network(seed, (8, 12, 3)), X.astype(float)))


@pytest.mark.parametrize("name", sorted(BOUNDS))
@pytest.mark.parametrize("seed", range(3))
def test_no_corner_of_the_box_is_beyond_and_the_box_never_costs(name, seed):
    J = jacobian(seed)
    found, plain = (program(name, box)(network(seed, (8, 12, 3)), jnp.array(RADII)) for box in (True, False))
    for i, epsilon in enumerate(RADII):
        lower, upper = limits(epsilon)
        deltas = np.where(corners(8) > 0, upper, lower)
        truth = np.linalg.norm(deltas @ J.T, axis=1).max()
        assert float(found.euclidean[i]) >= truth * (1 - 5e-6)
        assert float(found.euclidean[i]) <= float(plain.euclidean[i]) * (1 + 1e-6)
        step = epsilon * np.asarray(found.direction[i], float)
        assert np.all((step >= lower - 1e-6) & (step <= upper + 1e-6))
        assert float(found.euclidean_attained[i]) == pytest.approx(np.linalg.norm(J @ step), rel=1e-4)
        assert float(found.euclidean_attained[i]) <= truth * (1 + 1e-5)


@pytest.mark.parametrize("seed", range(3))
def test_the_formulas(seed):
    J = jacobian(seed)
    for epsilon, euclidean, slope in zip(
        RADII,
        program("entrywise", True)(network(seed, (8, 12, 3)), jnp.array(RADII)).euclidean,
        program("norm_relaxation", True)(network(seed, (8, 12, 3)), jnp.array(RADII)).slope,
        strict=True,
    ):
        lower, upper = limits(epsilon)
        center, half = (upper + lower) / 2, (upper - lower) / 2
        B = np.column_stack([J * half, J @ center])
        assert float(euclidean) == pytest.approx(np.sqrt(np.abs(B.T @ B).sum()), rel=1e-5)
        sigma = np.linalg.norm(J, 2)
        longest = np.linalg.norm(np.maximum(-lower, upper)) * sigma
        centered = np.linalg.norm(J @ center) + np.linalg.norm(half) * sigma
        assert float(slope) * epsilon == pytest.approx(min(longest, centered), rel=1e-5)


def test_without_a_limit_in_reach_the_box_changes_nothing():
    inside, radii = jnp.full(8, 0.5, jnp.float32), jnp.array([0.0, 0.1, 0.4])
    for name in BOUNDS:
        with_box, without = (program(name, box, inside)(network(0, (8, 12, 3)), radii) for box in (True, False))
        np.testing.assert_allclose(with_box.euclidean, without.euclidean, rtol=1e-5, err_msg=name)
        no_box = program(name, True, inside, box=None)(network(0, (8, 12, 3)), radii)
        np.testing.assert_allclose(no_box.euclidean, without.euclidean, rtol=1e-5, err_msg=name)


def test_radius_zero_is_the_limit_of_small_ones():
    zero, small = program("entrywise", True)(network(0, (8, 12, 3)), jnp.array([0.0, 1e-4, 0.1])).slope[:2]
    assert float(zero) == pytest.approx(float(small), rel=1e-3)
    assert float(program("entrywise", True)(network(0, (8, 12, 3)), jnp.array([0.0, 1e-4, 0.1])).euclidean[0]) == 0


def test_signs_and_steps_are_the_same_problem():
    ball = ja.LInf(0.3)
    J = jnp.asarray(np.random.default_rng(0).normal(size=(8, 8)), jnp.float32)
    operator = ja.AttributionJacobian(jnp.ones(8), lambda v: J @ v, lambda u: J.T @ u, symmetric=False)
    form = SignForm.of(operator, ball, X, within_box=True)
    assert form.size == 9
    rng = np.random.default_rng(1)
    B = form.dense(None)
    lower, upper = limits(0.3)
    for _ in range(5):
        signs = jnp.asarray(rng.choice([-1.0, 1.0], 9), jnp.float32)
        np.testing.assert_allclose(B @ signs, form.matvec(signs), rtol=1e-5, atol=1e-5)
        # The last sign is free: the perturbation that both stand for is a corner of the box.
        step = 0.3 * np.asarray(form.direction(signs))
        np.testing.assert_allclose(step, np.where(signs[:-1] * signs[-1] > 0, upper, lower), atol=1e-6)
        assert 0.3 * float(jnp.linalg.norm(form.matvec(signs))) == pytest.approx(np.linalg.norm(J @ step), rel=1e-5)
        u = jnp.asarray(rng.normal(size=8), jnp.float32)
        np.testing.assert_allclose(form.rmatvec(u), B.T @ u, rtol=1e-4, atol=1e-5)


def test_a_radius_cannot_be_read_off_a_bound_within_the_box():
    result = jax.tree.map(lambda leaf: leaf[0], program("entrywise", True)(network(0, (8, 12, 3)), jnp.array(RADII)))
    with pytest.raises(
        ValueError, match=r"\(entrywise\) is not proportional to the radius: it is `within_box`.* several radii"
    ):
        ja.bounds.largest_epsilon(result, degrees=10.0)


def test_the_opposite_direction_is_not_used():
    """A black image: the only perturbations brighten, and the opposite of a maximizer is outside of the box."""
    black = jnp.zeros(8)
    bound = ja.bounds.entrywise(ja.attributions.saliency(), ja.LInf(0.3), within_box=True)
    logits_fn = network(0, (8, 12, 3))
    result = jit(bound)(logits_fn, black, 1, KEY)
    assert float(result.direction.min()) >= 0
    seen = []

    def watched(f, z, y):
        jax.debug.callback(lambda value: seen.append(float(value)), jnp.min(z))
        return ja.attributions.saliency()(f, z, y)

    corrected = jit(ja.bounds.corrected(bound, watched))(logits_fn, black, 1, KEY)
    jax.effects_barrier()
    assert min(seen) >= 0
    assert float(corrected.constant) == float(corrected.constant_plus) >= 1
    attack = jit(ja.attacks.worst_direction(ja.LInf(0.3), ja.attributions.saliency(), bound, keep_label=False))
    np.testing.assert_allclose(attack(logits_fn, black, 1, KEY).x, 0.3 * result.direction, atol=1e-6)


def test_smallest_keeps_track_of_the_box():
    ball = ja.LInf(0.3)
    box = ja.bounds.entrywise(IG, ball, within_box=True)
    both = ja.bounds.smallest(ja.bounds.norm_relaxation(IG, ball, method="dense"), box)
    result = jit(both)(network(0, (8, 12, 3)), X, 1, KEY)
    assert not result.two_sided
    assert result.methods[int(result.active)] == "entrywise"
    assert int(result.products) > 0
