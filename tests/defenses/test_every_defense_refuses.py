"""What every objective refuses, while it is traced or before: inputs, labels, networks, attacks that are none."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.special

import jaxattr as ja
from jaxattr.defenses import _attacked
from jaxattr.labeled import Batch
from tests.defenses.cases import BALL, KEY, OBJECTIVES, batch, linear, run, symmetric

EXPLAINING = {
    "aat": lambda **options: ja.defenses.aat(ja.attributions.saliency(), BALL, num_steps=2, **options),
    "adv_aat": lambda **options: ja.defenses.adv_aat(ja.attributions.saliency(), BALL, num_steps=2, **options),
    "art": lambda **options: ja.defenses.art(BALL, num_steps=2, **options),
    "ig_norm": lambda **options: ja.defenses.ig_norm(BALL, num_steps=2, path_steps=2, attack_path_steps=2, **options),
    "ig_sum_norm": lambda **options: ja.defenses.ig_sum_norm(
        BALL, num_steps=2, path_steps=2, attack_path_steps=2, **options
    ),
    "igr": lambda **options: ja.defenses.igr(
        ja.defenses.adversarial(ja.attacks.pgd(BALL, num_steps=2)), ja.attributions.saliency(), **options
    ),
}
each = pytest.mark.parametrize("name", sorted(OBJECTIVES))
ATTACKED = sorted(
    name for name, (build, *_) in OBJECTIVES.items() if isinstance(build(), ja.defenses.AttackedObjective)
)


def relu_network(variables, xs, *, train=False, key=None):
    del train, key
    return jax.nn.relu(xs @ variables["params"]) @ variables["params"].T, {}


def traced(objective, apply_fn, params, samples):
    """Loss and gradient as training traces them, without running anything."""

    def loss(params):
        return objective(apply_fn, {"params": params}, samples, KEY)[0]

    return jax.eval_shape(jax.grad(loss), params)


@pytest.mark.parametrize("name", sorted(EXPLAINING))
def test_kinks_are_refused_by_name_while_it_is_traced(name):
    """The derivative of an attribution does not see where a ReLU makes it jump."""
    params = symmetric(1)[0]
    with pytest.raises(ValueError, match=rf"(?s)`{name}` needs two derivatives.*relu"):
        traced(EXPLAINING[name](), relu_network, params, batch(classes=4))
    assert traced(EXPLAINING[name](kinks="allow"), relu_network, params, batch(classes=4)).shape == params.shape


@pytest.mark.parametrize("name", ["natural", "adversarial", "trades"])
def test_objectives_without_an_attribution_take_any_network(name):
    params = symmetric(1)[0]
    assert traced(OBJECTIVES[name][0](), relu_network, params, batch(classes=4)).shape == params.shape


@each
def test_a_network_of_one_logit_is_refused(name):
    """The softmax of one number is 1: nothing would be learned."""
    with pytest.raises(ValueError, match=r"at least 2, but the network has 1.*jnp.concatenate"):
        traced(OBJECTIVES[name][0](), linear, jnp.ones((4, 1)), batch(classes=1))


@each
def test_images_of_integers_are_refused(name):
    samples = Batch(np.ones((5, 4), np.uint8), np.zeros(5, np.int32))
    with pytest.raises(TypeError, match=r"floating-point numbers, got dtype uint8.*/ 255"):
        traced(OBJECTIVES[name][0](), linear, jnp.ones((4, 3)), samples)


def in_box(name):
    """The objectives over a ball with its default box, [0, 1]."""
    ball = ja.LInf(8.0)
    pgd = ja.attacks.pgd(ball, num_steps=2)
    build = {
        "adversarial": lambda: ja.defenses.adversarial(pgd),
        "igr": lambda: ja.defenses.igr(ja.defenses.natural(), ja.attributions.saliency(), attack=pgd),
        "trades_igr": lambda: ja.defenses.igr(ja.defenses.trades(ball), ja.attributions.saliency()),
        "aat": lambda: ja.defenses.aat(ja.attributions.saliency(), ball),
        "adv_aat": lambda: ja.defenses.adv_aat(ja.attributions.saliency(), ball),
    }
    return build.get(name, lambda: getattr(ja.defenses, name)(ball))()


@pytest.mark.parametrize("name", ATTACKED)
def test_inputs_outside_of_the_box_are_refused(name):
    """Its adversaries would be clipped to the box: black images, up to 253 away with a radius of 8."""
    objective = in_box(name)
    samples = Batch(jnp.asarray(batch().x * 100), batch().label)
    assert isinstance(objective.ball, ja.LInf)
    for call in (objective, objective.adversaries):
        with pytest.raises(ValueError, match=r"must lie in the box .*\(0.0, 1.0\)"):
            call(linear, {"params": jnp.ones((4, 3))}, samples, KEY)


def test_fit_refuses_inputs_outside_of_the_box_of_the_attack():
    samples = Batch(np.abs(batch().x) * 100, batch().label)
    with pytest.raises(ValueError, match="must lie in the box"):
        ja.fit(
            in_box("adversarial"),
            linear,
            {"params": np.zeros((4, 3), np.float32)},
            samples,
            optimizer=optax.sgd(0.1),
            batch_size=5,
            steps=1,
            key=KEY,
        )


@pytest.mark.parametrize("given", [ja.attacks.pgd, "pgd", None, ja.attributions.saliency()])
def test_what_is_no_attack_is_refused_where_the_objective_is_built(given):
    with pytest.raises(TypeError, match=r"`attack` must be an attack"):
        ja.defenses.adversarial(given)
    if given is not None:
        with pytest.raises(TypeError, match=r"`attack` must be an attack"):
            ja.defenses.igr(ja.defenses.natural(), ja.attributions.saliency(), attack=given)


def test_what_is_no_attribution_is_refused_where_the_objective_is_built():
    builds = (
        lambda given: ja.defenses.aat(given, BALL),
        lambda given: ja.defenses.adv_aat(given, BALL),
        lambda given: ja.defenses.igr(ja.defenses.trades(BALL), given),
    )
    for build in builds:
        with pytest.raises(TypeError, match="constructor `saliency`, whose parentheses are missing"):
            build(ja.attributions.saliency)


# One of each way to an accuracy.
@pytest.mark.parametrize("name", ["natural", "adversarial", "trades", "aat"])
def test_accuracies_do_not_count_logits_that_are_not_finite(name):
    def broken(variables, xs, *, train=False, key=None):
        logits, updates = linear(variables, xs)
        return logits * jnp.where(jnp.arange(len(xs)) < 2, jnp.nan, 1)[:, None] if train else logits, updates

    samples = Batch(batch().x, np.zeros(5, np.int32))
    # Class 0 is predicted throughout, by far; the first two samples have no logits in training mode.
    weights = np.zeros((4, 3), np.float32)
    moved = functools.partial(shifted, broken)
    _, metrics, _, _ = run(OBJECTIVES[name][0](), moved, weights, samples)
    for metric in ("accuracy", "adversarial_accuracy"):
        if metric in metrics:
            assert float(metrics[metric]) == pytest.approx(3 / 5)


def shifted(apply_fn, variables, xs, *, train=False, key=None):
    logits, updates = apply_fn(variables, xs, train=train, key=key)
    return logits + 9 * jnp.eye(3)[0], updates


@pytest.mark.parametrize("gap", [2.0, 15.0, 20.0, 60.0, 80.0])
def test_losses_of_confident_samples_keep_their_gradient(gap):
    """By the logits: softmax minus the label, whose entry is minus the sum of all others."""
    logits = np.random.default_rng(0).normal(size=(4, 5)).astype(np.float32)
    logits[:, 1] += gap
    label = np.full(4, 1)
    value, gradient = jax.value_and_grad(_attacked.mean_cross_entropy)(jnp.asarray(logits), label)
    others = np.delete(logits.astype(float), 1, axis=1) - logits[:, 1:2]
    odds = -scipy.special.logsumexp(others, axis=1)
    assert float(value) == pytest.approx(np.logaddexp(0, -odds).mean(), rel=1e-4)
    p = np.exp(others - np.logaddexp(0, -odds)[:, None])
    exact = np.insert(p, 1, -p.sum(axis=1), axis=1) / 4
    np.testing.assert_allclose(gradient, exact, rtol=1e-4)
