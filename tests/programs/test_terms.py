"""Kinked terms that cancel, against their coefficients in closed form: a maximum m in v + c m, and in v exp(c m)."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from abstract import searched

M = jnp.max

# Of a vector x: the coefficient of its maximum, and whether it stands in an exponent.
COEFFICIENTS = {
    "m": (M, 1.0, False),
    "3 m - m": (lambda x: 3 * M(x) - M(x), 2.0, False),
    "(x + m) / 4": (lambda x: (x + M(x)) / 4, 0.25, False),
    "-m": (lambda x: -M(x), -1.0, False),
    "exp(m)": (lambda x: jnp.exp(M(x)), 1.0, True),
    "exp(x - m)": (lambda x: jnp.exp(x - M(x)), -1.0, True),
    "exp(x - m) exp(3 m)": (lambda x: jnp.exp(x - M(x)) * jnp.exp(3 * M(x)), 2.0, True),
    "sqrt(exp(m))": (lambda x: jnp.sqrt(jnp.exp(M(x))), 0.5, True),
    "exp(m)^3": (lambda x: jax.lax.integer_pow(jnp.exp(M(x)), 3), 3.0, True),
    "exp2(m)": (lambda x: jnp.exp2(M(x)), np.log(2), True),
    "1 / exp(m)": (lambda x: 1 / jnp.exp(M(x)), -1.0, True),
    "log(sum(exp(x - m)))": (lambda x: jnp.log(jnp.sum(jnp.exp(x - M(x)))), -1.0, False),
}


@pytest.mark.parametrize("name", COEFFICIENTS)
def test_coefficient(name):
    fn, coefficient, exponential = COEFFICIENTS[name]
    _, result = searched(fn, (3,))
    (found,) = result.terms.values()
    assert found == pytest.approx(coefficient, rel=1e-12)
    assert result.exponential == exponential
    assert not result.kinks
    assert result.all_kinks


GONE = {
    "m - m": lambda x: M(x) - M(x),
    "softmax": lambda x: jnp.exp(x - M(x)) / jnp.sum(jnp.exp(x - M(x))),
    "logsumexp": lambda x: M(x) + jnp.log(jnp.sum(jnp.exp(x - M(x)))),
    "logsumexp of rows": lambda x: M(x, -1) + jnp.log(jnp.sum(jnp.exp(x - M(x, -1, keepdims=True)), -1)),
    "exp(2 m) / exp(m)^2": lambda x: jnp.exp(2 * M(x)) / jnp.exp(M(x)) ** 2,
    "mean of exponentials": lambda x: jnp.exp(M(x)) * jnp.mean(jnp.exp(x - M(x))),
}


@pytest.mark.parametrize("name", GONE)
def test_what_cancels_is_no_kink(name):
    _, result = searched(GONE[name], (2, 3))
    assert not result.all_kinks


STAYS = {
    "sine": lambda x: jnp.sin(M(x)) - jnp.sin(M(x)),
    "a sum along which the maximum varies": lambda x: M(x, 1) - jnp.log(jnp.sum(jnp.exp(M(x, 1)[:, None] - x), 0)),
    "another maximum": lambda x: M(x) - M(2 * x) / 2,
    "factors that differ": lambda x: M(x) - 0.999 * M(x),
    "a product": lambda x: M(x) * jnp.sum(x) - M(x) * jnp.sum(x),
}


@pytest.mark.parametrize("name", STAYS)
def test_what_is_not_followed_is_a_kink(name):
    _, result = searched(lambda x: jnp.sum(STAYS[name](x)), (3, 3))
    assert result.all_kinks
