"""Networks of any framework: arrays are arguments of compiled programs, and what is no array is a part of them."""

import functools
import gc
import weakref

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial
from pytrees import KEY, LABELS, MAKERS, ONE_DEVICE, XS, registered

import jaxattr as ja

every = pytest.mark.parametrize("name", MAKERS)


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
