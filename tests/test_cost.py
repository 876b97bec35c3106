"""Stated numbers of gradients against the passes through a network that are made, and sums with unknown parts."""

import jax
import jax.numpy as jnp
import pytest

import jaxattr as ja
from jaxattr import _cost

BALL = ja.LInf(0.1)
MAKE = {
    "integrated_gradients": lambda count: ja.attributions.integrated_gradients(count, chunk=1),
    "pgd": lambda count: ja.attacks.pgd(BALL, num_steps=count),
}


def passes(method):
    """Count calls of the network, all of them, since loops run in Python."""
    count = 0

    def logits_fn(x):
        nonlocal count
        count += 1
        return jnp.stack([jnp.sum(jnp.sin(x)), jnp.sum(jnp.cos(x * x))])

    with jax.disable_jit():
        method(logits_fn, jnp.linspace(0.1, 0.9, 4), 0, jax.random.key(0))
    return count


@pytest.mark.parametrize("name", MAKE)
def test_every_step_is_a_pass(name):
    few, many = MAKE[name](3), MAKE[name](5)
    assert passes(many) - passes(few) == _cost.gradients_of(many, 4) - _cost.gradients_of(few, 4) == 2


def test_restarts_cost_as_many_times():
    attack = ja.attacks.pgd(BALL, num_steps=3)
    assert ja.attacks.restarts(attack, 4).gradients(10) == 4 * attack.gradients(10) == 12


def test_a_product_with_a_jacobian_is_two_gradients_of_the_attribution():
    def bound(count, attribute=ja.attributions.saliency()):  # noqa: B008 (a value)
        return ja.bounds.singular_value(attribute, ja.L2(0.1), num_steps=count, method="lanczos")

    assert bound(7).gradients(100) - bound(3).gradients(100) == 2 * 4
    of_ten = ja.attributions.integrated_gradients(10)
    # Without symmetry a step has two products: with the Jacobian, and with its transpose.
    assert bound(7, of_ten).gradients(100) - bound(3, of_ten).gradients(100) == 2 * 2 * 4 * 10


def test_a_part_that_is_not_known_makes_the_sum_unknown():
    assert _cost.total([2, 3]) == 5
    assert _cost.total([]) == 0
    assert _cost.total([2, None]) is None
    assert _cost.times(3, 2) == 6
    assert _cost.times(3, None) is None
    unknown = ja.Attribution("mine", lambda logits_fn, x, label: x)
    assert ja.bounds.singular_value(unknown, ja.L2(0.1)).gradients(10) is None
