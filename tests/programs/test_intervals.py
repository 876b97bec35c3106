"""Intervals hold every value that is computed, also of random compositions, and are sharp where ends decide."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from abstract import searched
from jax import lax

# Single operations: function, limits of the input, and the exact range of the result.
RANGES = {
    "exp": (jnp.exp, (-1, 2), (math.exp(-1), math.exp(2))),
    "expm1": (jnp.expm1, (-1, 2), (math.exp(-1) - 1, math.exp(2) - 1)),
    "log": (lax.log, (0.5, 2), (math.log(0.5), math.log(2))),
    "log of zero": (lax.log, (0, 1), (-math.inf, 0)),
    "log1p": (lax.log1p, (-0.5, 2), (math.log(0.5), math.log(3))),
    "sqrt": (lax.sqrt, (4, 9), (2, 3)),
    "neg": (lax.neg, (-1, 2), (-2, 1)),
    "square across zero": (lax.square, (-3, 2), (0, 9)),
    "square": (lax.square, (-3, -2), (4, 9)),
    "product with itself": (lambda x: x * x, (-3, 2), (0, 9)),
    "abs": (lax.abs, (-3, 2), (0, 3)),
    "reciprocal": (lambda x: 1 / x, (2, 4), (0.25, 0.5)),
    "reciprocal below zero": (lambda x: 1 / x, (-4, -2), (-0.5, -0.25)),
    "difference": (lambda x: x - 3, (1, 2), (-2, -1)),
    "maximum": (lambda x: lax.max(x, 1.5), (1, 2), (1.5, 2)),
    "clamp": (lambda x: lax.clamp(0.0, x, 1.0), (-1, 0.5), (0, 0.5)),
    "sum": (lambda x: jnp.sum(jnp.broadcast_to(x, (5,))), (-1, 2), (-5, 10)),
    "less": (lambda x: lax.lt(x, 3.0), (1, 2), (1, 1)),
    "not less": (lambda x: lax.lt(x, 1.0), (1, 2), (0, 0)),
    "may be less": (lambda x: lax.lt(x, 1.5), (1, 2), (0, 1)),
}


@pytest.mark.parametrize("name", RANGES)
def test_range_of_one_operation(name):
    fn, (low, high), expected = RANGES[name]
    _, result = searched(fn, low=float(low), high=float(high))
    assert (result.low, result.high) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("low", [-2.0, 0.0, 0.5])
def test_every_computed_value_is_inside(low):
    """Compositions of up to four of them at random, at random points, in float64."""
    steps = [
        *(lax.exp, lax.log, lax.sqrt, lax.square, lax.abs, lax.neg, lax.tanh, lax.sin, lax.cos, lax.log1p, lax.expm1),
        *(lax.logistic, lax.erf, lax.rsqrt, lax.cosh, lambda x: x**3, lambda x: 1 / x, lambda x: x - 0.5),
        *(lambda x: 2 * x, lambda x: lax.max(x, 0.2), lambda x: lax.min(x, 0.2), lambda x: lax.clamp(-0.5, x, 0.7)),
        *(lambda x: x * lax.sin(x), lambda x: x / (1 + x * x), lambda x: jnp.where(x > 0.3, x, 2 - x)),
    ]
    rng = np.random.default_rng(0)
    points = rng.uniform(low, 1.5, 200)
    finite = 0
    with jax.enable_x64(True):
        for _ in range(60):
            chosen = [steps[i] for i in rng.integers(len(steps), size=rng.integers(1, 5))]

            def fn(x, chosen=chosen):
                for step in chosen:
                    x = step(x)
                return x

            _, result = searched(fn, low=low, high=1.5, dtype=np.float64)
            with jax.disable_jit():
                found = np.asarray(fn(jnp.asarray(points)))
            found = found[np.isfinite(found)]
            slack = 1e-12 * np.maximum(1, np.abs(found))
            assert np.all(found >= result.low - slack)
            assert np.all(found <= result.high + slack)
            finite += math.isfinite(result.low) + math.isfinite(result.high)
    # It says something: more than every fourth limit is a number.
    assert finite > 30


def test_a_variance_and_a_norm_are_not_negative():
    def variance(x):
        return jnp.mean(x * x) - jnp.mean(x) ** 2

    assert searched(variance, (5,))[1].low == 0
    # A mean of other values, or along other axes, is none.
    assert searched(lambda x: jnp.mean(x * x) - jnp.mean(2 * x) ** 2, (5,))[1].low == -math.inf
    of_axes = searched(lambda x: jnp.sum(jnp.mean(x * x, 0) - jnp.mean(x, 1) ** 2), (5, 5))[1]
    assert of_axes.low == -math.inf
    assert searched(lambda x: jnp.sqrt(jnp.sum(x**2)) > 0, (5,))[1].number == 1
    assert searched(lambda x: jnp.sum(x) > 0, (5,))[1].number is None
