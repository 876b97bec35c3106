import jax.numpy as jnp
import numpy as np
import pytest

import jaxattr as ja


def test_smallest_difference_over_samples():
    rng = np.random.default_rng(0)
    bounds, deviations = rng.uniform(1, 2, size=50), rng.uniform(0, 1.2, size=50)
    found = ja.bounds.tightness(jnp.asarray(bounds, jnp.float32), deviations.astype(np.float32))
    assert float(found) == pytest.approx((bounds - deviations).min(), abs=1e-6)


def test_negative_where_an_attack_exceeds_its_bound():
    assert float(ja.bounds.tightness([1.0, 2.0], [0.5, 2.25])) == -0.25


def test_nan_is_not_hidden():
    assert np.isnan(ja.bounds.tightness([1.0, np.nan], [0.5, 0.5]))


@pytest.mark.parametrize("deviations", [[0.5], [[0.5, 0.5]], 0.5])
def test_one_value_per_sample(deviations):
    with pytest.raises(ValueError, match="one value per sample"):
        ja.bounds.tightness([1.0, 2.0], deviations)
    with pytest.raises(ValueError, match="one value per sample"):
        ja.bounds.tightness([], [])
