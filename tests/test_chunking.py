import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxattr._chunking import map_over, sum_over

CHUNKS = [1, 2, 3, 7, 10, 11, 100, None]


def term(argument):
    return argument["weight"] * jnp.sin(argument["point"])


@pytest.fixture
def arguments():
    rng = np.random.default_rng(0)
    return {"weight": jnp.asarray(rng.normal(size=10)), "point": jnp.asarray(rng.normal(size=(10, 3)))}


@pytest.mark.parametrize("chunk", CHUNKS)
def test_sum_in_chunks(arguments, chunk):
    expected = np.sum(np.asarray(arguments["weight"])[:, None] * np.sin(arguments["point"]), axis=0)
    np.testing.assert_allclose(sum_over(term, arguments, chunk), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("chunk", CHUNKS)
def test_map_in_chunks(arguments, chunk):
    expected = np.asarray(arguments["weight"])[:, None] * np.sin(arguments["point"])
    np.testing.assert_allclose(map_over(term, arguments, chunk), expected, rtol=1e-5, atol=1e-6)


def test_map_keeps_the_structure_of_the_values(arguments):
    found = map_over(lambda a: {"twice": 2 * a["weight"], "pair": (a["point"],)}, arguments, 4)
    np.testing.assert_array_equal(found["twice"], 2 * arguments["weight"])
    np.testing.assert_array_equal(found["pair"][0], arguments["point"])


def test_filling_up_a_block_adds_nothing():
    # 4 = 2 + 2 blocks of 3 terms: the last term is there twice, and its infinity must not become NaN or double.
    values = jnp.array([1.0, 2.0, 3.0, 4.0, 5.0])
    assert float(sum_over(lambda v: v, values, 3)) == 15.0
    assert float(sum_over(lambda v: 1 / (5 - v), jnp.array([1.0, 3.0, 4.0, 5.0, 5.0]), 3)) == np.inf
    gradient = jax.grad(lambda v: sum_over(jnp.sqrt, v, 3))(jnp.array([4.0, 4.0, 1.0, 1.0, 0.25]))
    np.testing.assert_allclose(gradient, [0.25, 0.25, 0.5, 0.5, 1.0])


@pytest.mark.parametrize("chunk", [3, None])
def test_gradients_go_through(arguments, chunk):
    gradient = jax.grad(lambda p: jnp.sum(sum_over(term, {**arguments, "point": p}, chunk)))(arguments["point"])
    expected = np.asarray(arguments["weight"])[:, None] * np.cos(arguments["point"])
    np.testing.assert_allclose(gradient, expected, rtol=1e-5)


@pytest.mark.parametrize("function", [sum_over, map_over])
@pytest.mark.parametrize(("chunk", "error"), [(0, ValueError), (-1, ValueError), (2.5, TypeError), (True, TypeError)])
def test_chunk_must_be_a_count(arguments, function, chunk, error):
    with pytest.raises(error, match="chunk"):
        function(term, arguments, chunk)


def test_memory_follows_the_chunk_and_not_the_number_of_terms():
    def temporary(terms, chunk):
        # A product that cannot be fused into the sum: what is held at once is really there.
        def total(points, x):
            return sum_over(lambda p: jnp.sort(p * x), points, chunk)

        compiled = jax.jit(total).lower(jnp.ones(terms), jnp.ones(4096)).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    one = 4096 * 4
    assert temporary(200, 2) <= temporary(10, 2) + one / 2  # the points themselves are a kilobyte
    assert temporary(200, 100) > temporary(200, 2) + 50 * one
