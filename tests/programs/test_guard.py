"""The guard: networks with kinks are refused before anything is computed, in words that say what to do."""

import gc
import weakref

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from frameworks import NETWORKS, example
from jax.tree_util import Partial

import jaxattr as ja
from jaxattr.programs import guard

X = jnp.asarray(np.random.default_rng(0).uniform(size=4), jnp.float32)
W = jnp.asarray(np.random.default_rng(1).normal(size=(3, 4)), jnp.float32)
SALIENCY = ja.attributions.saliency()


def kinked(x):
    return W @ jax.nn.relu(x)


def smooth(x):
    return W @ jnp.tanh(x)


def test_the_network_that_most_people_have_is_refused():
    rng = np.random.default_rng(0)
    first, second = jnp.asarray(rng.normal(size=(64, 20))), jnp.asarray(rng.normal(size=(3, 64)) / 8)

    def network(x):
        return second @ jax.nn.relu(first @ (x - 0.5))

    x = jnp.asarray(rng.uniform(size=20))
    with pytest.raises(ValueError, match=r"not smooth in 1 operation \(1 x relu\)"):
        ja.attribution_jacobian(SALIENCY, network, x, 0)
    allowed = ja.attribution_jacobian(SALIENCY, network, x, 0, kinks="allow")
    # The Jacobian of its saliency is 0, and the result says why that means nothing.
    assert allowed.kinks == 1
    assert float(jnp.max(jnp.abs(allowed.dense()))) == 0
    assert ja.attribution_jacobian(SALIENCY, lambda x: second @ jnp.tanh(first @ x), x, 0).kinks == 0


def refusal(*arguments, method="singular_value"):
    with pytest.raises(ValueError, match="needs two derivatives") as error:
        guard.check(*arguments, method=method)
    return str(error.value)


def test_the_message_says_what_where_how_many_and_what_to_do():
    def deep(x):
        for _ in range(6):
            x = jnp.abs(jax.nn.leaky_relu(x) - 0.1) - 1
        return W @ x

    line = deep.__code__.co_firstlineno + 2
    message = refusal(SALIENCY, deep, X, method="corrected")
    assert "`corrected` needs two derivatives" in message
    assert "the network is not smooth in 12 operations (6 x leaky_relu, 6 x abs)" in message
    assert message.count(f"leaky_relu [4] at tests/programs/test_guard.py:{line} (") == 3
    assert message.count("\n  ") == 6
    assert "and 7 more" in message
    assert "`ja.smooth(logits_fn, beta=10.0)`" in message
    assert '`kinks="allow"`' in message


def test_an_explained_output_with_a_kink_is_told_from_a_network_with_one():
    of_margin = ja.outputs.explaining(SALIENCY, ja.outputs.margin)
    message = refusal(of_margin, smooth, X)
    assert "the explained output is not smooth in 1 operation (1 x reduce_max)" in message
    assert "`ja.outputs.log_odds` in place of `margin`" in message
    assert "the network is not smooth" in refusal(of_margin, kinked, X)
    for output in ("logit", "probability", "log_probability", "loss", "log_odds"):
        explained = ja.outputs.explaining(SALIENCY, ja.outputs.REGISTRY[output])
        assert guard.check(explained, smooth, X, method="m") == 0


def test_the_output_wraps_an_output():
    nested = ja.outputs.explaining(ja.outputs.explaining(SALIENCY, ja.outputs.loss), ja.outputs.margin)
    assert guard.check(nested, smooth, X, "allow", method="m") == 1


@pytest.mark.parametrize(
    "attribute",
    [SALIENCY, ja.attributions.input_x_gradient(), ja.attributions.integrated_gradients(num_steps=2)],
    ids=repr,
)
def test_an_attribution_of_any_shape_is_looked_at_itself(attribute):
    def plain(logits_fn, x, label):
        return attribute(logits_fn, x, label)

    def absolute(logits_fn, x, label):
        return jnp.abs(attribute(logits_fn, x, label))

    assert guard.check(plain, smooth, X, method="m") == 0
    # Its own derivative of the network is no kink, and one of the network is counted once.
    assert guard.check(plain, kinked, X, "allow", method="m") == 1
    message = refusal(absolute, smooth, X)
    assert "the attribution is not smooth in 1 operation (1 x abs)" in message
    assert "Leave that operation out of the attribution" in message
    with pytest.raises(ValueError, match="1 x abs"):
        ja.attribution_jacobian(absolute, smooth, X, 0)


def test_an_attribution_that_takes_no_other_network_is_looked_at_with_its_own():
    network = Partial(lambda w, x: w @ jnp.tanh(x), W)

    def of_weights(logits_fn, x, label):
        return jnp.clip(logits_fn.args[0][label] * x, -1, 1)

    assert guard.check(of_weights, network, X, "allow", method="m") == 1


def test_a_stopped_gradient_in_a_map_counts_though_only_added():
    def centered(logits_fn, x, label):
        return SALIENCY(logits_fn, x, label) - jax.lax.stop_gradient(jnp.sum(x))

    assert guard.check(centered, smooth, X, "allow", method="m") == 1


def test_an_unknown_option_is_refused():
    with pytest.raises(ValueError, match="`kinks` must be one of 'refuse', 'allow'; got 'ignore'"):
        ja.attribution_jacobian(SALIENCY, smooth, X, 0, kinks="ignore")  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("name", ["linen_gelu_and_average_pool", "nnx_smooth", "equinox_smooth", "haiku_smooth"])
def test_networks_of_frameworks_pass(name):
    row = NETWORKS[name]
    assert guard.check(SALIENCY, row.build(), example(row.shape), method="m") == 0


class Traced:
    """A network that counts how often it is traced."""

    def __init__(self):
        self.times = 0

    def __call__(self, w, x):
        self.times += 1
        return w @ jnp.tanh(x)


def test_looks_once_at_a_function_and_at_a_structure():
    traced = Traced()

    def network(x):
        return traced(W, x)

    for _ in range(3):
        guard.check(SALIENCY, network, X, method="m")
    assert traced.times == 1
    guard.check(SALIENCY, network, jnp.ones((4, 1)), method="m")
    assert traced.times == 2

    traced = Traced()
    for scale in range(3):
        guard.check(SALIENCY, Partial(traced, scale * W), X, method="m")
    # Weights and inputs may be tracers, of a Partial that is put together again in every trace.
    jax.jit(lambda f, x: x + guard.check(SALIENCY, f, x, method="m"))(Partial(traced, W), X)
    jax.vmap(lambda w: w + guard.check(SALIENCY, Partial(traced, w), X, method="m"))(jnp.stack([W, W]))
    assert traced.times == 1
    guard.check(SALIENCY, Partial(traced, jnp.ones((5, 4))), X, method="m")
    assert traced.times == 2


def test_what_weights_decide_is_not_taken_from_another_network_of_the_same_structure():
    # max(x, 3) and max(x, -3) of a sigmoid have no kink, max(x, 0.5) has one; the threshold is a weight.
    def network(threshold, x):
        return jnp.maximum(jax.nn.sigmoid(x), threshold)

    for threshold in (3.0, -3.0, 0.5):
        found = [guard.check(SALIENCY, Partial(network, jnp.float32(threshold)), X, "allow", method="m")]
        found += [guard.check(SALIENCY, Partial(network, threshold), X, "allow", method="m")]
        assert found == [1, int(threshold == 0.5)]


def test_weights_are_no_input():
    assert guard.check(SALIENCY, Partial(lambda w, x: jnp.abs(w) @ jnp.tanh(x), W), X, method="m") == 0


def test_keeps_nothing_alive():
    def made():
        weights = jnp.ones((3, 4))

        def network(x):
            return weights @ x

        def attribute(logits_fn, x, label):
            return SALIENCY(logits_fn, x, label) * jnp.sum(weights)

        guard.check(attribute, network, X, method="m")
        guard.check(SALIENCY, ja.outputs.probability(Partial(network)), X, method="m")
        return weakref.ref(weights)

    left = [made() for _ in range(3)]
    gc.collect()
    assert [reference() for reference in left] == [None] * 3


def test_costs_nothing_in_the_compiled_program():
    def product(kinks):
        def jacobian(w, x, v):
            return ja.attribution_jacobian(
                SALIENCY, Partial(lambda w, x: w @ jax.nn.relu(x) ** 3, w), x, 0, kinks=kinks
            )

        return jax.jit(lambda w, x, v: jacobian(w, x, v).matvec(v)).lower(W, X, X).as_text()

    checked = product("allow")
    original, guard.check = guard.check, lambda *_, **__: 0
    try:
        assert product("refuse") == checked
    finally:
        guard.check = original
