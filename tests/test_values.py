"""Methods are values: equal calls give one object, and its arrays are leaves for JAX."""

import functools
import gc
import pickle
import threading
import weakref

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

import jaxattr as ja
from jaxattr import _values

A, B, D = ja.attributions, ja.bounds, ja.attacks
L2, SALIENCY = ja.L2(0.1), A.saliency()
XS = np.random.default_rng(0).uniform(0.1, 0.9, size=(4, 3)).astype(np.float32)
LABELS = np.array([0, 1, 1, 0])
ONE_DEVICE = {"devices": jax.devices()[:1], "batch_size": 4}


@ja.described
def noisy(key, *, sigma=0.1, num_samples=2):
    """Average saliency over Gaussian noise; a method of a user, with a key and options."""

    def field(logits_fn, x, label):
        draws = x + sigma * jax.random.normal(key, (num_samples, *x.shape), x.dtype)
        return jnp.mean(jax.vmap(jax.grad(lambda z: logits_fn(z)[label]))(draws), axis=0)

    return ja.Attribution("noisy", field=field, gradients=num_samples)


def explained(logits_fn, x, label):
    return jax.grad(lambda z: logits_fn(z)[label])(x)


EQUAL = {
    "attribution": lambda: A.integrated_gradients(7, rule="left"),
    "list": lambda: A.integrated_gradients(baseline=[0.1, 0.2, 0.3]),
    "numpy array": lambda: A.integrated_gradients(baseline=np.full(3, 0.3)),
    "array": lambda: A.integrated_gradients(baseline=jnp.full(3, 0.3)),
    "key": lambda: noisy(jax.random.key(3), sigma=0.2),
    "nested": lambda: B.singular_value(A.integrated_gradients(baseline=jnp.full(3, 0.3)), ja.L2(0.1)),
    "box": lambda: D.pgd(ja.LInf(0.1, box=(np.zeros(3), np.ones(3)))),
    "radius": lambda: D.pgd(ja.LInf(jnp.asarray(0.1))),
    "variable arguments": lambda: B.smallest(B.singular_value(SALIENCY, ja.L2(0.1)), B.singular_value(SALIENCY, L2)),
    "dissimilarity": lambda: D.dissimilarities.top_k(100),
    "weights": lambda: D.dissimilarities.targeted(jnp.ones((2, 2))),
    "attack": lambda: D.restarts(D.ifia(ja.LInf(0.1), SALIENCY, D.dissimilarities.targeted(np.ones((2, 2)))), 3),
    "objective": lambda: D.weighted_sum(
        [(1.0, D.cross_entropy()), (0.5, D.deviation(SALIENCY, D.dissimilarities.cosine()))]
    ),
    "output": lambda: ja.outputs.explaining(SALIENCY, ja.outputs.margin),
    "function": lambda: B.singular_value(explained, L2),
    "defense": lambda: ja.defenses.igr(ja.defenses.trades(ja.LInf(0.1)), A.integrated_gradients(10)),
    "defense without an attack": lambda: ja.defenses.natural(l1=0.1),
    "wrapped function": lambda: ja.as_attribution(explained),
}


@pytest.mark.parametrize("name", EQUAL)
def test_equal_calls_give_one_object(name):
    first, second = EQUAL[name](), EQUAL[name]()
    assert first is second
    assert first == second
    assert len({first, second}) == 1


def test_calls_that_differ_give_objects_that_differ():
    def baseline(value):
        return A.integrated_gradients(baseline=value)

    key = jax.random.key(0)
    different = [
        *[baseline(value) for value in (1, 1.0, True, np.float32(1), np.ones(1), np.ones(1, np.float32), np.ones(2))],
        *[baseline(value) for value in (jnp.ones(1), jnp.zeros(1), [1.0], (1.0,), [1.0, 1.0])],
        *[noisy(each) for each in (key, jax.random.key(1), jax.random.key(0, impl="rbg"), jax.random.PRNGKey(0))],
        *[D.pgd(ball) for ball in (ja.L2(0.1), ja.LInf(0.1), ja.LInf(0.2), ja.LInf(0.1, box=None))],
        *[ja.outputs.explaining(SALIENCY, lambda f: f) for _ in range(2)],
        *[ja.as_attribution(explained, name) for name in ("one", "two")],
    ]
    assert len(set(different)) == len(different)


def test_arguments_that_were_written_to_make_another_method():
    values, entries = np.zeros(3), [0.0, 0.0, 0.0]
    first, second = A.integrated_gradients(baseline=values), A.integrated_gradients(baseline=entries)
    values[0] = entries[0] = 0.5
    assert A.integrated_gradients(baseline=np.zeros(3)) is not first
    assert A.integrated_gradients(baseline=[0.0, 0.0, 0.0]) is not second


def test_a_method_that_others_share_cannot_be_changed():
    with pytest.raises(AttributeError, match=r"`saliency\(\)` is one object.*`name` cannot be changed"):
        SALIENCY.name = "mine"
    own = SALIENCY.replace(name="mine")
    own.name = "another"
    assert (own.name, SALIENCY.name, own.spec) == ("another", "saliency", None)
    with pytest.raises(TypeError, match="has no argument `fields`"):
        SALIENCY.replace(fields=1)


def test_methods_of_arrays_and_closures_are_not_kept_alive():
    def in_closure(weights):
        return lambda logits_fn, x, label: weights * explained(logits_fn, x, label)

    made = [
        lambda: A.integrated_gradients(baseline=jnp.full(3, 0.7)),
        lambda: B.singular_value(A.integrated_gradients(baseline=np.full(3, 0.7)), L2),
        lambda: B.singular_value(in_closure(jnp.ones(3)), L2),
        lambda: ja.as_attribution(in_closure(jnp.ones(3))),
    ]
    references = [weakref.ref(make()) for make in made]
    gc.collect()
    assert [reference() for reference in references] == [None] * len(made)


def test_the_last_methods_of_plain_values_are_kept():
    reference = weakref.ref(A.integrated_gradients(71))
    gc.collect()
    assert reference() is A.integrated_gradients(71)
    for n in range(_values.MAX_KEPT):
        A.integrated_gradients(100 + n)
    gc.collect()
    assert reference() is None


def test_a_loop_that_builds_its_method_anew_compiles_once():
    traces = []

    def logits(weights, x):
        traces.append(1)
        return weights @ jnp.tanh(x)

    counts = []
    for _ in range(3):
        bound = B.norm_relaxation(A.integrated_gradients(3), ja.LInf(0.125), method="dense")
        ja.over_samples(bound, Partial(logits, jnp.ones((2, 3))), **ONE_DEVICE)(XS, LABELS, jax.random.key(0))
        counts.append(len(traces))
        del bound
        gc.collect()
    # The shape of the logits is looked up in every call.
    assert counts[2] - counts[1] == counts[1] - counts[0] <= 1


def test_threads_that_build_the_same_method_get_the_same():
    start, found = threading.Barrier(8), []

    def build():
        start.wait()
        found.extend(B.singular_value(A.integrated_gradients(50 + n), ja.L2(0.3)) for n in range(50))

    threads = [threading.Thread(target=build) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 400
    assert len(set(found)) == 50


@pytest.mark.parametrize("name", [name for name in EQUAL if name != "wrapped function"])
def test_methods_can_be_sent_to_another_process(name):
    method = EQUAL[name]()
    assert pickle.loads(pickle.dumps(method)) is method


def test_methods_that_are_built_while_tracing_hold_no_tracers():
    x = jnp.full((2, 2), 0.5)

    def mass(weights):
        return D.dissimilarities.targeted(weights).compare(x).measure(x)

    weights = jnp.ones((2, 2))
    # Traced weights make a method of their own; known ones the same one as outside.
    np.testing.assert_allclose(jax.jit(mass)(weights), 4.0)
    kept = []
    jax.jit(lambda scale: (kept.append(D.pgd(ja.LInf(_RADIUS), num_steps=2)), scale)[1])(1.0)
    attack = D.pgd(ja.LInf(_RADIUS), num_steps=2)
    assert attack is kept[-1]
    result = attack(lambda z: jnp.stack([z[0], z[1]]), jnp.array([0.5, 0.5]), 0, jax.random.key(0))
    assert float(result.distance) == pytest.approx(0.1, rel=1e-5)


_RADIUS = jnp.asarray(0.1)


def test_a_constructor_may_call_another_one():
    @ja.described
    def average_of_five(key):
        return noisy(key, num_samples=5)

    key = jax.random.key(0)
    method = average_of_five(key)
    assert method.spec.name == "average_of_five"
    assert noisy(key, num_samples=5).spec.name == "noisy"
    assert (method.name, method.gradients) == ("noisy", 5)


# Leaves


def test_arrays_are_leaves_and_numbers_are_structure():
    ball = ja.LInf(jnp.asarray(0.1), box=(np.zeros(3), 1.0))
    attack = D.ifia(ball, noisy(jax.random.key(0)), D.dissimilarities.targeted(jnp.ones((2, 2))), num_steps=3)
    leaves, structure = jax.tree.flatten(attack)
    assert [leaf.shape for leaf in leaves] == [(), (3,), (), (2, 2)]
    assert jax.tree.unflatten(structure, leaves) is attack
    assert jax.tree.leaves(D.pgd(L2, step_size=0.1)) == []
    assert jax.tree.leaves(ja.Attribution("mine", explained, baseline=jnp.ones(3))) == []
    other = D.ifia(
        ja.LInf(jnp.asarray(0.2), box=(np.ones(3) / 4, 1.0)),
        noisy(jax.random.key(9)),
        attack.spec.options["dissimilarity"],
        num_steps=3,
    )
    assert jax.tree.structure(other) == structure
    assert hash(jax.tree.structure(other)) == hash(structure)
    assert jax.tree.structure(D.ifia(ball, noisy(jax.random.key(0)))) != structure


def test_leaves_can_be_changed_and_batched():
    network = Partial(lambda w, x: w @ jnp.tanh(x), jnp.arange(6.0).reshape(2, 3))
    method = A.integrated_gradients(3, baseline=jnp.full(3, 0.1))
    doubled = jax.tree.map(lambda leaf: 2 * leaf, method)
    assert doubled is A.integrated_gradients(3, baseline=2 * jnp.full(3, 0.1))
    x = jnp.asarray(XS[0])
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), method, doubled)
    maps = jax.vmap(lambda each: each(network, x, 0))(stacked)
    for found, each in zip(maps, (method, doubled), strict=True):
        np.testing.assert_allclose(found, each(network, x, 0), rtol=1e-5)
    np.testing.assert_allclose(jax.jit(lambda each: each(network, x, 0))(doubled), maps[1], rtol=1e-5)
    slope = jax.grad(lambda each: each(network, x, 0).sum())(method)
    assert jax.tree.leaves(slope)[0].shape == (3,)


def test_placeholders_of_jax_are_no_obstacle():
    method = D.pgd(ja.LInf(jnp.asarray(0.1)))
    for leaf in (None, object(), 0, "name", jax.ShapeDtypeStruct((), jnp.float32)):
        skeleton = jax.tree.map(lambda _, leaf=leaf: leaf, method)
        assert jax.tree.structure(skeleton, is_leaf=lambda one, leaf=leaf: one is leaf) == jax.tree.structure(method)
    on_host = jax.device_get(method)
    assert on_host.name == "pgd"
    assert float(on_host.ball.epsilon) == pytest.approx(0.1)


def test_methods_go_through_trees_partials_and_static_arguments():
    methods = {"own": ja.Method("mine", lambda *_: 0, needs_key=False), "plain": SALIENCY}
    assert jax.tree.map(lambda leaf: leaf, methods) == methods
    network, x = lambda x: jnp.stack([x @ x, 0.0]), jnp.asarray(XS[0])
    for call in (
        jax.jit(SALIENCY, static_argnums=0),
        functools.partial(jax.jit(lambda method, *rest: method(*rest), static_argnums=(0, 1)), SALIENCY),
        jax.jit(Partial(SALIENCY, network), static_argnums=()),
    ):
        found = call(x, 0) if isinstance(getattr(call, "__wrapped__", None), Partial) else call(network, x, 0)
        np.testing.assert_allclose(found, 2 * x, rtol=1e-6)


# Arrays of methods are arguments of programs


def swept(methods, **options):
    """Run methods over samples; the results, and how often the network was traced beside looking up its shape."""
    traces = []

    def logits(weights, x):
        traces.append(1)
        return weights @ jnp.tanh(x)

    network = Partial(logits, jnp.arange(6.0).reshape(2, 3) / 3)
    results, counts = [], []
    for make in methods:
        results.append(ja.over_samples(make(), network, **ONE_DEVICE, **options)(XS, LABELS, jax.random.key(0)))
        counts.append(len(traces))
        gc.collect()
    return results, np.diff(counts).max()


SWEEPS = {
    "baselines": lambda s: A.integrated_gradients(3, baseline=jnp.full(3, s / 10)),
    "baselines of NumPy": lambda s: A.integrated_gradients(3, baseline=np.full(3, s / 10, np.float32)),
    "keys": lambda s: noisy(jax.random.key(s)),
    "keys inside of a bound": lambda s: B.singular_value(noisy(jax.random.key(s)), ja.L2(0.1), method="dense"),
    "radii": lambda s: B.singular_value(SALIENCY, ja.L2(jnp.asarray(0.1 * (s + 1))), method="dense"),
    "keys of an output": lambda s: ja.outputs.explaining(noisy(jax.random.key(s)), ja.outputs.log_odds),
}


@pytest.mark.parametrize("name", SWEEPS)
def test_a_sweep_over_arrays_compiles_once(name):
    results, traces = swept([functools.partial(SWEEPS[name], s) for s in range(3)])
    assert traces <= 1
    network = Partial(lambda w, x: w @ jnp.tanh(x), jnp.arange(6.0).reshape(2, 3) / 3)
    for s, found in enumerate(results):
        expected = SWEEPS[name](s)(network, jnp.asarray(XS[1]), 1, jax.random.key(0))
        for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
            np.testing.assert_allclose(np.abs(one[1]), np.abs(other), rtol=1e-4, atol=1e-6)
    assert not np.allclose(jax.tree.leaves(results[0])[0], jax.tree.leaves(results[1])[0])


def test_arrays_of_a_swept_method_are_freed():
    references = []

    def method(s):
        baseline = jnp.full(3, s / 10)
        references.append(weakref.ref(baseline))
        return A.integrated_gradients(4, baseline=baseline)

    swept([functools.partial(method, s) for s in range(3)])
    gc.collect()
    assert [reference() for reference in references] == [None] * 3


def test_a_constructor_that_looks_at_values_gets_constants():
    @ja.described
    def scaled(factor):
        if float(factor.sum()) > 1:
            return ja.Attribution("scaled", lambda logits_fn, x, label: 2 * explained(logits_fn, x, label))
        return ja.Attribution("scaled", explained)

    results, _ = swept([lambda: scaled(jnp.zeros(3)), lambda: scaled(jnp.ones(3))])
    np.testing.assert_allclose(results[1], 2 * results[0], rtol=1e-6)


def test_a_method_of_ones_own_is_taken_as_it_is():
    weights = jnp.full(3, 2.0)
    methods = [ja.Method("mine", lambda _, x, *__: weights * x, needs_key=False)] * 2
    results, traces = swept([lambda each=each: each for each in methods])
    np.testing.assert_allclose(results[1], 2 * XS, rtol=1e-6)
    assert traces <= 1
