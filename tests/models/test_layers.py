import functools

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxattr.models import ConvNet, SmallCNN, normalize, pool, softplus

EPS = float(jnp.finfo(jnp.float32).eps)


@pytest.mark.parametrize("beta", [1.0, 10.0, 50.0])
def test_softplus_and_its_derivatives_against_float64(beta):
    z = np.linspace(-60, 60, 241).astype(np.float32) / beta
    t = np.float64(beta) * z
    sigmoid = 1 / (1 + np.exp(-t))
    mirrored = 1 / (1 + np.exp(t))
    expected = [
        np.logaddexp(t, 0) / beta,
        sigmoid,
        beta * sigmoid * mirrored,
        beta**2 * sigmoid * mirrored * (mirrored - sigmoid),
    ]
    function = softplus(beta)
    for order, values in enumerate(expected):
        # The rounding of beta * z is magnified by |beta z| <= 60; 4 for the operations themselves.
        computed = np.asarray(jax.jit(jax.vmap(function))(z), np.float64)
        if order < 3:
            np.testing.assert_allclose(computed, values, rtol=64 * EPS, atol=0)
        else:  # changes sign at 0, where nothing relative is left
            np.testing.assert_allclose(computed, values, rtol=64 * EPS, atol=EPS * beta**2)
        function = jax.grad(function)


def test_softplus_to_the_last_digits():
    """At beta = 1 the input is not rounded: what is left is the function's own error."""
    z = np.linspace(-80, 80, 20001).astype(np.float32)
    np.testing.assert_allclose(jax.jit(softplus(1.0))(z), np.logaddexp(np.float64(z), 0), rtol=3 * EPS, atol=0)
    assert np.isnan(softplus(1.0)(jnp.array([jnp.nan])))


def test_softplus_is_finite_at_the_ends_of_float32():
    z = jnp.array([-3e37, -1e4, 1e4, 3e37])
    function = softplus(5.0)
    for _ in range(3):
        assert np.isfinite(jax.jit(jax.vmap(function))(z)).all()
        function = jax.grad(function)


@pytest.mark.parametrize("beta", [0.0, -1.0, float("inf"), float("nan"), "1"])
def test_softplus_refuses(beta):
    with pytest.raises(ValueError, match="`beta` must be a finite number above 0"):
        softplus(beta)
    with pytest.raises(ValueError, match="`beta` must be"):
        SmallCNN(beta=beta)


def test_normalize_has_one_number_per_channel():
    x = jnp.arange(12.0).reshape(2, 2, 3)
    y = normalize((1.0, 2.0, 3.0), (0.5, 1.0, 2.0))(x)
    np.testing.assert_allclose(y[1, 0], [(6 - 1) / 0.5, 7 - 2, (8 - 3) / 2], rtol=4 * EPS)
    assert normalize(0.0, 1.0)(x.astype(jnp.bfloat16)).dtype == jnp.bfloat16
    with pytest.raises(ValueError, match="`std` must be a finite number above 0, got 0"):
        normalize(0.5, (1.0, 0.0))


def test_pooling_against_numpy_and_its_limits():
    pooled = jax.jit(pool, static_argnums=(1, 2))
    x = np.random.default_rng(0).normal(size=(2, 5, 6, 3)).astype(np.float32)
    # An odd last row is dropped by every kind.
    windows = x[:, :4].reshape(2, 2, 2, 3, 2, 3).transpose(0, 1, 3, 5, 2, 4).reshape(2, 2, 3, 3, 4)
    expected = {
        "average": windows.mean(-1),
        "max": windows.max(-1),
        "logsumexp": 0.5 * np.log(np.exp(windows.astype(np.float64) / 0.5).mean(-1)),
    }
    for kind, values in expected.items():
        np.testing.assert_allclose(pooled(x, kind, 0.5), values, rtol=1e-5, atol=1e-6)
    # log-mean-exp is within t log 4 of the maximum, and within var / (2 t) of the mean.
    np.testing.assert_allclose(pooled(x, "logsumexp", 1e-4), expected["max"], atol=2e-4)
    np.testing.assert_allclose(pooled(x, "logsumexp", 1e3), expected["average"], atol=1e-2)
    np.testing.assert_array_equal(pooled(x, "stride"), x)


@pytest.mark.parametrize(
    ("window", "strides", "padding"),
    [((3, 3), (2, 2), "SAME"), ((2, 3), None, "VALID"), ((3, 2), (1, 2), ((1, 0), (1, 1))), ((2, 2), (1, 1), "VALID")],
)
def test_pooling_over_any_window_against_flax(window, strides, padding):
    """Values, and derivatives to the second order."""
    steps = window if strides is None else strides

    def mean(z):
        return nn.avg_pool(z, window, steps, padding, count_include_pad=False)

    hand = {
        "average": mean,
        "max": lambda z: nn.max_pool(z, window, steps, padding),
        "logsumexp": lambda z: 0.5 * jnp.log(mean(jnp.exp(z / 0.5))),
    }

    def derivatives(function, x):
        gradient = jax.grad(lambda x: jnp.sum(jnp.sin(function(x))))
        return function(x), *jax.jvp(gradient, (x,), (jnp.cos(7 * x),))

    with jax.enable_x64(True):
        x = jnp.asarray(np.random.default_rng(1).normal(size=(2, 5, 6, 2)))
        for kind, function in hand.items():
            ours = functools.partial(pool, kind=kind, temperature=0.5, window=window, strides=strides, padding=padding)
            # JAX has no second derivative of max-pooling in this order.
            of = derivatives if kind != "max" else lambda f, x: f(x)
            both = jax.jit(lambda x, f=(ours, function), of=of: [of(each, x) for each in f])(x)
            chex.assert_trees_all_close(*both, rtol=1e-10, atol=1e-12)


def test_pooling_refuses_windows_that_are_none():
    x = jnp.zeros((1, 4, 4, 1))
    for options in ({"window": 2}, {"window": (2, 0)}, {"strides": (1, 1, 1)}, {"strides": (1.0, 1.0)}):
        with pytest.raises(ValueError, match="give two positive integers"):
            pool(x, **options)
    for padding in ("CIRCULAR", ((1, 1),), (1, 1), ((0, -1), (0, 0))):
        with pytest.raises(ValueError, match="give 'VALID', 'SAME', or two pairs"):
            pool(x, padding=padding)


def test_only_max_pooling_makes_the_gradient_jump_at_ties():
    tie = jnp.zeros((1, 2, 2, 1))
    nudge = tie.at[0, 0, 0, 0].set(1e-4)
    for kind, jumps in {"average": False, "logsumexp": False, "max": True}.items():
        gradient = jax.jit(jax.grad(lambda x, kind=kind: pool(x, kind, 0.5).sum()))
        # A smooth kind changes by at most the curvature 1 / (4 t) times the nudge.
        moved = float(jnp.abs(gradient(nudge) - gradient(-nudge)).max())
        assert (moved > 0.1) == jumps, kind
        assert jumps or moved < 1e-3, kind


def test_pooling_refuses():
    with pytest.raises(ValueError, match=r"'median'; accepted are 'average', 'stride'"):
        ConvNet(pooling="median")
    with pytest.raises(ValueError, match="'median'"):
        pool(jnp.zeros((1, 2, 2, 1)), "median")
    with pytest.raises(ValueError, match="`temperature` must be a finite number above 0"):
        SmallCNN(pooling="logsumexp", temperature=0.0)
