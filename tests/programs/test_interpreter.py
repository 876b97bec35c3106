"""The interpreter: programs evaluated as they are, and with other rules for some operations."""

import functools
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from frameworks import NETWORKS, example
from jax import lax

from jaxattr.programs import interpreter
from jaxattr.programs.interpreter import Interpreter
from jaxattr.programs.kinks import find

W = jnp.asarray(np.random.default_rng(0).normal(size=(3, 3)), jnp.float32)
X = jnp.array([-0.1, 0.2, 0.3])


def network(activation, w, x):
    """The same activation inside of everything that holds programs."""

    def step(carry, row):
        carry = activation(w @ carry + row)
        return carry, jnp.sum(carry)

    x, sums = lax.scan(step, x, jnp.ones((4, 3)), reverse=True)
    x = jax.checkpoint(lambda z: jnp.sin(activation(z)))(x)
    x = lax.cond(w[0, 0] > 0, lambda z: 2 * activation(z - 0.2), jnp.cos, x)
    x = lax.switch(1, [jnp.sin, lambda z: activation(z - 0.1), jnp.cos], x)
    x = jax.jit(lambda z: activation(z - 0.3) + 1)(x)
    x = lax.fori_loop(0, 3, lambda _, z: activation(z - 0.5), x)
    x = lax.while_loop(lambda s: s[0] < 3, lambda s: (s[0] + 1, activation(s[1] - 0.1)), (0, x))[1]
    return {"x": jax.vmap(activation)(x - 0.1), "sums": sums}


def softplus(z):
    return jax.nn.softplus(10 * z) / 10


def replaced(rules=None, functions=None, at=None):
    def fn(w, x):
        program, tree = interpreter.trace(functools.partial(network, jax.nn.relu), w, x)
        paths = [found.path for found in find(program, [False, True])] if at == "kinks" else at
        results = Interpreter(rules, functions, paths)(program, w, x)
        return jax.tree.unflatten(tree, results)

    return fn


BY_NAME: dict[str, Any] = {"functions": {"relu": lambda _, __, z: [softplus(z)]}}
BY_PRIMITIVE: dict[str, Any] = {"rules": {"max": lambda _, __, z, zero: [softplus(z - zero)]}}


# Of every framework, and of everything that holds programs.
REPRESENTATIVES = (
    "linen_transformer linen_gru linen_checkpointed nnx_relu_and_max_pool equinox_gru_and_attention haiku_smooth"
    " jax_branch_by_the_input jax_loop_by_the_input jax_sort"
)


@pytest.mark.parametrize("name", REPRESENTATIVES.split())
def test_without_rules_a_network_is_what_it_was(name):
    row = NETWORKS[name]
    x = example(row.shape)
    program, tree = interpreter.trace(row.build(), x)

    # With paths that no operation has, everything is bound as it is; without, everything is entered.
    @jax.jit
    def three(x):
        return row.build()(x), *(jax.tree.unflatten(tree, i(program, x)) for i in (Interpreter(at=()), Interpreter()))

    original, bound, entered = three(x)
    chex.assert_trees_all_close(bound, original, rtol=2e-5, atol=2e-6)
    chex.assert_trees_all_close(entered, original, rtol=2e-5, atol=2e-6)


def everything(fn):
    """Value, batch and forward derivative in one program."""
    batch = jnp.stack([X, 2 * X])
    return jax.jit(lambda w, x: (fn(w, x), jax.vmap(fn, (None, 0))(w, batch), jax.jacfwd(fn, 1)(w, x)))(W, X)


@pytest.fixture(scope="module")
def by_hand():
    return everything(functools.partial(network, softplus))


@pytest.mark.parametrize(("rules", "at"), [(BY_NAME, "kinks"), (BY_PRIMITIVE, "kinks"), (BY_PRIMITIVE, None)])
def test_replaces_an_activation_inside_of_everything(by_hand, rules, at):
    chex.assert_trees_all_close(everything(replaced(**rules, at=at)), by_hand, rtol=1e-5, atol=1e-6)


def test_reverse_mode_through_scan_checkpoint_and_cond():
    def fn(activation, w, x):
        x, _ = lax.scan(lambda c, _: (jax.checkpoint(activation)(w @ c), None), x, None, length=3)
        return jnp.sum(lax.cond(w[0, 0] > 0, activation, jnp.cos, x) ** 2)

    program, _ = interpreter.trace(functools.partial(fn, jax.nn.relu), W, X)
    twin = Interpreter(**BY_NAME)

    @jax.jit
    def second(w, x):
        direct = jax.hessian(functools.partial(fn, softplus), 1)(w, x)
        return jax.hessian(lambda w, x: twin(program, w, x)[0], 1)(w, x), direct

    chex.assert_trees_all_close(*second(W, X), rtol=1e-4)


def test_only_operations_at_the_paths_are_asked():
    def fn(w, x):
        return jax.nn.relu(w) + jax.nn.relu(x)

    program, _ = interpreter.trace(fn, W[0], X)
    paths = [found.path for found in find(program, [False, True])]
    (value,) = Interpreter(**BY_NAME, at=paths)(program, W[0], X)
    np.testing.assert_allclose(value, jax.nn.relu(W[0]) + softplus(X), rtol=1e-6)


def test_a_rule_that_knows_no_answer_hands_on():
    asked = []

    def unknown(interpreter, equation, *_):
        asked.append((equation.primitive.name, interpreter.path))
        return NotImplemented

    program, _ = interpreter.trace(lambda x: jnp.sin(jax.nn.relu(x)), X)
    (value,) = Interpreter({"max": unknown, "sin": unknown}, {"relu": unknown})(program, X)
    np.testing.assert_array_equal(value, jnp.sin(jax.nn.relu(X)))
    # The function, the one of the same name inside of it, its only operation, and the one behind.
    names = ["custom_jvp_call", "jit", "max", "sin"]
    assert asked == list(zip(names, [(0,), (0, 0), (0, 0, 0), (1,)], strict=True))


def test_a_function_without_a_replaced_operation_keeps_its_derivative_rule():
    @jax.custom_jvp
    def twice(x):
        return 2 * x

    twice.defjvp(lambda primals, tangents: (twice(*primals), 7 * tangents[0]))
    program, _ = interpreter.trace(lambda x: twice(jax.nn.relu(x)), X)
    twin = Interpreter(**BY_NAME, at=[(0,)])
    np.testing.assert_allclose(
        jax.grad(lambda x: twin(program, x)[0][2])(X)[2], 7 * jax.nn.sigmoid(10 * X[2]), rtol=1e-5
    )


def test_rewritten_operations_keep_the_users_line():
    def fn(x):
        return jnp.abs(x)  # The line that is named.

    def root(_, __, x):
        return [lax.max(x, -x)]

    program, _ = interpreter.trace(fn, X)
    again = jax.make_jaxpr(lambda x: Interpreter({"abs": root})(program, x))(X)
    (found,) = find(again, [True])
    assert found.kink.operation == "max"
    assert f"test_interpreter.py:{fn.__code__.co_firstlineno + 1} (" in found.kink.where


def test_a_rule_with_another_number_of_results_is_named():
    program, _ = interpreter.trace(jnp.sin, X)
    with pytest.raises(ValueError, match="rule for `sin` must return 1 results, got 2"):
        Interpreter({"sin": lambda _, __, x: [x, x]})(program, X)


def test_what_cannot_be_entered_is_named():
    mesh = jax.make_mesh((1,), ("i",), devices=jax.devices()[:1], axis_types=(jax.sharding.AxisType.Auto,))
    spec = jax.sharding.PartitionSpec()
    fn = jax.shard_map(jax.nn.relu, mesh=mesh, in_specs=spec, out_specs=spec)
    program, _ = interpreter.trace(fn, X)
    with pytest.raises(NotImplementedError, match="inside of `shard_map` cannot be replaced"):
        Interpreter(**BY_NAME)(program, X)


def test_weights_stay_arguments():
    twin = jax.jit(replaced(**BY_NAME, at="kinks"))
    text = twin.lower(W, X).as_text()
    # No array of the size of the weights is a constant.
    assert "dense<[[" not in text
    np.testing.assert_allclose(twin(2 * W, X)["x"], network(softplus, 2 * W, X)["x"], rtol=1e-5)
