import functools
import gc
import logging
import weakref
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxattr as ja
from jaxattr.accuracy import accuracy, predicted, robust_accuracy, robustness
from jaxattr.apply_fn import as_classifier, check_classes, mixed_precision
from jaxattr.labeled import Batch, check_labels


class Result(NamedTuple):
    x: jax.Array


def linear(variables, xs, *, train=False, key=None):
    assert not train
    return xs @ variables["params"], {}


EYE = {"params": np.eye(3, dtype=np.float32)}


@pytest.mark.parametrize("batch_size", [1, 3, 7, 100])
def test_accuracy_is_the_fraction_whatever_the_batch(batch_size):
    rng = np.random.default_rng(0)
    x, label = rng.normal(size=(7, 3)).astype(np.float32), rng.integers(0, 3, 7)
    expected = np.mean(x.argmax(1) == label)
    assert accuracy(linear, EYE, Batch(x, label), batch_size=batch_size) == pytest.approx(expected)


def test_accuracy_is_compiled_once_for_all_weights():
    # Once for the number of classes, and once for the program.
    @chex.assert_max_traces(n=2)
    def network(variables, xs, *, train=False, key=None):
        return linear(variables, xs)

    data = Batch(np.eye(3, dtype=np.float32), np.arange(3))
    assert accuracy(network, EYE, data, batch_size=2) == 1
    flipped = {"params": np.eye(3, dtype=np.float32)[[1, 2, 0]]}
    assert accuracy(network, flipped, data, batch_size=2) == 0


def test_robust_accuracy_needs_both_predictions():
    def attack(logits_fn, x, label, key):
        assert logits_fn(x).shape == (3,)
        return Result(jnp.where(x[2] > 0, jnp.roll(x, 1), x))

    x = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1], [0, 0, 1]], np.float32)
    # Right and left alone; wrong and left alone; right but moved; wrong and moved to be right.
    label = np.array([0, 2, 2, 0])
    for batch_size in (1, 3, 4):
        data = Batch(x, label)
        assert accuracy(linear, EYE, data, batch_size=batch_size) == 0.5
        robust = robust_accuracy(linear, EYE, data, attack, jax.random.key(0), batch_size=batch_size)
        assert robust == 0.25


def test_robust_accuracy_has_a_key_per_sample():
    def attack(logits_fn, x, label, key):
        return Result(x + jax.random.normal(key, x.shape))

    data = Batch(np.tile(np.eye(3, dtype=np.float32), (20, 1)), np.tile(np.arange(3), 20))
    key = jax.random.key(1)
    noise = jax.vmap(lambda i: jax.random.normal(jax.random.fold_in(key, i), (3,)))(np.arange(60))
    expected = np.mean((data.x + noise).argmax(1) == data.label)
    assert 0 < expected < 1
    for batch_size in (7, 60):
        robust = robust_accuracy(linear, EYE, data, attack, key, batch_size=batch_size)
        assert robust == pytest.approx(expected)


def test_samples_of_integers_are_refused():
    with pytest.raises(TypeError, match=r"floating-point numbers, got dtype uint8.*/ 255"):
        accuracy(linear, EYE, Batch(np.eye(3, dtype=np.uint8), np.arange(3)))


# Predictions that are none


def test_predicted_is_no_class_where_logits_are_not_finite():
    nan, inf = np.nan, np.inf
    logits = [[1.0, 2.0], [nan, 1.0], [0.0, nan], [inf, 0.0], [-inf, 0.0], [-inf, -inf], [3.0, 3.0]]
    np.testing.assert_array_equal(predicted(jnp.array(logits)), [1, -1, -1, -1, 1, -1, 0])


@pytest.mark.parametrize("label", [0, 1])
def test_no_accuracy_counts_logits_that_are_not_finite(label, caplog):
    def nan(variables, xs, *, train=False, key=None):
        return xs[:, :2] * jnp.nan, {}

    data = Batch(np.full((4, 3), 0.5, np.float32), np.full(4, label))
    with caplog.at_level(logging.WARNING, "jaxattr.accuracy"):
        assert accuracy(nan, EYE, data) == 0
    assert "logits of 4 of 4 samples are not finite" in caplog.text
    found = robustness(nan, EYE, data, ja.attacks.pgd(ja.LInf(0.1), num_steps=2), jax.random.key(0))
    assert found == (0.0, 0.0, 0, 4, 4)


def flat_patch(variables, xs, *, train=False, key=None):
    """Class 1 by 0.3 at (0, 0, 0.6, 0.5), where the gradient of the patch's standard deviation is NaN."""

    def one(x):
        patch = x[:2] - x[:2].mean()
        return jnp.stack([3 * x[3], 3 * x[2] + jnp.sqrt(jnp.sum(patch**2))])

    return jax.vmap(one)(xs), {}


PATCH = np.tile(np.array([0, 0, 0.6, 0.5], np.float32), (4, 1))


@pytest.mark.parametrize("random_start", [False, True])
@pytest.mark.parametrize("keep", ["last", "best", "best_label_kept"])
def test_an_attack_goes_along_where_one_entry_of_the_gradient_is_nan(keep, random_start):
    """The margin falls by at most 0.006: all samples withstand."""
    attack = ja.attacks.pgd(ja.LInf(0.001), num_steps=3, keep=keep, random_start=random_start)
    found = robustness(flat_patch, {"params": {}}, Batch(PATCH, np.ones(4, int)), attack, jax.random.key(0))
    assert found == (1.0, 1.0, 0, 0, 4)


@pytest.mark.parametrize("random_start", [False, True])
def test_an_attack_moves_the_pixels_that_it_can(random_start):
    """Where the radius is enough, the same samples fall."""
    wide = ja.attacks.pgd(ja.LInf(0.1), num_steps=3, random_start=random_start)
    result = ja.over_samples(wide, as_classifier(flat_patch, {"params": {}}), batch_size=8, devices=jax.devices()[:1])(
        PATCH, np.ones(4, int), jax.random.key(0)
    )
    assert np.all(np.isfinite(result.x))
    np.testing.assert_array_equal(result.label, 0)
    assert not np.any(result.stalled)


def test_samples_that_an_attack_could_not_try_are_counted_apart(caplog):
    """Logits without a gradient: the step function predicts right and says nothing about robustness."""

    def steps(variables, xs, *, train=False, key=None):
        return jnp.round(10 * xs), {}

    x = np.array([[0.9, 0, 0], [0, 0.9, 0], [0, 0, 0.9], [0.9, 0, 0]], np.float32)
    data = Batch(x, np.array([0, 1, 2, 1]))
    attack = ja.attacks.pgd(ja.LInf(0.1), num_steps=2)
    with caplog.at_level(logging.WARNING, "jaxattr.accuracy"):
        found = robustness(steps, EYE, data, attack, jax.random.key(0))
    assert found == (0.75, 0.0, 3, 0, 4)
    assert "of 4 samples the attack could not try 3" in caplog.text
    assert robust_accuracy(steps, EYE, data, attack, jax.random.key(0)) == 0


def test_an_input_whose_logits_become_nan_under_attack_is_counted_apart():
    def attack(logits_fn, x, label, key):
        return Result(jnp.where(x[0] > 0.5, jnp.nan, x))

    x = np.array([[0.9, 0, 0], [0, 0.9, 0]], np.float32)
    found = robustness(linear, EYE, Batch(x, np.array([0, 1])), attack, jax.random.key(0))
    assert found == (1.0, 0.5, 0, 1, 2)


def test_of_several_restarts_all_have_to_fail():
    one = ja.attacks.pgd(ja.LInf(0.1), num_steps=1, step_size=1e-6)
    data = Batch(np.tile(np.array([0.55, 0.5, 0.0], np.float32), (30, 1)), np.zeros(30, int))
    key = jax.random.key(0)
    alone = robust_accuracy(linear, EYE, data, one, key)
    several = robust_accuracy(linear, EYE, data, ja.attacks.restarts(one, 4), key)
    assert 0 <= several < alone < 1


# Inputs, labels and networks that are none


def test_inputs_outside_of_the_box_of_the_attack_are_refused():
    x = np.random.default_rng(0).uniform(0, 255, (6, 3)).astype(np.float32)
    data = Batch(x, np.zeros(6, int))
    with pytest.raises(ValueError, match=r"must lie in the box .*\(0.0, 1.0\)"):
        robust_accuracy(linear, EYE, data, ja.attacks.pgd(ja.LInf(8.0)), jax.random.key(0))
    attack = ja.attacks.pgd(ja.LInf(8.0, box=(0.0, 255.0)))
    found = robust_accuracy(linear, EYE, data, attack, jax.random.key(0))
    # A corner of the ball takes 16 off the lead of class 0.
    lead = x[:, 0] - np.maximum(x[:, 1], x[:, 2])
    assert found == pytest.approx(np.mean(lead > 16))


@pytest.mark.parametrize(("label", "named"), [(-1, r"-1 \(2 times\)"), (3, r"3 \(2 times\)")])
def test_labels_that_do_not_exist_are_refused(label, named):
    data = Batch(np.eye(3, dtype=np.float32), np.array([0, label, label]))
    message = rf"`label` must be between 0 and 2 \(the network has 3 logits\), but 2 of 3 labels are not: {named}"
    with pytest.raises(ValueError, match=message):
        accuracy(linear, EYE, data)
    with pytest.raises(ValueError, match=message):
        robust_accuracy(linear, EYE, data, ja.attacks.pgd(ja.LInf(0.1)), jax.random.key(0))
    with pytest.raises(ValueError, match=message):
        check_labels(data.label, 3)
    check_labels(np.arange(3), 3)


def test_a_network_of_one_logit_is_refused_with_its_cure():
    def one(variables, xs, *, train=False, key=None):
        return xs[:, :1], {}

    def two(variables, xs, *, train=False, key=None):
        f = xs[:, :1] - 0.5
        return jnp.concatenate([jnp.zeros_like(f), f], axis=-1), {}

    data = Batch(np.array([[0.2, 0, 0], [0.8, 0, 0]], np.float32), np.array([0, 1]))
    with pytest.raises(ValueError, match=r"at least 2, but the network has 1.*jnp.concatenate"):
        accuracy(one, EYE, data)
    assert accuracy(two, EYE, data) == 1
    assert check_classes(two, EYE, data.x) == 2


# Memory


@pytest.mark.parametrize("wrap", [lambda f: f, functools.partial, mixed_precision], ids=["closure", "partial", "mixed"])
def test_networks_and_attacks_in_closures_are_freed(wrap):
    def once():
        weights = jnp.ones((40, 3))

        def network(variables, xs, *, train=False, key=None):
            return xs @ weights, {}

        # An attack of the library is a value: it holds no weights, and its programs are kept for equal ones.
        pgd = ja.attacks.pgd(ja.LInf(0.1), num_steps=1)

        def attack(logits_fn, x, label, key):
            return pgd(logits_fn, x, label, key)

        apply_fn = wrap(network)
        data = Batch(np.random.default_rng(0).uniform(size=(4, 40)).astype(np.float32), np.zeros(4, int))
        accuracy(apply_fn, {"params": {}}, data)
        robust_accuracy(apply_fn, {"params": {}}, data, attack, jax.random.key(0))
        return [weakref.ref(one) for one in (weights, network, attack)]

    references = once()
    gc.collect()
    assert [reference() for reference in references] == [None] * 3


def test_networks_made_of_equal_modules_share_a_program():
    """Made anew for each call, as by ``ja.models.apply_fn(model)``."""
    traces = []

    class Made(NamedTuple):
        width: int

        def __call__(self, variables, xs):
            traces.append(1)
            return xs @ variables["params"], {}

    data = Batch(np.eye(3, dtype=np.float32), np.arange(3))
    for _ in range(3):
        assert accuracy(Made(3), EYE, data) == 1
    assert len(traces) == 2
