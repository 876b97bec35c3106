"""Means of windows against a reshape and a mean: values, derivatives of all kinds, ``vmap`` and ``shard_map``."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from jaxattr.models import pool


def reference(x):
    n, height, width, channels = x.shape
    even = x[:, : height // 2 * 2, : width // 2 * 2]
    return even.reshape(n, height // 2, 2, width // 2, 2, channels).mean((2, 4))


def energy(function, x):
    """Not linear in anything, so that no derivative of it vanishes."""
    return jnp.sum(jnp.tanh(function(jnp.sin(x))) ** 2)


def product(function, x):
    """A Hessian times a vector."""
    return jax.jvp(jax.grad(functools.partial(energy, function)), (x,), (jnp.cos(x),))[1]


DERIVATIVES = {
    "value": lambda f, x: f(x),
    "forward": lambda f, x: jax.jvp(f, (x,), (x**2,))[1],
    "transpose": lambda f, x: jax.vjp(f, x)[1](f(x) ** 2)[0],
    "second": product,
    "third": lambda f, x: jax.grad(lambda x: jnp.sum(product(f, x) ** 2))(x),
    "in_a_loop": lambda f, x: jax.lax.map(lambda scale: product(f, scale * x), jnp.array([0.5, 1.0])),
    "images": lambda f, x: jax.vmap(functools.partial(product, f), 3, 1)(jnp.stack([x, 2 * x], 3)),
    "nested": lambda f, x: jax.vmap(jax.vmap(lambda a, b: product(f, a * b), (0, None)), (None, 0))(
        jnp.stack([x, -x]), jnp.array([0.5, 1.0, 2.0])
    ),
}


@pytest.mark.parametrize("shape", [(2, 4, 6, 3), (2, 5, 7, 3), (1, 2, 2, 1)])
@pytest.mark.parametrize("name", DERIVATIVES)
def test_all_derivatives_agree_with_those_of_a_mean(name, shape):
    x = jax.random.normal(jax.random.key(0), shape)
    functions = (lambda x: pool(x, "average"), reference)
    actual, expected = jax.jit(lambda x: [DERIVATIVES[name](f, x) for f in functions])(x)
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("check", [True, False])
def test_inside_of_shard_map(check):
    mesh = jax.make_mesh((4,), ("batch",), axis_types=(jax.sharding.AxisType.Auto,), devices=jax.devices()[:4])
    x, split = jax.random.normal(jax.random.key(0), (8, 5, 4, 3)), PartitionSpec("batch")
    shared = jax.shard_map(
        functools.partial(product, pool), mesh=mesh, in_specs=split, out_specs=split, check_vma=check
    )
    np.testing.assert_allclose(
        jax.jit(shared)(x), jax.jit(functools.partial(product, reference))(x), rtol=1e-5, atol=1e-6
    )
