"""Smooth twins against the same functions written smooth by hand, and what cannot be made smooth."""

import dataclasses
import functools
import inspect
import logging
import re

import chex
import equinox as eqx
import flax.linen as nn
import frameworks
import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax import lax
from jax.tree_util import Partial

import jaxattr as ja

BETA = 10.0
Z = np.array([-3.0, -0.4, -0.02, 0.0, 0.3, 2.0, 5.9, 8.0])


def plus(z):
    return jax.nn.softplus(BETA * z) / BETA


def larger(a, b):
    return jnp.logaddexp(BETA * a, BETA * b) / BETA


def between(z, low, high):
    return low + plus(z - low) - plus(z - high)


def elu(z, scale, width):
    return plus(z) + scale * jnp.expm1(-plus(-z) / width)


def leaky(z, slope):
    return slope * z + (1 - slope) * plus(z)


def pooled(x, window, strides=None, padding="VALID"):
    """The window's log-sum-exp, as flax.linen.max_pool is called."""
    sizes, steps = (1, *window, 1), (1, *(strides or (1, 1)), 1)
    padding = padding if isinstance(padding, str) else [(0, 0), *padding, (0, 0)]
    return jnp.log(lax.reduce_window(jnp.exp(BETA * x), 0.0, lax.add, sizes, steps, padding)) / BETA


@jax.custom_jvp
def own_relu(z):
    return jnp.maximum(z, 0)


own_relu.defjvps(lambda t, _, z: t * (z > 0))


@jax.jit
def clip(z, low):
    """Not JAX's, but of its name."""
    return jnp.minimum(jnp.maximum(z, low), 1) + low


def in_loops(relu, maximum):
    def function(z):
        _, y = lax.scan(lambda c, v: (relu(c - v), maximum(c, v)), jnp.zeros_like(z[0]), z)
        y = lax.fori_loop(0, 2, lambda i, v: relu(v - 0.1 * i), y)
        y = lax.cond(True, lambda v: relu(v - 1), jnp.sin, y)
        return jax.checkpoint(lambda v: relu(v) * v)(y)

    return function


# Name: the function, and the same by hand.
OPERATIONS = {
    "relu": (jax.nn.relu, plus),
    "relu6": (jax.nn.relu6, lambda z: between(z, 0, 6)),
    "leaky_relu": (jax.nn.leaky_relu, lambda z: leaky(z, 0.01)),
    "leaky_relu_of_a_slope": (lambda z: jax.nn.leaky_relu(z, 0.3), lambda z: leaky(z, 0.3)),
    "elu": (jax.nn.elu, lambda z: elu(z, 1, 1)),
    "elu_of_a_scale": (lambda z: jax.nn.elu(z, alpha=0.3), lambda z: elu(z, 0.3, 1)),
    "celu": (jax.nn.celu, lambda z: elu(z, 1, 1)),
    "celu_of_a_width": (lambda z: jax.nn.celu(z, 0.3), lambda z: elu(z, 0.3, 0.3)),
    "selu": (jax.nn.selu, lambda z: 1.0507009873554805 * elu(z, 1.6732632423543772, 1)),
    "hard_tanh": (jax.nn.hard_tanh, lambda z: between(z, -1, 1)),
    "hard_sigmoid": (jax.nn.hard_sigmoid, lambda z: between(z + 3, 0, 6) / 6),
    "hard_silu": (jax.nn.hard_silu, lambda z: z * between(z + 3, 0, 6) / 6),
    "soft_sign": (jax.nn.soft_sign, lambda z: z / (1 + larger(z, -z))),
    "prelu": (
        lambda z: nn.PReLU().apply({"params": {"negative_slope": jnp.asarray(0.3)}}, z),
        lambda z: leaky(z, jnp.asarray(0.3)),
    ),
    "clip": (lambda z: jnp.clip(z, 0, 3), lambda z: between(z, 0, 3)),
    "clip_from_below": (lambda z: jnp.clip(z, min=1), lambda z: larger(z, 1.0)),
    "clip_from_above": (lambda z: jnp.clip(z, max=1), lambda z: -larger(-z, -1.0)),
    "clip_by_the_input": (lambda z: jnp.clip(z, z[0], z[1]), lambda z: -larger(-larger(z, z[0]), -z[1])),
    "clip_of_another_name": (lambda z: clip(z, -1.0), lambda z: -larger(-larger(z, -1.0), -1.0) - 1.0),
    "clamp": (lambda z: lax.clamp(-1.0, z, 3.0), lambda z: between(z, -1, 3)),
    "max_with_zero": (lambda z: jnp.maximum(0, z), plus),
    "max": (lambda z: jnp.maximum(z, z[::-1]), lambda z: larger(z, z[::-1])),
    "min": (lambda z: jnp.minimum(z, z[::-1]), lambda z: -larger(-z, -z[::-1])),
    "abs": (jnp.abs, lambda z: larger(z, -z)),
    "reduce_max": (lambda z: z.reshape(2, 4).max(0), lambda z: larger(z[:4], z[4:])),
    "reduce_min": (lambda z: z.min() * z, lambda z: -jax.nn.logsumexp(-BETA * z) / BETA * z),
    "ptp": (lambda z: jnp.ptp(z) * z, lambda z: (jax.nn.logsumexp(BETA * z) + jax.nn.logsumexp(-BETA * z)) / BETA * z),
    "cummax": (lax.cummax, lambda z: jnp.log(jnp.cumsum(jnp.exp(BETA * z))) / BETA),
    "where_relu": (lambda z: jnp.where(z > 0, z, 0), plus),
    "where_not_relu": (lambda z: jnp.where(z <= 0, 0.0, z), plus),
    "where_leaky": (lambda z: jnp.where(z < 0, 0.3 * z, z), lambda z: leaky(z, 0.3)),
    "where_abs": (lambda z: jnp.where(z >= 0, z, -z), lambda z: plus(z) + plus(-z)),
    "where_min": (lambda z: jnp.where(z > 3, 3, z), lambda z: -larger(-z, -3.0)),
    "own_custom_jvp": (own_relu, plus),
    "loops": (in_loops(jax.nn.relu, jnp.maximum), in_loops(plus, larger)),
    "smooth_parts": (
        lambda z: jax.nn.softmax(jax.nn.relu(z)) + jax.nn.gelu(z) + jnp.where(jnp.arange(8) > 3, z, 0),
        lambda z: jax.nn.softmax(plus(z)) + jax.nn.gelu(z) + jnp.where(jnp.arange(8) > 3, z, 0),
    ),
}


def derivatives(function, x):
    """Value, gradient, and a product with the Hessian."""

    def energy(x):
        return sum(jnp.sum(jnp.sin(leaf)) for leaf in jax.tree.leaves(function(x)))

    gradient, product = jax.jvp(jax.grad(energy), (x,), (jnp.cos(7 * x),))
    return function(x), gradient, product


def assert_equal(both):
    """Values and derivatives of two functions, to 1e-5 of the largest entry of each."""
    for ours, by_hand in zip(*map(jax.tree.leaves, both), strict=True):
        assert ours.dtype == by_hand.dtype
        np.testing.assert_allclose(ours, by_hand, rtol=0, atol=1e-5 * np.abs(by_hand).max())


def assert_same(first, second, x):
    """Two functions have the same values and derivatives."""
    assert_equal(jax.jit(lambda x: (derivatives(first, x), derivatives(second, x)))(x))


@functools.cache
def twins():
    with jax.enable_x64(True):
        return {name: ja.smooth(function, jnp.asarray(Z)) for name, (function, _) in OPERATIONS.items()}


@functools.cache
def of_all_operations():
    """Values and derivatives of all twins and of the functions by hand, as one program."""

    @jax.jit
    def compute(z):
        return {n: (derivatives(twins()[n], z), derivatives(by_hand, z)) for n, (_, by_hand) in OPERATIONS.items()}

    with jax.enable_x64(True):
        return compute(jnp.asarray(Z))


@pytest.mark.parametrize("name", OPERATIONS)
def test_stand_ins_are_those_of_the_table(name):
    assert_equal(of_all_operations()[name])
    with jax.enable_x64(True):
        assert ja.kinks(OPERATIONS[name][0], jnp.asarray(Z))
        assert ja.kinks(twins()[name], jnp.asarray(Z)) == []


WINDOWS = {
    "halves": ((2, 2), (2, 2), "VALID"),
    "overlapping": ((3, 3), (2, 2), "SAME"),
    "dense": ((2, 3), (1, 1), "VALID"),
    "padded": ((3, 2), (2, 3), ((1, 2), (0, 1))),
    "all": ((7, 6), (1, 1), "VALID"),
    "gaps": ((2, 2), (3, 3), "VALID"),
}


@pytest.mark.parametrize("name", WINDOWS)
def test_max_pooling_of_any_window(name):
    window, strides, padding = WINDOWS[name]
    with jax.enable_x64(True):
        # Ties, as between black pixels.
        x = jnp.asarray(np.random.default_rng(0).normal(size=(1, 7, 6, 2))).at[:, :3].set(0.0)
        assert_same(
            ja.smooth(lambda x: nn.max_pool(x, window, strides, padding), x),
            lambda x: pooled(x, window, strides, padding),
            x,
        )


def test_max_pooling_with_dilation_and_of_minima():
    with jax.enable_x64(True):
        x = jnp.asarray(np.random.default_rng(0).normal(size=(9, 8)))
        options = {"window_dimensions": (2, 3), "window_strides": (2, 1), "padding": ((1, 0), (1, 2))}
        options |= {"base_dilation": (1, 2), "window_dilation": (3, 1)}
        least = ja.smooth(lambda x: lax.reduce_window(x, jnp.inf, lax.min, **options), x)
        assert_same(least, lambda x: -jnp.log(lax.reduce_window(jnp.exp(-BETA * x), 0.0, lax.add, **options)) / BETA, x)
        # A start that is an argument, which hides from JAX that it is a maximum.
        with_start = ja.smooth(lambda start, x: lax.reduce_window(x, start, lax.max, (3, 2), (2, 2), "VALID"))
        assert_same(
            lambda x: with_start(jnp.asarray(-jnp.inf), x),
            lambda x: pooled(x[None, :, :, None], (3, 2), (2, 2))[0, :, :, 0],
            x,
        )


def test_poolings_lie_where_they_are_said_to():
    x = jnp.asarray(np.random.default_rng(0).normal(size=(1, 7, 7, 3)), jnp.float32)
    pool = functools.partial(nn.max_pool, window_shape=(3, 3), strides=(2, 2), padding="SAME")
    largest, counts = pool(x), jnp.ones((1, 7, 7, 1))
    above, below, mean = (ja.smooth(pool, x, pooling=kind)(x) for kind in ("logsumexp", "logmeanexp", "average"))
    counts = 9 * nn.avg_pool(counts, (3, 3), (2, 2), "SAME")
    assert (above >= largest).all()
    assert (above <= largest + np.log(counts) / BETA + 1e-6).all()
    np.testing.assert_allclose(below, above - np.log(counts) / BETA, atol=1e-6)
    by_hand = functools.partial(
        nn.avg_pool, window_shape=(3, 3), strides=(2, 2), padding="SAME", count_include_pad=False
    )
    np.testing.assert_allclose(mean, by_hand(x), atol=1e-6)
    assert_same(ja.smooth(pool, x, pooling="average"), by_hand, x)
    for kind in ("logsumexp", "logmeanexp"):
        sharp = ja.smooth(pool, x, beta=1e4, pooling=kind)(x)
        np.testing.assert_allclose(sharp, largest, atol=3e-4)


# One network per framework, of an activation and a pooling


def _linen(activation, pool):
    return frameworks.one(frameworks.ConvNet(activation, pool), frameworks.IMAGE)


def _nnx(activation, pool):
    class Net(nnx.Module):
        def __init__(self, rngs):
            self.conv, self.norm = nnx.Conv(2, 4, (3, 3), rngs=rngs), nnx.BatchNorm(4, rngs=rngs)
            self.head = nnx.Linear(36, 3, rngs=rngs)

        def __call__(self, x):
            return self.head(pool(activation(self.norm(self.conv(x[None]))), (2, 2), (2, 2)).reshape(-1))

    model = Net(nnx.Rngs(0))
    model.eval()
    return model


def _equinox(activation, pool):
    def halved(x):
        return pool(x.transpose(1, 2, 0)[None], (2, 2), (2, 2))[0].transpose(2, 0, 1)

    return frameworks.Equinox(activation, eqx.nn.MaxPool2d(2, 2) if pool is nn.max_pool else halved)


def _haiku(activation, pool):
    def network(x):
        x = activation(hk.Conv2D(3, 3)(x[None]))
        x = hk.max_pool(x, (2, 2, 1), (2, 2, 1), "SAME") if pool is nn.max_pool else pool(x, (2, 2), (2, 2))
        return hk.nets.MLP([5, 3], activation=activation)(x.reshape(-1))

    transformed = hk.without_apply_rng(hk.transform(network))
    return Partial(transformed.apply, transformed.init(frameworks.KEY, jnp.ones(frameworks.IMAGE)))


def _jax(activation, pool):
    kernel, head = (np.random.default_rng(2).normal(size=shape) for shape in ((3, 3, 2, 4), (36, 3)))

    def network(weights, x):
        x = lax.conv_general_dilated(x[None], weights[0], (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
        return pool(activation(x), (2, 2), (2, 2)).reshape(-1) @ weights[1]

    return Partial(network, [jnp.asarray(kernel), jnp.asarray(head)])


@pytest.mark.parametrize("build", [_linen, _nnx, _equinox, _haiku, _jax])
def test_networks_of_all_frameworks_against_networks_written_by_hand(build):
    with jax.enable_x64(True):
        x = jnp.asarray(np.random.default_rng(1).normal(size=frameworks.IMAGE))
        twin = ja.smooth(build(jax.nn.relu, nn.max_pool), x)
        assert_same(twin, build(plus, pooled), x)
        assert ja.kinks(twin, x) == []


# What has no smooth stand-in, by what is refused.
REFUSED = {
    "jax_abs_clip_and_sign": ["sign"],
    "jax_mask": ["gt"],
    "jax_straight_through": ["round", "stop_gradient"],
    "jax_quantized": ["convert_element_type"],
    "jax_gather_by_the_input": ["argmax"],
    "jax_sort": ["sort", "top_k"],
    "jax_branch_by_the_input": ["cond"],
    "jax_loop_by_the_input": ["while"],
}


@pytest.mark.parametrize("name", frameworks.NETWORKS)
def test_every_network_has_a_twin_without_kinks_or_is_refused(name):
    network = frameworks.NETWORKS[name]
    function, x = network.build(), frameworks.example(network.shape)
    if name in REFUSED:
        with pytest.raises(ValueError, match=f"no smooth stand-in for {len(REFUSED[name])} operation") as refused:
            ja.smooth(function, x)
        for operation in REFUSED[name]:
            assert f"  {operation} [" in str(refused.value)
        assert re.search(network.where, str(refused.value))
        return
    twin = ja.smooth(function, x)
    assert ja.kinks(twin, x) == []
    before, after = (jax.tree.leaves(f) for f in (function, twin))
    # Functions are leaves of themselves; of all others the leaves are the same arrays.
    assert all(a is b for a, b in zip(before, after, strict=True)) or before == [function]


def test_what_is_refused_is_named_with_its_place():
    def network(x):
        return jnp.sum(jnp.floor(jax.nn.relu(x)))

    line = inspect.getsourcelines(network)[1] + 1
    with pytest.raises(ValueError, match=rf"(?s)1 operation .*floor \[3\] at .*test_smooth.py:{line} \(.*take it out"):
        ja.smooth(network, jnp.ones(3))
    # Without an example when it is traced.
    twin = ja.smooth(network)
    with pytest.raises(ValueError, match="floor"):
        jax.jit(twin)(jnp.ones(3))
    with pytest.raises(ValueError, match=r"select_n.*\n.*\n.*jax.grad\(ja.smooth\(fn\)\)"):
        ja.smooth(jax.grad(lambda x: jax.nn.relu(x).sum()), jnp.ones(3))
    with pytest.raises(ValueError, match="sparse_plus"):
        ja.smooth(jax.nn.sparse_plus, jnp.ones(3))


def test_arguments_are_checked():
    for beta in (0, -1.0, float("nan"), "soft", True, None):
        with pytest.raises(ValueError, match=r'`beta` must be a finite number above 0, got .* or "match"'):
            ja.smooth(jax.nn.relu, beta=beta)
    with pytest.raises(ValueError, match="'max'; accepted are 'logsumexp', 'logmeanexp', 'average'"):
        ja.smooth(jax.nn.relu, pooling="max")
    with pytest.raises(TypeError, match="`fn` must be a function, got int"):
        ja.smooth(3)
    with pytest.raises(ValueError, match="needs `samples`"):
        ja.smooth(jax.nn.relu, beta="match")
    with pytest.raises(ValueError, match='`samples` are for beta="match", but beta is 10'):
        ja.smooth(jax.nn.relu, samples=jnp.ones((2, 3)))
    with pytest.raises(ValueError, match=r"floating-point type.*int32"):
        ja.smooth(jax.nn.relu)(jnp.arange(3))


def test_any_signature():
    def apply(variables, xs, *, train=False, key=None, scale=1.0, layers=2):
        assert train in (True, False)
        for _ in range(layers):
            xs = {name: jax.nn.relu(x @ variables["w"]) * scale for name, x in xs.items()}
        return xs, {"key": key, "none": None}

    twin = ja.smooth(apply)
    assert inspect.signature(twin) == inspect.signature(apply)
    key, variables, xs = jax.random.key(0), {"w": jnp.eye(2)}, {"a": jnp.array([0.5, -0.5])}
    found, rest = twin(variables, xs, train=True, key=key, scale=2.0, layers=1)
    np.testing.assert_allclose(found["a"], 2 * plus(xs["a"]), rtol=1e-6)
    assert rest["key"] == key
    assert rest["none"] is None
    jitted = jax.jit(twin, static_argnames=("train", "layers"))(variables, xs, train=False, key=key, layers=1)[0]
    np.testing.assert_allclose(jitted["a"], plus(xs["a"]), rtol=1e-6)
    # A number is an input, too.
    np.testing.assert_allclose(ja.smooth(jax.nn.relu)(0.0), np.log(2) / BETA, rtol=1e-6)
    assert ja.smooth(jax.nn.relu) == ja.smooth(jax.nn.relu, jnp.ones(2))
    assert hash(ja.smooth(jax.nn.relu)) != hash(ja.smooth(jax.nn.relu, beta=3.0))


def test_under_transformations():
    twin = ja.smooth(lambda x: jnp.max(jax.nn.relu(x)))

    def hand(x):
        return jax.nn.logsumexp(BETA * plus(x)) / BETA

    xs = jnp.asarray(np.random.default_rng(0).normal(size=(3, 4)), jnp.float32)
    of_batch = ja.smooth(jax.vmap(lambda x: jnp.max(jax.nn.relu(x))))

    @jax.jit
    def transformed(xs):
        _, scanned = lax.scan(lambda c, x: (c, jax.grad(twin)(x)), 0, xs)
        gradients = [jax.vmap(jax.grad(twin))(xs), lax.map(jax.grad(twin), xs), scanned]
        return gradients, jax.vmap(jax.grad(hand))(xs), of_batch(xs), jax.vmap(hand)(xs)

    gradients, expected, values, expected_values = transformed(xs)
    for gradient in gradients:
        np.testing.assert_allclose(gradient, expected, rtol=1e-4)
    np.testing.assert_allclose(values, expected_values, rtol=1e-5)
    chex.assert_numerical_grads(jax.jit(twin), (xs[0],), order=2)

    def count(x):
        return lax.while_loop(lambda s: s[0] < 2, lambda s: (s[0] + 1, jax.nn.relu(s[1] + 0.5)), (0, x))[1]

    np.testing.assert_allclose(jax.jit(ja.smooth(count))(xs[0]), plus(plus(xs[0] + 0.5) + 0.5), rtol=1e-5)
    # Under a check that no tracer outlives its trace.
    with jax.checking_leaks():
        twin = ja.smooth(in_loops(lambda z: jnp.where(z > 0, z, 0), jnp.maximum))
        jax.eval_shape(lambda xs: lax.map(twin, xs), xs)


def test_weights_stay_arguments_and_are_compiled_once():
    def network(weights, x):
        # A kink of the weights alone is none of the function of x.
        return jax.nn.relu(x @ jnp.round(weights["w"])) * jnp.abs(weights["scale"])

    traces = []

    @jax.jit
    def run(logits_fn, x):
        traces.append(None)
        return logits_fn(x)

    x = jnp.array([0.3, -0.3])
    for scale in (1.0, -2.0):
        original = Partial(network, {"w": jnp.array([[1.2, 0.0], [0.0, 0.9]]), "scale": jnp.asarray(scale)})
        twin = ja.smooth(original, x)
        assert isinstance(twin, Partial)
        chex.assert_trees_all_equal(twin.args, original.args)
        np.testing.assert_allclose(run(twin, x), plus(x) * abs(scale), rtol=1e-6)
    assert len(traces) == 1


def test_other_callable_pytrees_keep_their_arrays_as_leaves():
    @functools.partial(jax.tree_util.register_dataclass, data_fields=["w"], meta_fields=[])
    @dataclasses.dataclass(frozen=True)
    class Layer:
        w: jax.Array

        def __call__(self, x):
            return jax.nn.relu(self.w * x)

    x = jnp.array([0.1, -0.1])
    twin = ja.smooth(Layer(w=jnp.array([1.0, 2.0])), x)
    np.testing.assert_allclose(twin(x), plus(jnp.array([0.1, -0.2])), rtol=1e-6)
    assert jax.tree.leaves(twin)[0].tolist() == [1.0, 2.0]
    moved = jax.tree.map(lambda w: 2 * w, twin)
    np.testing.assert_allclose(jax.jit(lambda f, x: f(x))(moved, x), plus(jnp.array([0.2, -0.4])), rtol=1e-6)


def test_a_bound_linen_module_is_unbound():
    model = frameworks.Head(nn.relu)
    variables = model.init(frameworks.KEY, jnp.ones(4))
    twin = ja.smooth(model.bind(variables), jnp.ones(4))
    chex.assert_trees_all_equal(jax.tree.leaves(twin), jax.tree.leaves(variables))
    np.testing.assert_allclose(twin(jnp.ones(4)), frameworks.Head(plus).apply(variables, jnp.ones(4)), rtol=1e-5)


def test_half_precision_stays():
    @jax.jit
    @ja.smooth
    def twin(x):
        return jnp.clip(jax.nn.leaky_relu(x), 0, 1) + jnp.max(x) + jax.nn.selu(x) + jnp.maximum(x, x[::-1])

    for dtype in (jnp.bfloat16, jnp.float16):
        x = jnp.array([-1.0, 0.0, 2.0], dtype)
        assert twin(x).dtype == dtype
        np.testing.assert_allclose(twin(x).astype(jnp.float32), twin(x.astype(jnp.float32)), atol=0.1)


def test_bounds_refuse_the_network_and_take_the_twin():
    rng = np.random.default_rng(0)
    first, second = jnp.asarray(rng.normal(size=(64, 20))), jnp.asarray(rng.normal(size=(3, 64)) / 8)

    def network(x):
        return second @ jax.nn.relu(first @ (x - 0.5))

    x, key, ball = jnp.asarray(rng.uniform(size=20)), jax.random.key(0), ja.L2(0.01)
    saliency = ja.attributions.saliency()
    bound = ja.bounds.singular_value(saliency, ball)
    with pytest.raises(ValueError, match=r"(?s)needs two derivatives.*1 x relu.*ja.smooth"):
        bound(network, x, 0, key)
    twin = ja.smooth(network, x)
    limit = jax.jit(lambda x: bound(twin, x, 0, key).euclidean)(x)
    points = jax.vmap(lambda k: x + ball.sample(k, x.shape))(jax.random.split(key, 50))
    maps = jax.jit(jax.vmap(lambda z: saliency(twin, z, 0)))(jnp.stack([x, *points]))
    assert 0 < jnp.linalg.norm(maps - maps[0], axis=1).max() < limit


# The smallest beta that keeps the decisions


def switched(x):
    """Two classes: the second leads where relu is above 0.1, the first where its softplus is below."""
    return jnp.stack([jnp.full_like(x[0], 0.1), jax.nn.relu(x[0])])


def test_match_finds_the_smallest_beta_of_the_grid(caplog):
    # The twin differs where 0 < z < 0.1 is lifted above 0.1, or z < 0 is.
    samples = jnp.linspace(-1, 1, 201)[:, None]
    grid = (1.0, 4.0, 8.0, 16.0, 32.0)
    z = np.asarray(samples[:, 0], np.float64)
    lifted = np.log1p(np.exp(np.outer(grid, z))) / np.array(grid)[:, None]
    expected = ((lifted > 0.1) == (z > 0.1)).mean(1)
    with caplog.at_level(logging.INFO, "jaxattr"):
        match = ja.smooth_match(switched, samples, betas=grid[::-1], agreement=0.98)
    assert match.beta == grid[np.argmax(expected >= 0.98)]
    tried = grid.index(match.beta) + 1
    np.testing.assert_allclose(match.table, list(zip(grid, expected, strict=True))[:tried], atol=1.1 / 201)
    assert match.agreement == match.table[-1][1] >= 0.98 > match.table[-2][1]
    assert f"beta={match.beta:g} keeps" in caplog.text
    assert ja.smooth(switched, beta="match", samples=samples, betas=grid) == match.twin
    assert ja.smooth(switched, beta=match.beta) == match.twin


def test_match_says_when_no_beta_is_enough():
    samples = jnp.linspace(-1, 1, 101)[:, None]
    with pytest.raises(ValueError, match=r"no beta up to 2 keeps 98.0% of 101 decisions; best is beta=2 with"):
        ja.smooth_match(switched, samples, betas=(1.0, 2.0))
    for agreement in (0.0, 1.5, "all"):
        with pytest.raises(ValueError, match="`agreement` is"):
            ja.smooth_match(switched, samples, agreement=agreement)
    for arguments in ({"betas": ()}, {"samples": jnp.zeros((0, 1))}, {"samples": 1.0}):
        with pytest.raises(ValueError, match="`betas` and `samples` must have"):
            ja.smooth_match(switched, **{"samples": samples, **arguments})
    with pytest.raises(ValueError, match=r"must return its logits, of shape \(classes,\)"):
        ja.smooth_match(lambda x: {"logits": switched(x)}, samples)


def test_match_takes_weights_pytrees_one_logit_and_counts_what_is_not_finite():
    samples = {"x": jnp.array([-1.0, -0.5, 0.5, 1.0, jnp.nan])}
    network = Partial(lambda w, x: jax.nn.leaky_relu(x["x"]) * w, jnp.asarray(3.0))
    match = ja.smooth_match(network, samples, agreement=0.8, betas=(100.0,))
    assert match.agreement == pytest.approx(0.8)
    assert isinstance(match.twin, Partial)
    with pytest.raises(ValueError, match="no beta"):
        ja.smooth_match(network, samples, agreement=0.9, betas=(100.0,))
