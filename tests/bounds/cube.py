"""Bounds of the deviation in a cube, Corollary 1 and Theorem 2 and the smaller of both, in one compiled program."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import largest_at_corner, quadratic

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


def saliency_at(P_root):
    """Bounds of a quadratic whose Jacobian is the given symmetric root of P, with P and the best corner."""
    size = len(P_root)
    found = BOUNDS["saliency"](quadratic(P_root, np.ones(size)), jnp.full(size, 0.5, jnp.float32), 0, KEY)
    return {name: float(each.euclidean / EPSILON) ** 2 for name, each in found.items()}, found
