import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxattr.bounds import cosine_from_euclidean


@pytest.mark.parametrize("seed", range(3))
def test_no_vector_within_the_deviation_is_further_away(seed):
    rng = np.random.default_rng(seed)
    g = rng.normal(size=5)
    deviation = rng.uniform(0.1, 1) * np.linalg.norm(g)
    draws = rng.normal(size=(5000, 5))
    moved = g + deviation * draws / np.linalg.norm(draws, axis=1, keepdims=True)
    cosines = 1 - moved @ g / np.linalg.norm(moved, axis=1) / np.linalg.norm(g)
    with jax.enable_x64(True):
        cosine, degrees, vacuous = cosine_from_euclidean(jnp.asarray(deviation), jnp.asarray(np.linalg.norm(g)))
    assert not bool(vacuous)
    assert cosines.max() <= float(cosine) + 1e-12
    assert float(degrees) == pytest.approx(np.degrees(np.arcsin(deviation / np.linalg.norm(g))), rel=1e-12)
    assert float(cosine) == pytest.approx(1 - np.cos(np.radians(float(degrees))), rel=1e-10)
    # Equality where the moved vector is orthogonal to the move: h = g - T^2/||g||^2 g + t e, e orthogonal to g.
    sine = deviation / np.linalg.norm(g)
    e = draws[0] - (draws[0] @ g) / (g @ g) * g
    worst = g * (1 - sine**2) + e / np.linalg.norm(e) * deviation * np.sqrt(1 - sine**2)
    assert np.linalg.norm(worst - g) == pytest.approx(deviation)
    assert worst @ (worst - g) == pytest.approx(0, abs=1e-10)
    assert 1 - worst @ g / np.linalg.norm(worst) / np.linalg.norm(g) == pytest.approx(float(cosine), rel=1e-9)


@pytest.mark.parametrize(
    ("deviation", "norm", "expected"),
    [
        (0.0, 2.0, (0.0, 0.0, False)),
        (2.0, 2.0, (1.0, 90.0, False)),  # T = ||g|| still says something
        (np.nextafter(np.float32(2), np.float32(3)), 2.0, (2.0, 180.0, True)),
        (1e30, 1.0, (2.0, 180.0, True)),
        (np.inf, 1.0, (2.0, 180.0, True)),
        (0.5, 0.0, (np.nan, np.nan, True)),
        (0.0, 0.0, (np.nan, np.nan, True)),
        (np.nan, 1.0, (np.nan, np.nan, True)),
        (1.0, np.nan, (np.nan, np.nan, True)),
    ],
)
def test_singular_cases(deviation, norm, expected):
    found = cosine_from_euclidean(jnp.float32(deviation), jnp.float32(norm))
    np.testing.assert_array_equal([float(value) for value in found], [float(value) for value in expected])


def test_small_angles_do_not_cancel():
    # 1 - sqrt(1 - 1e-10) is 0 in float32 if computed as written.
    cosine, degrees, _ = cosine_from_euclidean(jnp.float32(1e-5), jnp.float32(1.0))
    assert float(cosine) == pytest.approx(5e-11, rel=1e-5, abs=0)
    assert float(degrees) == pytest.approx(np.degrees(1e-5), rel=1e-5)


def test_arrays_are_treated_entry_by_entry():
    cosine, degrees, vacuous = cosine_from_euclidean(jnp.array([0.5, 3.0, 1.0]), jnp.array([1.0, 1.0, 0.0]))
    np.testing.assert_allclose(degrees, [30, 180, np.nan], rtol=1e-6)
    np.testing.assert_allclose(cosine, [1 - np.sqrt(0.75), 2, np.nan], rtol=1e-6)
    np.testing.assert_array_equal(vacuous, [False, True, True])


def test_gradients_are_right_inside_and_never_nan():
    for index, derivative in ((0, 0.5 / np.sqrt(0.75)), (1, np.degrees(1 / np.sqrt(0.75)))):
        gradient = jax.grad(lambda deviation, i=index: cosine_from_euclidean(deviation, jnp.float32(1.0))[i])
        assert float(gradient(jnp.float32(0.5))) == pytest.approx(derivative, rel=1e-5)
        # A vacuous sample of a batch must not turn the gradient of the batch into NaN.
        assert float(gradient(jnp.float32(2.0))) == 0
