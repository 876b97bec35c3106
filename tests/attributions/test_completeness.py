import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import quadratic, symmetric

import jaxattr as ja

X = np.array([0.1, 0.9, 0.4, 0.0, 1.0])


def test_gap_of_a_quadratic_in_closed_form():
    A, b, m = symmetric(0, 5), np.arange(5) - 2.0, 4
    logits_fn, x = quadratic(A, b), jnp.asarray(X, jnp.float32)
    for start in (0.0, np.full(5, 0.5)):
        step = X - start
        for rule, factor in (("left", -1), ("right", 1), ("midpoint", 0)):
            attribute = ja.attributions.integrated_gradients(m, rule=rule, baseline=start)
            gap = jax.jit(ja.attributions.completeness_gap(attribute))(logits_fn, x, 0)
            assert float(gap) == pytest.approx(factor * step @ A @ step / (2 * m), abs=2e-6)


def test_offset_of_the_logits_cancels():
    attribute = ja.attributions.integrated_gradients(4)
    gap = ja.attributions.completeness_gap(attribute)(lambda x: 1000 + x, jnp.array([0.25, 0.5]), 0)
    assert float(gap) == pytest.approx(0, abs=2000 * float(np.finfo(np.float32).eps))


@pytest.mark.parametrize("attribute", [ja.attributions.saliency(), lambda *_: 0])
def test_needs_a_baseline(attribute):
    with pytest.raises(ValueError, match="baseline"):
        ja.attributions.completeness_gap(attribute)


def test_a_baseline_of_one_value_a_channel():
    """It broadcasts against the image, for the map and for the output at the baseline alike."""
    channels, x = np.array([0.1, 0.2, 0.3], np.float32), jnp.full((2, 2, 3), 0.5)

    def logits_fn(x):
        return jnp.stack([jnp.sum(x**2), jnp.sum(x)])

    ig = ja.attributions.integrated_gradients(num_steps=3, baseline=channels)
    np.testing.assert_allclose(ig(logits_fn, x, 0), jnp.broadcast_to(0.25 - channels**2, x.shape), rtol=1e-5)
    assert abs(float(ja.attributions.completeness_gap(ig)(logits_fn, x, 0))) < 1e-5
