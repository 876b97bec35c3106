import jax.numpy as jnp
import numpy as np
import pytest
from oracles import largest_at_corner

from jaxattr.bounds._sign_form import ascend_signs


@pytest.mark.parametrize("seed", range(3))
def test_no_step_decreases_the_form(seed):
    rng = np.random.default_rng(seed)
    J = rng.normal(size=(6, 10)).astype(np.float32)
    P, start = J.T @ J, rng.normal(size=10).astype(np.float32)
    values = []
    for steps in (1, 2, 3, 10):
        signs = ascend_signs(lambda s: P @ s, jnp.asarray(start), steps)
        np.testing.assert_array_equal(np.abs(signs), 1)
        values.append(float(np.linalg.norm(J @ signs)))
    assert np.linalg.norm(J @ np.where(start < 0, -1, 1)) <= values[0] * (1 + 1e-6)
    assert np.all(np.diff(values) >= -1e-5)
    assert values[-1] <= largest_at_corner(J) * (1 + 1e-6)


def test_zeros_stay_at_a_corner():
    signs = ascend_signs(jnp.zeros_like, jnp.array([0.0, -0.0, -2.0, 3.0]), 4)
    np.testing.assert_array_equal(signs, [1, 1, -1, 1])
