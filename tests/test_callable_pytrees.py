"""Networks of any framework: arrays are arguments of compiled programs, and what is no array is a part of them."""

import functools
import gc
import weakref
from dataclasses import dataclass
from typing import Any

import equinox as eqx
import flax.linen as nn
import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.tree_util import Partial

import jaxattr as ja
from jaxattr import networks

KEY = jax.random.key(0)
XS = np.random.default_rng(0).uniform(0.1, 0.9, size=(4, 3)).astype(np.float32)
LABELS = np.array([0, 1, 1, 0])
# A program of one device is quicker to compile.
ONE_DEVICE = {"devices": jax.devices()[:1]}


@jax.tree_util.register_dataclass
@dataclass
class Registered:
    """Plain JAX, with an activation that is no array."""

    first: Any
    second: Any
    scale: float

    def __call__(self, x):
        return self.second @ jnp.tanh(self.scale * (self.first @ x))


class WithStatistics(nnx.Module):
    """Dropout and running statistics, off after ``eval()``; over one sample, as NNX's layers take any leading axes."""

    def __init__(self, rngs):
        self.first, self.second = nnx.Linear(3, 4, rngs=rngs), nnx.Linear(4, 2, rngs=rngs)
        self.norm, self.dropout = nnx.BatchNorm(4, rngs=rngs), nnx.Dropout(0.5, rngs=rngs)

    def __call__(self, x):
        return self.second(self.dropout(jax.nn.softplus(self.norm(self.first(x)))))


LINEN = nn.Sequential([nn.Dense(4), nn.softplus, nn.Dense(2)])
HAIKU = hk.without_apply_rng(
    hk.transform(lambda xs: hk.nets.MLP([4, 2], activation=jax.nn.softplus)(xs))  # noqa: PLW0108 (made inside only)
)


def _one_of(params, x):
    return HAIKU.apply(params, x[None])[0]


def nnx_network(seed):
    module = WithStatistics(nnx.Rngs(seed))
    module.eval()
    return module


def registered(seed):
    rng = np.random.default_rng(seed)
    return Registered(jnp.asarray(rng.normal(size=(4, 3))), jnp.asarray(rng.normal(size=(2, 4))), 0.5)


# A network of every framework, by seed, as its users have it.
MAKERS = {
    "partial": lambda seed: Partial(jnp.dot, jax.random.normal(jax.random.key(seed), (2, 3))),
    "registered dataclass": registered,
    "its method": lambda seed: registered(seed).__call__,
    "equinox": lambda seed: eqx.nn.MLP(3, 2, 4, 1, activation=jax.nn.softplus, key=jax.random.key(seed)),
    "nnx": nnx_network,
    "bound linen": lambda seed: LINEN.bind(LINEN.init(jax.random.key(seed), XS[:1])),
    "linen by logits_fn": lambda seed: ja.models.logits_fn(LINEN, LINEN.init(jax.random.key(seed), XS[:1])),
    "functools.partial of linen": lambda seed: functools.partial(LINEN.apply, LINEN.init(jax.random.key(seed), XS[0])),
    "haiku": lambda seed: Partial(_one_of, HAIKU.init(jax.random.key(seed), XS[:1])),
}
every = pytest.mark.parametrize("name", MAKERS)


@every
def test_networks_come_apart_and_together(name):
    (first, static), (second, other) = (networks.split(MAKERS[name](seed)) for seed in range(2))
    assert static == other
    assert hash(static) == hash(other)
    assert all(isinstance(array, (jax.Array, np.ndarray)) for array in first)
    assert not static.holds_arrays()
    x = jnp.asarray(XS[0])
    value = jax.jit(lambda arrays: networks.merge(arrays, static)(x))
    for arrays, seed in ((first, 0), (second, 1)):
        np.testing.assert_allclose(value(arrays), MAKERS[name](seed)(x), rtol=1e-5)


@every
def test_one_compilation_for_all_checkpoints(name):
    """Through two liftings of one method, with a budget of memory and without."""
    traces = []

    def method(logits_fn, x, label):
        traces.append(1)
        return ja.attributions.saliency()(logits_fn, x, label)

    network = MAKERS[name](1)
    expected = jax.jit(jax.vmap(lambda x: ja.attributions.saliency()(network, x, 1)))(XS[1:3])
    for options in ({"batch_size": 4}, {}):
        found = [ja.over_samples(method, MAKERS[name](seed), **ONE_DEVICE, **options)(XS, LABELS) for seed in range(2)]
        assert len(traces) == 1
        assert np.max(np.abs(found[0] - found[1])) > 1e-3
        np.testing.assert_allclose(found[1][1:3], expected, rtol=1e-4, atol=1e-6)


def test_what_is_no_array_is_a_program_of_its_own():
    traces = []

    def method(logits_fn, x, label):
        traces.append(1)
        return logits_fn(x)

    for scale in (0.5, 2.0, 0.5):
        network = registered(0)
        network.scale = scale
        found = ja.over_samples(method, network, batch_size=8, **ONE_DEVICE)(XS, LABELS)
        np.testing.assert_allclose(found[0], network(XS[0]), rtol=1e-5)
    assert len(traces) == 2


def test_static_fields_without_a_hash_or_an_equality_are_taken():
    @functools.partial(jax.tree_util.register_dataclass, data_fields=["weights"], meta_fields=["table"])
    @dataclass
    class Odd:
        weights: jax.Array
        table: Any

        def __call__(self, x):
            return self.weights @ (x * np.asarray(self.table))

    for table in ([1.0, 2.0, 3.0], np.array([1.0, 2.0, 3.0])):
        first, second = (Odd(jnp.ones((2, 3)) * s, table) for s in (1, 2))
        found = ja.over_samples(ja.attributions.saliency(), second, batch_size=8, **ONE_DEVICE)(XS, LABELS)
        np.testing.assert_allclose(found[0], [2, 4, 6], rtol=1e-6)
        _, static = networks.split(first)
        assert static.holds_arrays() == isinstance(table, np.ndarray)
        assert static == static  # noqa: PLR0124


def test_random_keys_inside_of_a_network_are_arrays_too():
    network = Partial(lambda key, x: x + jax.random.normal(key, (3,)), KEY)
    arrays, static = networks.split(network)
    assert jnp.issubdtype(arrays[0].dtype, jnp.integer)
    np.testing.assert_allclose(networks.merge(arrays, static)(XS[0]), network(XS[0]))


def test_a_closure_is_no_pytree():
    with pytest.raises(TypeError, match=r"callable pytree.*got function"):
        networks.split(lambda x: x)


SALIENCY = ja.attributions.saliency()


def lift(method, logits_fn, **options):
    ja.over_samples(method, logits_fn, **ONE_DEVICE, **options)(XS, LABELS, KEY)


def closure(**options):
    W = jnp.ones((2, 3))
    lift(SALIENCY, lambda x: jnp.tanh(W @ x), **options)
    return W


def closure_inside_of_a_partial():
    W = jnp.ones((2, 3))
    lift(SALIENCY, Partial(lambda v, x: jnp.tanh(W @ x) + v, W[0, 0]))
    return W


def method_that_holds_arrays():
    baseline = jnp.full(3, 0.3)
    attribute = ja.attributions.integrated_gradients(2, baseline=baseline)
    lift(ja.bounds.singular_value(attribute, ja.L2(0.1), method="dense"), Partial(jnp.dot, jnp.ones((2, 3))))
    return baseline


def arguments_of_a_program_that_is_kept():
    W = jnp.ones((2, 3))
    lift(SALIENCY, Partial(jnp.dot, W))
    return W


def metric():
    W = jnp.ones(3)
    ja.map_samples(lambda x: x @ W)(XS)
    return W


@pytest.mark.parametrize(
    "use",
    [
        closure,
        functools.partial(closure, batch_size=8),
        closure_inside_of_a_partial,
        method_that_holds_arrays,
        arguments_of_a_program_that_is_kept,
        metric,
    ],
)
def test_arrays_are_freed_with_whoever_holds_them(use):
    """No cache keeps a model, though programs of architectures are kept as long as their method lives."""
    references = [weakref.ref(use()) for _ in range(2)]
    gc.collect()
    assert [reference() for reference in references] == [None, None]


def test_programs_of_a_function_are_not_those_of_its_copies():
    """``functools.wraps`` takes attributes along, programs among them."""

    def once(x):
        return x + 1

    assert ja.map_samples(once)(XS[:, 0]).tolist() == (XS[:, 0] + 1).tolist()

    @functools.wraps(once)
    def twice(x):
        return x + 2

    np.testing.assert_allclose(ja.map_samples(twice)(XS[:, 0]), XS[:, 0] + 2)


# The same four arguments for every method


@pytest.mark.parametrize("name", ["registered dataclass", "equinox", "nnx", "linen by logits_fn", "haiku"])
def test_methods_on_a_network_of_every_framework(name):
    """Lifted equals a closure over the network; nothing is said of frameworks anywhere."""
    network = MAKERS[name](0)
    lifted = ja.over_samples(of_every_kind, network, batch_size=8)(XS, LABELS, KEY)
    one = jax.jit(lambda x, key: of_every_kind(network, x, 1, key))(XS[1], jax.random.fold_in(KEY, 1))
    assert set(lifted) == set(_METHODS)
    for found, expected in zip(jax.tree.leaves(lifted), jax.tree.leaves(one), strict=True):
        if np.issubdtype(np.asarray(expected).dtype, np.floating):
            np.testing.assert_allclose(np.abs(found[1]), np.abs(expected), rtol=1e-3, atol=1e-5)


_METHODS = {
    "attribution": SALIENCY,
    "bound l2": ja.bounds.singular_value(SALIENCY, ja.L2(0.1), method="dense"),
    "bound linf": ja.bounds.entrywise(SALIENCY, ja.LInf(0.1)),
    "attack": ja.attacks.pgd(ja.LInf(0.1), num_steps=2),
}


def of_every_kind(logits_fn, x, label, key):
    """In one program."""
    return {kind: method(logits_fn, x, label, key) for kind, method in _METHODS.items()}
