"""The matrix product of patches against XLA's own convolution, derivatives included."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

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

    def reference(x, w):
        return jax.lax.conv_general_dilated(x, w, strides, padding, dimension_numbers=LAYOUT)

    def ours(x, w):
        return models.convolution(x, w, strides, padding, dimension_numbers=LAYOUT)

    expected, pull_expected = jax.vjp(reference, images, weights)
    actual, pull_actual = jax.vjp(ours, images, weights)
    assert actual.shape == expected.shape
    np.testing.assert_allclose(actual, expected, rtol=0, atol=2e-5)
    cotangent = jax.random.normal(keys[2], expected.shape)
    for a, b in zip(pull_actual(cotangent), pull_expected(cotangent), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=2e-4)


@pytest.mark.parametrize("options", [{"feature_group_count": 3}, {"kernel_dilation": 2}])
def test_what_it_does_not_do_itself_is_left_to_lax(options):
    images = jax.random.normal(jax.random.key(0), (1, 8, 8, 3))
    plain = nn.Conv(6, (3, 3), **options)
    variables = plain.init(jax.random.key(1), images)
    ours = nn.Conv(6, (3, 3), conv_general_dilated=models.convolution, **options)
    assert jnp.array_equal(ours.apply(variables, images), plain.apply(variables, images))
