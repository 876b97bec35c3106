"""What every method keeps: the table of methods times the table of properties.

A program is compiled once per method and model, with weights, sample, label, key and radius as arguments; most
properties read from it.
"""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tables
from jax.tree_util import Partial
from tables import METHODS, assert_trees_close, model, names, tolerance

import jaxattr as ja

EPSILON = 0.1
# Quicker to compile, and nothing here is timed.
jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
KEY = jax.random.key(7)
# Those of samples 0 to 4 in `over_samples`.
KEYS = jax.vmap(functools.partial(jax.random.fold_in, KEY))(jnp.arange(5))
EPSILONS = jnp.array([0.1, 0.3, 0.0, 1e-3, 20.0])

every = pytest.mark.parametrize("name", names())
representative = pytest.mark.parametrize("name", tables.REPRESENTATIVES)
every_bound = pytest.mark.parametrize("name", names("bound"))
every_attack = pytest.mark.parametrize("name", names("attack"))


def run(name, logits_fn, x, label, key, epsilon):
    return METHODS[name](epsilon, x.shape)(logits_fn, x, label, key)


def traced_once(name, label=""):
    """The method to compile; a second trace raises."""

    def counted(*arguments):
        return run(name, *arguments)

    # chex knows functions by name and source.
    counted.__name__ = name + label
    return chex.assert_max_traces(counted, n=1)


@functools.cache
def program(name):
    return jit(traced_once(name))


@functools.cache
def loop(name, model_name="softplus"):
    """Results of the samples of a model one by one, each with its key and its radius."""
    m = model(model_name)
    return [program(name)(m.logits_fn, *arguments) for arguments in zip(m.xs, m.labels, KEYS, EPSILONS, strict=True)]


def stacked(results):
    return jax.tree.map(lambda *leaves: np.stack(leaves), *results)


@pytest.mark.parametrize("package", ["attributions", "bounds", "attacks"])
def test_every_registered_method_has_a_row(package):
    kind = package.removesuffix("s")
    assert set(getattr(ja, package).REGISTRY) == {
        row.entry for row in METHODS.values() if row.kind == kind and row.entry is not None
    }


def test_every_dissimilarity_has_a_row():
    assert {f"ifia_{name}" for name in ja.attacks.DISSIMILARITIES} <= set(METHODS)


@representative
def test_vmap_over_samples_keys_and_radii_equals_a_python_loop(name):
    m = model("softplus")
    batch = jit(jax.vmap(functools.partial(run, name), in_axes=(None, 0, 0, 0, 0)))
    batched = batch(m.logits_fn, m.xs, m.labels, KEYS, EPSILONS)
    assert_trees_close(jax.tree.map(np.asarray, batched), stacked(loop(name)), **tolerance(factor=1000))


# Of every kind one: a path, products, a dense Jacobian, steps of an attack, an attack on an attribution.
@pytest.mark.parametrize("name", ["integrated_gradients", "singular_value", "entrywise", "pgd_l2", "ifia_top_k"])
def test_eager_equals_jit_and_a_number_as_radius_equals_a_traced_one(name):
    m = model("softplus")
    eager = run(name, m.logits_fn, m.xs[0], int(m.labels[0]), KEYS[0], EPSILON)
    # A plain function in place of the Partial is the same classifier.
    assert_trees_close(eager, loop(name)[0], **tolerance(factor=1000))


@every
def test_one_compilation_for_other_weights_samples_keys_and_radii(name):
    m = model("softplus")
    first = loop(name)[0]
    second = program(name)(m.other, m.xs[0], m.labels[0], KEYS[0], EPSILONS[0])
    # Past one trace chex raises; and the weights are not baked in:
    differs = [not np.array_equal(a, b) for a, b in zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True)]
    assert any(differs)
    assert program(name)._cache_size() == 1


@every
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_shape_and_dtype_are_kept(name, dtype):
    """Both under 64-bit mode; without it all values of the other tests are float32."""
    assert all(leaf.dtype != np.float64 for leaf in jax.tree.leaves(loop(name)[0]))
    with jax.enable_x64(True):
        m = tables.cast(model("softplus"), dtype)
        arguments = m.logits_fn, m.xs[0], m.labels[0], KEYS[0]
        # A radius that vmap traces comes in the default precision, not in that of the input.
        fixed = jax.eval_shape(functools.partial(run, name), *arguments, jnp.asarray(0.1))
        for leaf in jax.tree.leaves(fixed):
            assert leaf.dtype in (jnp.dtype(dtype), jnp.dtype("int32"), jnp.dtype(bool))
    row = METHODS[name]
    lead = (2,) if name == "restarts" else ()
    found = {"attribution": lambda r: r, "bound": lambda r: getattr(r, "bound", r).direction, "attack": lambda r: r.x}
    kept = found[row.kind](fixed)
    assert (kept.shape, kept.dtype) == ((*lead, *m.shape), jnp.dtype(dtype))
    if row.kind != "attribution":
        assert {leaf.shape for leaf in jax.tree.leaves(fixed)} == {lead, (*lead, *m.shape)}


def _of_dtype(dtype, weights, x):
    return tables.logits(weights, x.astype(dtype))


@representative
@pytest.mark.parametrize(
    ("of_input", "of_network"),
    [("bfloat16", "float32"), ("bfloat16", "bfloat16"), ("float32", "float16"), ("float32", "float64")],
)
def test_networks_of_another_dtype_than_their_inputs(name, of_input, of_network):
    """Traced: results have the input's type, nothing meets a type that it does not know, and bounds refuse 16 bits."""
    m, row = model("softplus"), METHODS[name]
    with jax.enable_x64(of_network == "float64"):
        (weights,) = m.logits_fn.args
        network = Partial(functools.partial(_of_dtype, of_network), tables.cast(weights, of_network))
        x = m.xs[0].astype(of_input)
        traced = functools.partial(jax.eval_shape, functools.partial(run, name), network, x, m.labels[0], KEYS[0])
        # `worst_direction` is the attack that a bound names.
        if (row.kind == "bound" or name.startswith("worst_direction")) and of_network in ("bfloat16", "float16"):
            with pytest.raises(TypeError, match=rf"input's float32 or wider, but it computes in {of_network} at tests"):
                traced(EPSILON)
            return
        result = traced(EPSILON)
    kept = {
        "attribution": lambda r: r,
        "bound": lambda r: getattr(r, "bound", r),
        "attack": lambda r: (r.x, r.distance),
    }
    for leaf in jax.tree.leaves(kept[row.kind](result)):
        assert leaf.dtype in (jnp.dtype("float32"), jnp.dtype("int32"), jnp.dtype(bool))


@pytest.mark.parametrize("name", ["singular_value_dense", "entrywise", "pgd_linf"])
def test_inputs_of_16_bits_give_what_the_same_numbers_in_32_give(name):
    m = model("softplus")
    x = m.xs[0].astype(jnp.bfloat16)
    expected = program(name)(m.logits_fn, x.astype(jnp.float32), m.labels[0], KEYS[0], EPSILONS[0])
    found = jit(lambda *arguments: run(name, *arguments, EPSILON))(m.logits_fn, x, m.labels[0], KEYS[0])
    assert_trees_close(found, expected, **tolerance(factor=1000))


@representative
def test_every_method_is_called_with_the_same_four_arguments(name):
    """Lifted with a key, and without one where none is needed; refused by its own name, before it is compiled."""
    m = model("softplus")
    method = METHODS[name].build(METHODS[name].ball(EPSILON), m.shape)
    four = jax.eval_shape(method, m.logits_fn, m.xs[0], m.labels[0], KEYS[0])
    if getattr(method, "needs_key", False):
        with pytest.raises(TypeError, match=rf"`{method.name}` draws random numbers and needs a key"):
            ja.over_samples(method, m.logits_fn)(m.xs, m.labels)
        with pytest.raises(TypeError, match=rf"`{method.name}` draws random numbers and needs a key"):
            method(m.logits_fn, m.xs[0], m.labels[0])
    else:
        chex.assert_trees_all_equal_shapes_and_dtypes(four, jax.eval_shape(method, m.logits_fn, m.xs[0], m.labels[0]))


def test_wrappers_need_a_key_where_what_they_wrap_does():
    ball, saliency = ja.L2(EPSILON), ja.attributions.saliency()
    for method, needs_key in (("lanczos", True), ("dense", False)):
        bound = ja.bounds.singular_value(saliency, ball, method=method)
        for wrapped in (
            ja.bounds.smallest(bound),
            ja.bounds.corrected(bound, saliency),
            ja.attacks.worst_direction(ball, saliency, bound),
        ):
            assert wrapped.needs_key == needs_key, wrapped.name


@every
def test_same_key_same_answer_and_another_key_another_start(name):
    m = model("softplus")
    first, again, other = (
        program(name)(m.logits_fn, m.xs[0], m.labels[0], key, EPSILONS[1]) for key in (KEYS[0], KEYS[0], KEYS[1])
    )
    chex.assert_trees_all_equal(first, again)
    if METHODS[name].kind == "attribution":
        chex.assert_trees_all_equal(first, other)
    elif METHODS[name].random:
        assert float(jnp.max(jnp.abs(first.x - other.x))) > 1e-3


@every
@pytest.mark.parametrize("model_name", ["saturated", "linear"])
def test_degenerate_networks_have_an_answer(name, model_name):
    """Zero attributions, zero Jacobians. What has no value is NaN, and only that."""
    m = model(model_name)
    result = program(name)(m.logits_fn, m.xs[1], m.labels[1], KEYS[1], EPSILONS[0])
    flat, _ = jax.tree_util.tree_flatten_with_path(result)
    undefined = {jax.tree_util.keystr(path)[1:] for path, leaf in flat if not np.all(np.isfinite(leaf))}
    if model_name == "linear":
        assert undefined == set()
    elif METHODS[name].kind == "bound":
        parts = {"corrected": ["", "bound."]}.get(name, [""])
        assert undefined == {part + value for part in parts for value in ("cosine", "degrees")}
        assert np.all(result.vacuous)
    else:
        # A map of zeros has no direction, no center and no correlation.
        without = ("ifia_cosine", "ifia_mass_center", "ifia_pearson")
        assert undefined == ({"objective"} if name in without else set())
    if METHODS[name].kind == "bound":
        assert float(result.euclidean) == 0 if model_name == "saturated" else float(result.euclidean) >= 0


@pytest.mark.parametrize("model_name", ["softplus", "quadratic"])
@every_bound
def test_attained_is_at_most_the_bound_and_the_direction_attains_it(name, model_name):
    row = METHODS[name]
    for result in loop(name, model_name):
        bound = getattr(result, "bound", result)
        assert 0 <= float(bound.euclidean_attained) <= float(bound.euclidean)
        assert float(bound.euclidean) == pytest.approx(float(bound.slope * bound.epsilon), rel=1e-6)
        if row.ball is ja.L2:
            assert float(jnp.linalg.norm(bound.direction)) == pytest.approx(1, rel=1e-5)
        elif bound.two_sided:
            np.testing.assert_array_equal(jnp.abs(bound.direction), 1)
        else:
            assert float(jnp.max(jnp.abs(bound.direction))) <= 1
        if name == "corrected":
            assert float(result.constant) >= float(result.constant_plus) >= 1
            assert float(result.euclidean) >= float(bound.euclidean)


@every_attack
def test_attacks_stay_in_ball_and_box_for_every_radius(name):
    m = model("softplus")
    # x at corners of the box as well as inside; the radii include 0, and one that covers the box many times.
    xs = m.xs.at[2].set(0.0).at[3].set(1.0)
    for order in (0, 2):
        for x, label, key, epsilon in zip(xs, m.labels, KEYS, jnp.roll(EPSILONS, order), strict=True):
            result = program(name)(m.logits_fn, x, label, key, epsilon)
            ball = METHODS[name].ball(float(epsilon))
            for found in np.reshape(result.x, (-1, *m.shape)):
                delta = np.asarray(found - x, np.float64)
                size = np.linalg.norm(delta) if ball.name == "l2" else np.max(np.abs(delta))
                assert size <= float(epsilon) * (1 + 1e-5) + 2e-7
                assert found.min() >= 0
                assert found.max() <= 1
                assert bool(ball.contains(x, found))
            if epsilon == 0:
                np.testing.assert_array_equal(np.broadcast_to(x, result.x.shape), result.x)
                np.testing.assert_array_equal(result.distance, 0)


@every_attack
def test_what_is_reported_is_what_the_returned_point_gives(name):
    """Label, label_kept and distance, recomputed in NumPy's float64 from the returned point."""
    m = model("softplus")
    for x, result in zip(m.xs, loop(name), strict=True):
        points = np.reshape(result.x, (-1, *m.shape))
        labels = [int(jnp.argmax(m.logits_fn(point))) for point in points]
        np.testing.assert_array_equal(np.ravel(result.label), labels)
        clean = int(jnp.argmax(m.logits_fn(x)))
        np.testing.assert_array_equal(np.ravel(result.label_kept), [label == clean for label in labels])
        deltas = (np.asarray(points, np.float64) - np.asarray(x)).reshape(len(points), -1)
        order = 2 if METHODS[name].ball is ja.L2 else np.inf
        np.testing.assert_allclose(
            np.ravel(result.distance), np.linalg.norm(deltas, order, axis=1), rtol=1e-5, atol=1e-9
        )


@pytest.mark.parametrize("name", [n for n in names("attack") if n.startswith("ifia")])
def test_ifia_keeps_the_label_or_does_not_move(name):
    m = model("softplus")
    results = [*loop(name)]
    # The wide radius moves labels; the label that counts is the predicted one, also of a misclassified sample.
    wrong = (m.labels + 1) % tables.CLASSES
    results += [
        program(name)(m.logits_fn, *arguments) for arguments in zip(m.xs, wrong, KEYS, EPSILONS[::-1], strict=True)
    ]
    for result in results:
        assert bool(result.label_kept)


def perturbed_loss(name, logits_fn, x, label, key):
    """A scalar to differentiate: the map's square, the bound, or the attack's objective near x."""
    row = METHODS[name]
    if row.kind == "attribution":
        return jnp.sum(run(name, logits_fn, x, label, key, EPSILON) ** 2)
    return run(name, logits_fn, x, label, key, EPSILON).euclidean


@functools.cache
def gradient(name):
    return jit(jax.grad(functools.partial(perturbed_loss, name), argnums=(0, 1)))


@pytest.mark.parametrize("name", names("attribution", "bound"))
def test_gradients_by_weights_and_input_are_finite(name):
    """For bounds where they have one: the largest singular value is a norm, with a kink at J = 0."""
    networks = ["softplus", "linear", "saturated"] if METHODS[name].kind == "attribution" else ["softplus"]
    for network in networks:
        m = model(network)
        by_weights, by_input = gradient(name)(m.logits_fn, m.xs[1], m.labels[1], KEYS[0])
        for leaf in jax.tree.leaves((by_weights, by_input)):
            assert np.all(np.isfinite(leaf)), network
        if network == "softplus":
            assert max(float(jnp.max(jnp.abs(leaf))) for leaf in jax.tree.leaves(by_weights)) > 1e-4


@pytest.mark.parametrize("name", ["singular_value", "norm_relaxation"])
def test_gradients_of_bounds_are_finite_where_the_krylov_space_is_exhausted(name):
    """One unit: J has rank 1 or 2 and Lanczos ends early, but its largest singular value is simple and smooth."""
    m = model("softplus")
    (weights,) = m.logits_fn.args
    only = jax.tree_util.Partial(m.logits_fn.func, {**weights, "V": weights["V"] * (jnp.arange(5) == 0)})
    for leaf in jax.tree.leaves(gradient(name)(only, m.xs[0], m.labels[0], KEYS[0])):
        assert np.all(np.isfinite(leaf))


@pytest.mark.parametrize("name", ["saliency", "integrated_gradients", "integrated_gradients_of_margin"])
def test_gradient_of_an_attribution_by_a_weight_equals_finite_differences(name):
    with jax.enable_x64(True):
        m = tables.cast(model("softplus"), float)
        (weights,) = m.logits_fn.args

        def loss(weights):
            return perturbed_loss(name, jax.tree_util.Partial(m.logits_fn.func, weights), m.xs[0], m.labels[0], KEYS[0])

        rng = np.random.default_rng(0)
        direction = jax.tree.map(lambda leaf: rng.normal(size=leaf.shape), weights)
        value_and_slope = jit(lambda weights: jax.jvp(loss, (weights,), (direction,)))
        _, slope = value_and_slope(weights)
        h = 1e-5
        up, down = (
            value_and_slope(jax.tree.map(lambda w, d, s=s: w + s * h * d, weights, direction))[0] for s in (1, -1)
        )
        assert float(slope) == pytest.approx(float(up - down) / (2 * h), rel=1e-6)


@pytest.mark.parametrize("dissimilarity", sorted(ja.attacks.DISSIMILARITIES))
def test_gradients_of_attack_objectives_are_finite(dissimilarity):
    """At x itself, where distances have kinks, and beside it."""
    m = model("softplus")
    chosen = {
        "top_k": lambda: ja.attacks.dissimilarities.top_k(2),
        "targeted": lambda: ja.attacks.dissimilarities.targeted(tables.target(m.shape)),
    }
    made = chosen.get(dissimilarity, ja.attacks.DISSIMILARITIES[dissimilarity])()
    objective = ja.attacks.deviation(ja.attributions.saliency(), made)

    @jit
    def by_point(logits_fn, x, z, label):
        return objective(logits_fn, x, label).value_and_grad(z)[1]

    for network in ("softplus", "linear", "saturated"):
        m = model(network)
        for z in (m.xs[1], m.xs[0]):
            assert np.all(np.isfinite(by_point(m.logits_fn, m.xs[1], z, m.labels[1]))), network


@pytest.mark.parametrize("rule", ["left", "right", "midpoint", "trapezoid", "gauss_legendre"])
def test_chunked_path_equals_unchunked(rule):
    m = model("softplus")

    # Rules differ in the number of their nodes, 7 or 8, and in their values.
    chunks = (1, 2, 3, 7, 100) if rule in ("left", "trapezoid") else (3,)

    @jit
    def paths(logits_fn, x, label):
        return [
            ja.attributions.integrated_gradients(num_steps=7, rule=rule, chunk=chunk)(logits_fn, x, label)
            for chunk in (None, *chunks)
        ]

    whole, *others = paths(m.logits_fn, m.xs[0], m.labels[0])
    assert len(others) == len(chunks)
    for other in others:
        assert_trees_close(other, whole)


def test_chunked_dense_jacobian_equals_unchunked():
    m = model("softplus")

    @jit
    def dense(logits_fn, x, label):
        jacobian = ja.attribution_jacobian(ja.attributions.integrated_gradients(num_steps=3), logits_fn, x, label)
        return [jacobian.dense(chunk) for chunk in (None, 1, 4, 6, 64)]

    whole, *others = dense(m.logits_fn, m.xs[0], m.labels[0])
    for other in others:
        assert_trees_close(other, whole)


@pytest.mark.parametrize("name", ["integrated_gradients", "entrywise", "ifia_euclidean_l2"])
def test_sharded_over_eight_devices_equals_one(name):
    m = model("softplus")
    row = METHODS[name]
    method = row.build(row.ball(EPSILON), m.shape)
    key = () if row.kind == "attribution" else (KEY,)
    eight = ja.over_samples(method, m.logits_fn, batch_size=8, devices=jax.devices()[:8])(m.xs, m.labels, *key)
    one = [program(name)(m.logits_fn, *arguments, EPSILONS[0]) for arguments in zip(m.xs, m.labels, KEYS, strict=True)]
    assert_trees_close(eight, stacked(one), **tolerance(factor=1000))


@pytest.mark.parametrize("name", ["integrated_gradients", "singular_value", "ifia_euclidean"])
def test_a_flax_network_goes_through(name):
    """Sanity on an 8 x 8 image network: finite, kept in shape, one compilation for two sets of weights."""
    m = model("small_cnn")
    compiled = jit(traced_once(name, "_of_images"))
    for logits_fn in (m.logits_fn, m.other):
        result = compiled(logits_fn, m.xs[1], m.labels[1], KEYS[0], EPSILON)
        assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(result))
        if METHODS[name].kind == "attack":
            assert bool(METHODS[name].ball(EPSILON).contains(m.xs[1], result.x))
