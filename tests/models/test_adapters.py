import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxattr import models

RESNET = models.ResNet18(num_classes=3, width=2)


@pytest.fixture(scope="module")
def resnet():
    return models.init(RESNET, jax.random.key(0), (8, 8, 3))


def test_one_softplus_unit_in_closed_form():
    model = models.MLP(num_classes=1, hidden=(1,), beta=2.0, mean=0.5, std=0.25)
    w, b, v, c = np.array([0.7, -1.1]), 0.3, 1.7, -0.2
    dense = [
        {"kernel": w[:, None], "bias": np.array([b])},
        {"kernel": np.array([[v]]), "bias": np.array([c])},
    ]
    params = {f"Dense_{index}": layer for index, layer in enumerate(dense)}
    logits_fn = models.logits_fn(model, jax.tree.map(jnp.asarray, {"params": params}))
    x = np.array([0.2, 0.9])
    t = 2.0 * (w @ ((x - 0.5) / 0.25) + b)
    sigmoid = 1 / (1 + np.exp(-t))
    value = v * np.log1p(np.exp(t)) / 2.0 + c
    gradient = v * sigmoid * w / 0.25
    hessian = v * 2.0 * sigmoid * (1 - sigmoid) * np.outer(w, w) / 0.25**2
    of = jax.jit(lambda x: (logits_fn(x), jax.jacobian(logits_fn)(x), jax.hessian(logits_fn)(x)))
    for computed, expected in zip(of(jnp.asarray(x)), (value, gradient, hessian), strict=True):
        np.testing.assert_allclose(computed[0], expected, rtol=1e-5)


def test_new_weights_and_equal_models_are_one_compilation():
    @jax.jit
    @chex.assert_max_traces(n=1)
    def classify(logits_fn, x):
        return logits_fn(x)

    x = jnp.ones((2, 2))
    answers = []
    for seed in range(3):
        # A module of its own each time, as a script that builds it from a configuration has.
        model = models.MLP(num_classes=2, hidden=[3], mean=[0.1, 0.2], std=(1.0, 2.0))
        variables = models.init(model, jax.random.key(seed), (2, 2))
        answers.append(classify(models.logits_fn(model, variables), x))
    assert classify._cache_size() == 1
    assert not np.array_equal(answers[0], answers[1])
    structures = {jax.tree.structure(models.logits_fn(models.MLP(hidden=(3,)), variables)) for _ in range(2)}
    assert len(structures) == 1
    assert models.apply_fn(models.MLP()) == models.apply_fn(models.MLP())
    assert models.apply_fn(models.MLP()) != models.apply_fn(models.MLP(beta=1.0))


def test_logits_fn_freezes_the_statistics(resnet):
    xs = jax.random.uniform(jax.random.key(1), (4, 8, 8, 3))
    apply = models.apply_fn(RESNET)

    @jax.jit
    def every_way(variables, xs):
        one = models.logits_fn(RESNET, variables)
        return apply(variables, xs, train=True), apply(variables, xs), jax.vmap(one)(xs)

    before = jax.tree.map(np.asarray, resnet)
    (trained, updates), (evaluated, none), logits = every_way(resnet, xs)
    chex.assert_trees_all_equal(before, resnet)
    # Statistics of the batch in training, and the stored ones in evaluation: one input or many.
    np.testing.assert_allclose(logits, evaluated, rtol=1e-4, atol=1e-5)
    assert np.abs(np.asarray(logits - trained)).max() > 1e-2
    assert none == {}

    # The first statistics move a tenth of the way to those of the batch.
    kernel = resnet["params"]["Conv_0"]["kernel"]
    dims = ("NHWC", "HWIO", "NHWC")
    stem = jax.lax.conv_general_dilated(xs, kernel, (1, 1), "SAME", dimension_numbers=dims)
    assert set(updates) == {"batch_stats"}
    moved = updates["batch_stats"]["BatchNorm_0"]
    np.testing.assert_allclose(moved["mean"], 0.1 * stem.mean((0, 1, 2)), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(moved["var"], 0.9 + 0.1 * stem.var((0, 1, 2)), rtol=1e-4)


def test_dropout_needs_a_key_in_training_only():
    model = models.ConvNet(num_classes=2, dropout=0.5)
    variables = models.init(model, jax.random.key(0), (16, 16, 1))
    variables["params"]["Dense_2"]["kernel"] += 1.0
    apply, xs = jax.jit(models.apply_fn(model), static_argnames="train"), jnp.ones((2, 16, 16, 1))
    with pytest.raises(ValueError, match=r"ConvNet draws random numbers in training; pass `key=`"):
        apply(variables, xs, train=True)
    first, again, other = (apply(variables, xs, train=True, key=jax.random.key(seed))[0] for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert not np.allclose(first, other)
    np.testing.assert_allclose(apply(variables, xs, key=jax.random.key(0))[0], apply(variables, xs)[0])


def test_any_linen_module_is_accepted():
    class Linear(nn.Module):
        @nn.compact
        def __call__(self, xs, train=False):
            del train
            return nn.Dense(2)(xs)

    variables = {"params": {"Dense_0": {"kernel": jnp.eye(2), "bias": jnp.array([0.0, 1.0])}}}
    np.testing.assert_array_equal(models.logits_fn(Linear(), variables)(jnp.array([3.0, 4.0])), [3, 5])


class Switched(nn.Module):
    """Dropout and running statistics behind one argument, whatever its name."""

    def layers(self, xs, training):
        xs = nn.BatchNorm(use_running_average=not training)(nn.Dense(4)(xs))
        return nn.Dense(2)(nn.Dropout(0.5, deterministic=not training)(nn.softplus(xs)))


class Train(Switched):
    @nn.compact
    def __call__(self, xs, train):
        return self.layers(xs, train)


class Training(Switched):
    @nn.compact
    def __call__(self, xs, *, training=False):
        return self.layers(xs, training)


class Deterministic(Switched):
    @nn.compact
    def __call__(self, xs, deterministic: bool):
        return self.layers(xs, not deterministic)


class UseRunningAverage(Switched):
    @nn.compact
    def __call__(self, xs, use_running_average=True):
        return self.layers(xs, not use_running_average)


class OfBoth(Switched):
    @nn.compact
    def __call__(self, xs, train, deterministic):
        assert train is not deterministic
        return self.layers(xs, train)


class OfAField(Switched):
    deterministic: bool = False

    @nn.compact
    def __call__(self, xs):
        return self.layers(xs, not self.deterministic)


@pytest.mark.parametrize("kind", [Train, Training, Deterministic, UseRunningAverage, OfBoth, OfAField])
def test_every_name_of_the_switch(kind):
    model, xs = kind(), jax.random.normal(jax.random.key(1), (5, 3))
    variables = models.init(model, jax.random.key(0), (3,))
    apply = models.apply_fn(model)
    with pytest.raises(ValueError, match="draws random numbers in training; pass `key=`"):
        apply(variables, xs, train=True)
    trained, updates = apply(variables, xs, train=True, key=jax.random.key(2))
    assert set(updates) == {"batch_stats"}
    evaluated, none = apply(variables, xs, train=False)
    assert none == {}
    assert np.abs(np.asarray(trained - evaluated)).max() > 1e-2
    np.testing.assert_allclose(models.logits_fn(model, variables)(xs[0]), evaluated[0], rtol=1e-5, atol=1e-6)


def test_a_module_without_a_switch_and_without_a_hash():
    """``nn.Sequential`` holds a list; equal ones are one entry in the caches of jit all the same."""
    make = lambda: nn.Sequential([nn.Dense(4), nn.softplus, nn.Dense(2)])  # noqa: E731
    variables = models.init(make(), jax.random.key(0), (3,))
    classify = jax.jit(lambda logits_fn, x: logits_fn(x))
    for _ in range(2):
        assert classify(models.logits_fn(make(), variables), jnp.ones(3)).shape == (2,)
    assert classify._cache_size() == 1
    trained, updates = models.apply_fn(make())(variables, jnp.ones((1, 3)), train=True)
    assert trained.shape == (1, 2)
    assert updates == {}


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (models.MLP, r"the class MLP; build one, `MLP\(\.\.\.\)`"),
        (lambda xs: xs, "function. A network of another framework needs no adapter"),
        (models.MLP().bind({"params": {}}), "MLP bound to its variables.*goes wherever"),
    ],
)
def test_what_is_no_linen_module(model, message):
    for call in (
        lambda: models.logits_fn(model, {"params": {}}),
        lambda: models.apply_fn(model),
        lambda: models.init(model, jax.random.key(0), (3,)),
    ):
        with pytest.raises(TypeError, match=rf"`model` must be a Flax linen module without variables, got {message}"):
            call()


def test_initial_variables_have_the_default_float_type(resnet):
    assert {leaf.dtype for leaf in jax.tree.leaves(resnet)} == {jnp.dtype("float32")}
    with jax.enable_x64(True):
        variables = models.init(models.MLP(), jax.random.key(0), (2,))
        assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype("float64")}


def test_init_can_be_compiled_by_the_caller():
    """As one part of a larger program, and over keys."""
    model, keys = models.MLP(num_classes=2, hidden=()), jax.random.split(jax.random.key(0), 3)
    many = jax.jit(jax.vmap(lambda key: models.init(model, key, (2,))))(keys)
    one = models.init(model, keys[1], (2,))
    chex.assert_trees_all_close(jax.tree.map(lambda leaf: leaf[1], many), one, rtol=1e-6)


def test_wrong_variables_are_named():
    with pytest.raises(ValueError, match=r"dictionary with 'params'.*got \['Dense_0'\]"):
        models.logits_fn(models.MLP(), {"Dense_0": {}})
