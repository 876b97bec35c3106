"""Kinks of networks of every framework against those counted by hand, and single operations."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from frameworks import NETWORKS, count, example
from jax import lax

import jaxattr as ja
from jaxattr.programs import interpreter
from jaxattr.programs.kinks import find

X = jnp.asarray(np.random.default_rng(0).normal(size=(2, 4)), jnp.float32)


@pytest.mark.parametrize("name", NETWORKS)
def test_names_every_kink_of_a_network_and_no_other(name):
    network = NETWORKS[name]
    found = ja.kinks(network.build(), example(network.shape))
    assert count(found) == network.kinks, list(map(str, found))
    for kink in found:
        assert re.search(network.where, kink.where), kink


def operations(fn, x=X):
    return [kink.operation for kink in ja.kinks(fn, x)]


ACTIVATIONS = "relu relu6 leaky_relu elu selu celu hard_tanh hard_sigmoid hard_silu soft_sign sparse_plus"


@pytest.mark.parametrize("name", ACTIVATIONS.split())
def test_a_named_activation_is_one_operation(name):
    for shape in ((2, 4), ()):
        (kink,) = ja.kinks(getattr(jax.nn, name), jnp.ones(shape))
        assert (kink.operation, kink.shape) == (name, shape)
    assert operations(lambda x: getattr(jax.nn, name)(x) * 0 + x**2) == []


KINKED = {
    "max": lambda x: lax.max(x, x[::-1]),
    "min": lambda x: jnp.minimum(x, 1),
    "abs": jnp.abs,
    "sign": jnp.sign,
    "clamp": lambda x: lax.clamp(0.0, x, 1.0),
    "clip": lambda x: jnp.clip(x, 0, 1),
    "floor": jnp.floor,
    "ceil": jnp.ceil,
    "round": jnp.round,
    "remainder": lambda x: x % 1.0,
    "sort": jnp.sort,
    "median": lambda x: jnp.median(x, -1),
    "top_k": lambda x: lax.top_k(x, 2),
    "reduce_max": lambda x: jnp.max(x, -1),
    "reduce_min": jnp.min,
    "cummax": lambda x: lax.cummax(x, axis=1),
    "argmax": lambda x: x[:, jnp.argmax(x[0])],
    "argmin": lambda x: jax.nn.one_hot(jnp.argmin(x), 3),
    "gt": lambda x: x * (x > 0.5),
    "convert_element_type": lambda x: jnp.arange(9.0)[x.astype(int)],
    "select_n": lambda x: jnp.where(jnp.sum(x) > 0, x, x**2),
    "select_and_scatter_add": jax.grad(lambda x: jnp.sum(nn.max_pool(x[None, ..., None], (2, 2), (1, 1)) ** 2)),
    "cond": lambda x: lax.cond(x[0, 0] > 0, jnp.sin, jnp.cos, x),
    "while": lambda x: lax.while_loop(lambda v: jnp.sum(v) < 3, lambda v: v * 2, x),
    "stop_gradient": lambda x: x * lax.stop_gradient(x),
    "pure_callback": lambda x: jax.pure_callback(np.sin, x, x),
    "reduce": lambda x: lax.reduce(x, 0.0, lambda a, b: lax.max(a, 2 * b), (0,)),
    "scatter-max": lambda x: jnp.zeros(4).at[jnp.array([0, 1])].max(x[0, :2]),
}


@pytest.mark.parametrize("name", KINKED)
def test_an_operation_with_a_kink_is_named(name):
    assert name in operations(KINKED[name])


def cancelled(x):
    kinked = jnp.abs(x)
    return jnp.sin(x + kinked - kinked)


def by_hand_attention(x):
    scores = x @ x.T
    e = jnp.exp(scores - jnp.max(scores, -1, keepdims=True))
    return (e @ x) / jnp.sum(e, -1, keepdims=True)


SMOOTH = {
    "a label beside the logits": lambda x: (jnp.tanh(x), jnp.argmax(x), lax.top_k(x, 2)[1]),
    "stacked": lambda x: jnp.stack([jnp.sin(x), x]),
    "concatenated and padded": lambda x: jnp.pad(jnp.concatenate([x, x**2]), 1),
    "dead code": lambda x: (jnp.abs(x), x)[1],
    "times zero": lambda x: x**2 + 0 * jnp.abs(x),
    "cancelled": cancelled,
    "logsumexp": lambda x: jax.nn.logsumexp(x, -1),
    "softmax with a mask": lambda x: jax.nn.softmax(x, where=jnp.array([True, False, True, True])),
    "attention by hand": by_hand_attention,
    "softmax in vmap": jax.vmap(jax.nn.softmax),
    "gradient of a softmax": jax.grad(lambda x: jax.nn.softmax(x)[0, 0]),
    "gradient of a log-softmax": jax.grad(lambda x: jax.nn.log_softmax(x)[0, 0]),
    "gradient of softplus": jax.grad(lambda x: jnp.sum(jax.nn.softplus(x))),
    "maximum subtracted from the logits": lambda x: x - lax.stop_gradient(jnp.max(x)),
    "standard deviation": lambda x: jnp.std(x, -1),
    "modulus of a complex number": lambda x: jnp.abs(jnp.fft.fft(x)),
    "nan_to_num": jnp.nan_to_num,
    "solve": lambda x: jnp.linalg.solve(x @ x.T + jnp.eye(2), x),
    "determinant": lambda x: jnp.linalg.det(x @ x.T + jnp.eye(2)),
    "resized": lambda x: jax.image.resize(x, (4, 8), "bilinear"),
    "loop of a fixed length": lambda x: lax.fori_loop(0, 3, lambda _, v: jnp.sin(v), x),
    "branch of a constant": lambda x: lax.cond(True, jnp.sin, jnp.abs, x),
    "maximum over one": lambda x: jnp.max(x[..., None], -1),
    "masked layer norm": lambda x: nn.LayerNorm(use_bias=False, use_scale=False).apply({}, x, mask=jnp.arange(4) < 3),
    "batch norm in training": lambda x: nn.BatchNorm(False, use_bias=False, use_scale=False).apply(
        {}, x, mutable=["batch_stats"]
    )[0],
}


@pytest.mark.parametrize("name", SMOOTH)
def test_what_has_no_kink_is_not_named(name):
    assert operations(SMOOTH[name]) == []


def test_a_kink_before_a_softmax_is_named_and_its_stabilizer_is_not():
    assert operations(lambda x: jax.nn.softmax(jax.nn.relu(x))) == ["relu"]
    assert operations(lambda x: jax.nn.softmax(jnp.where(x > 0, x, -jnp.inf))) == ["select_n"]
    assert operations(lambda x: jax.nn.logsumexp(jnp.max(x, -1))) == ["reduce_max"]


def test_a_maximum_cancels_along_its_own_axes_only():
    def normalized(x, over):
        e = jnp.exp(x - jnp.max(x, 0, keepdims=True))
        return e / jnp.sum(e, over, keepdims=True)

    assert operations(lambda x: normalized(x, 0)) == []
    # The maximum differs from column to column, and stays where rows are summed.
    assert operations(lambda x: normalized(x, 1)) == ["reduce_max"]

    def antisymmetric(x):
        kinked = jnp.abs(x[:, :2])
        return kinked.T - kinked

    assert operations(antisymmetric) == ["abs"]


def test_a_name_is_not_believed_of_a_function_of_the_users():
    def softplus(x):
        return jnp.maximum(x, 0)

    assert operations(jax.jit(softplus)) == ["max"]
    custom = jax.custom_jvp(softplus)
    custom.defjvp(lambda primals, tangents: (custom(*primals), jax.nn.sigmoid(primals[0]) * tangents[0]))
    assert operations(custom) == ["max"]


def test_the_derivative_rule_of_a_users_function_is_followed():
    @jax.custom_vjp
    def clipped_gradient(x):
        return 2 * x

    clipped_gradient.defvjp(lambda x: (2 * x, None), lambda _, ct: (jnp.clip(ct, -1, 1),))

    @jax.custom_jvp
    def sine(x):
        return jnp.sin(x)

    # The rule calls its own function, as rules do.
    sine.defjvp(lambda primals, tangents: (sine(*primals), jnp.cos(primals[0]) * tangents[0]))
    assert operations(lambda x: jnp.sum(clipped_gradient(x))) == ["clipped_gradient"]
    assert operations(sine) == []


def test_the_place_is_the_users_line_also_of_a_function_that_was_traced_before():
    def first(x):
        return jax.nn.leaky_relu(x)

    def second(x):
        return jax.nn.leaky_relu(x)

    lines = [fn.__code__.co_firstlineno + 1 for fn in (first, second)]
    for fn, line in zip((first, second), lines, strict=True):
        (kink,) = ja.kinks(fn, X)
        assert f"test_kinks.py:{line} (" in kink.where
        assert fn.__name__ in kink.where


def test_the_place_within_a_compiled_function_of_the_users_is_inside_of_it():
    def inner(x):
        return jnp.sin(jax.nn.relu(x))

    block, line = jax.jit(inner), inner.__code__.co_firstlineno + 1
    for fn in (lambda x: block(2 * x), lambda x: block(x) + 1):
        (kink,) = ja.kinks(fn, X)
        assert f"test_kinks.py:{line} (" in kink.where


def test_where_all_frames_are_of_libraries_the_call_is_named():
    (kink,) = ja.kinks(jax.nn.relu, X)
    assert kink.where == "jax relu"


def test_pytrees_of_inputs_and_abstract_inputs():
    def fn(inputs):
        return jnp.abs(inputs["a"]) + inputs["b"]

    shapes = {"a": jax.ShapeDtypeStruct((3,), jnp.float32), "b": jax.ShapeDtypeStruct((3,), jnp.float32)}
    (kink,) = ja.kinks(fn, shapes)
    assert kink[:2] == ("abs", (3,))
    assert "abs [3] at " in str(kink)


def test_what_is_not_a_function_is_refused():
    with pytest.raises(TypeError, match="must be a function of the input, got int"):
        ja.kinks(3, X)  # pyright: ignore[reportArgumentType]


def test_weights_as_arguments_are_no_input():
    program, _ = interpreter.trace(lambda w, x: jnp.abs(w) * jnp.sin(x), X, X)
    assert find(program, [False, True]) == []
    (found,) = find(program, [True, False])
    assert (found.kink.operation, found.path) == ("abs", (0,))
