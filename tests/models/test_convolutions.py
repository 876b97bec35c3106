"""Our convolution against XLA's own: values, derivatives of all kinds, ``vmap`` and ``shard_map``."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from jax.sharding import PartitionSpec

from jaxattr import models

CASES = [
    ((1, 1), "VALID", (3, 3)),
    ((1, 1), "SAME", (3, 3)),
    ((2, 2), "SAME", (3, 3)),
    ((2, 1), ((1, 1), (0, 2)), (3, 2)),
    ((2, 2), ((0, 0), (0, 0)), (1, 1)),
]
LAYOUT = ("NHWC", "HWIO", "NHWC")


@pytest.mark.parametrize(("strides", "padding", "kernel"), CASES)
@pytest.mark.parametrize("size", [8, 7])
def test_agrees_with_lax_and_so_do_its_gradients(strides, padding, kernel, size):
    keys = jax.random.split(jax.random.key(0), 3)
    images = jax.random.normal(keys[0], (2, size, size, 3))
    weights = jax.random.normal(keys[1], (*kernel, 3, 4))

    @jax.jit
    def values_and_gradients(x, w):
        pairs = [jax.vjp(lambda x, w, f=f: f(x, w, strides, padding), x, w) for f in (ours, reference)]
        cotangent = jax.random.normal(keys[2], pairs[1][0].shape)
        return [(value, pull(cotangent)) for value, pull in pairs]

    (actual, of_actual), (expected, of_expected) = values_and_gradients(images, weights)
    assert actual.shape == expected.shape
    np.testing.assert_allclose(actual, expected, rtol=0, atol=2e-5)
    for a, b in zip(of_actual, of_expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=2e-4)


def ours(x, w, strides=(2, 1), padding=((1, 0), (1, 2))):
    return models.convolution(x, w, strides, padding, dimension_numbers=LAYOUT)


def reference(x, w, strides=(2, 1), padding=((1, 0), (1, 2))):
    return jax.lax.conv_general_dilated(x, w, strides, padding, dimension_numbers=LAYOUT)


def energy(function, x, w):
    """Not linear in anything, so that no derivative of it vanishes."""
    return jnp.sum(jnp.tanh(function(jnp.sin(x), w)) ** 2)


def along(function, x, w):
    """The derivative of a gradient along its own argument, in a loop."""

    def product(function, x):
        return jax.jvp(jax.grad(functools.partial(energy, function), argnums=(0, 1)), (x, w), (x, w))[1]

    return jax.lax.map(lambda scale: product(function, scale * x), jnp.array([0.5, 1.0]))


def of_the_hessian(function, x, w):
    """Third derivatives: of a Hessian product, with respect to everything."""
    return jax.grad(lambda x, w: sum(jnp.sum(leaf**2) for leaf in along(function, x, w)), argnums=(0, 1))(x, w)


DERIVATIVES = {
    "forward": lambda f, x, w: jax.jvp(functools.partial(energy, f), (x, w), (x, w)),
    "along": along,
    "of_the_hessian": of_the_hessian,
    "rematerialized": lambda f, x, w: jax.grad(jax.checkpoint(functools.partial(energy, f)), argnums=(0, 1))(x, w),
    "per_image": lambda f, x, w: jax.vmap(jax.grad(functools.partial(energy, f), argnums=1), (0, None))(x[:, None], w),
    "images": lambda f, x, w: jax.vmap(lambda a: along(f, a, w), 1, 1)(jnp.stack([x, 2 * x], 1)),
    "kernels": lambda f, x, w: jax.vmap(lambda a: along(f, x, a), 3, 1)(jnp.stack([w, 2 * w], 3)),
    "both": lambda f, x, w: jax.vmap(lambda a, b: along(f, a, b))(jnp.stack([x, 2 * x]), jnp.stack([w, -w])),
    "nested": lambda f, x, w: jax.vmap(jax.vmap(lambda a, b: along(f, a * b, w), (0, None)), (None, 0))(
        jnp.stack([x, -x]), jnp.array([0.5, 1.0, 2.0])
    ),
}


@pytest.mark.parametrize("name", DERIVATIVES)
def test_all_derivatives_agree_with_those_of_lax(name):
    keys = jax.random.split(jax.random.key(0), 2)
    images = jax.random.normal(keys[0], (2, 5, 4, 3))
    weights = jax.random.normal(keys[1], (3, 2, 3, 4)) / 4
    both = jax.jit(lambda x, w: [DERIVATIVES[name](function, x, w) for function in (ours, reference)])
    actual, expected = both(images, weights)
    chex.assert_trees_all_close(actual, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("check", [True, False])
def test_inside_of_shard_map_the_kernel_may_be_everyones(check):
    mesh = jax.make_mesh((4,), ("batch",), axis_types=(jax.sharding.AxisType.Auto,), devices=jax.devices()[:4])
    images = jax.random.normal(jax.random.key(0), (8, 5, 4, 3))
    weights = jax.random.normal(jax.random.key(1), (3, 2, 3, 4))
    split, whole = PartitionSpec("batch"), PartitionSpec()

    def gradients(function, x, w):
        return jax.grad(functools.partial(energy, function))(x, w)

    shared = jax.shard_map(
        functools.partial(gradients, ours), mesh=mesh, in_specs=(split, whole), out_specs=split, check_vma=check
    )
    expected = jax.jit(functools.partial(gradients, reference))(images, weights)
    np.testing.assert_allclose(jax.jit(shared)(images, weights), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("options", [{"feature_group_count": 3}, {"kernel_dilation": 2}])
def test_what_it_does_not_do_itself_is_left_to_lax(options):
    images = jax.random.normal(jax.random.key(0), (1, 8, 8, 3))
    plain = nn.Conv(6, (3, 3), **options)
    variables = plain.init(jax.random.key(1), images)
    ours = nn.Conv(6, (3, 3), conv_general_dilated=models.convolution, **options)
    assert jnp.array_equal(ours.apply(variables, images), plain.apply(variables, images))
