"""What methods say they cost is what they do: backward passes of a network are counted."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tables
from jax.tree_util import Partial
from tables import METHODS

import jaxattr as ja
from jaxattr import defenses

L2, LINF, KEY = ja.L2(0.1), ja.LInf(0.1), jax.random.key(0)
SALIENCY, IG = ja.attributions.saliency(), ja.attributions.integrated_gradients
A, B, D = ja.attributions, ja.bounds, ja.attacks
X = jnp.asarray(np.random.default_rng(0).uniform(0.2, 0.8, size=6), jnp.float32)


def counted(method):
    """Run a method once, and count the backward passes of its network."""
    passes = []
    weights = jnp.asarray(np.random.default_rng(1).normal(size=(3, 6)), jnp.float32)

    def plain(weights, x):
        return jnp.tanh(weights @ x) + (x @ x) * jnp.arange(3.0)

    @jax.custom_vjp
    def network(weights, x):
        return plain(weights, x)

    def backward(saved, cotangent):
        # The input differs from pass to pass, so that each of a vectorized set is counted.
        jax.debug.callback(lambda _: passes.append(1), saved[1])
        return jax.vjp(plain, *saved)[1](cotangent)

    network.defvjp(lambda *saved: (plain(*saved), saved), backward)
    jax.block_until_ready(jax.jit(lambda x: method(Partial(network, weights), x, 2, KEY))(X))
    jax.effects_barrier()
    return len(passes)


@pytest.mark.parametrize(
    "attribute",
    [
        SALIENCY,
        A.input_x_gradient(),
        # A chunk that is not full is filled up: chunks that divide the number of nodes count nothing else.
        *[IG(4, rule=rule, chunk=2) for rule in ("left", "midpoint", "gauss_legendre")],
        IG(4, rule="trapezoid", chunk=None),
        ja.outputs.explaining(IG(3), ja.outputs.log_odds),
    ],
    ids=str,
)
def test_gradients_of_an_attribution(attribute):
    assert attribute.gradients == counted(attribute)


def _per_step(build):
    """Return what two steps more cost, counted and stated."""
    few, many = build(2), build(4)
    return counted(many) - counted(few), many.gradients(X.size) - few.gradients(X.size)


STEPS = {
    "pgd": lambda n: D.pgd(L2, num_steps=n),
    "pgd on a ratio": lambda n: D.pgd(L2, num_steps=n, objective=D.difference_of_logits_ratio()),
    "pgd on a divergence": lambda n: D.pgd(L2, num_steps=n, objective=D.kl_divergence(), keep="best"),
    "pgd on a sum": lambda n: D.pgd(
        L2,
        num_steps=n,
        objective=D.weighted_sum([(1.0, D.cross_entropy()), (0.5, D.deviation(IG(3), D.dissimilarities.euclidean()))]),
    ),
    "ifia": lambda n: D.ifia(LINF, SALIENCY, D.dissimilarities.top_k(2), num_steps=n),
    "ifia of integrated gradients": lambda n: D.ifia(LINF, IG(3), D.dissimilarities.euclidean(), num_steps=n),
    "restarts": lambda n: D.restarts(D.pgd(L2, num_steps=n), 2),
}


@pytest.mark.parametrize("name", STEPS)
def test_gradients_of_the_steps_of_an_attack(name):
    found, stated = _per_step(STEPS[name])
    assert found == stated > 0


@pytest.mark.parametrize(
    "name", sorted({*tables.names("bound")} - {"semidefinite_cycles", "semidefinite_dense_in_box"})
)
def test_bounds_make_no_more_products_than_they_state(name):
    row, size = METHODS[name], int(np.prod(tables.SHAPE))
    bound = row.build(row.ball(0.1), tables.SHAPE)
    model = tables.model("softplus")
    result = jax.jit(bound, static_argnums=0)(model.logits_fn, model.xs[0], model.labels[0], KEY)
    products = getattr(result, "bound", result).products
    gradients = IG(3).gradients if "integrated_gradients" in repr(bound) else 1
    assert bound.gradients(size) >= 2 * gradients * int(products) > 0


def test_a_product_costs_two_gradients_at_most():
    attribute = IG(3)

    def products(n):
        def method(logits_fn, x, label, _):
            jacobian = ja.attribution_jacobian(attribute, logits_fn, x, label, linearize=False)
            return [jacobian.rmatvec(jacobian.matvec(x + i)) for i in range(n)]

        return method

    few, many = (counted(products(n)) for n in (1, 2))
    assert 0 < many - few <= 2 * 2 * attribute.gradients


def test_costs_that_add_up():
    sigma = B.singular_value(SALIENCY, L2)
    assert sigma.gradients(784) == 2 * 41
    assert B.singular_value(IG(5), L2, num_steps=10).gradients(784) == 2 * 5 * 21
    assert B.singular_value(IG(5), L2, method="dense").gradients(784) == 2 * 5 * 784
    assert B.smallest(sigma, sigma).gradients(784) == 2 * sigma.gradients(784)
    assert D.ifia(LINF, IG(5), num_steps=20).gradients(784) == 20 * 2 * 5
    assert D.restarts(D.pgd(L2), 5).gradients(784) == 5 * 20
    assert defenses.natural().gradients(784) == 1
    assert defenses.adversarial(D.pgd(LINF, num_steps=7)).gradients(784) == 7 + 1
    assert defenses.trades(LINF, num_steps=7).gradients(784) == 7 + 2
    assert defenses.igr(defenses.trades(LINF, num_steps=7), IG(5)).gradients(784) == 7 + 2 + 2 * 2 * 5
    assert defenses.aat(IG(50), LINF, num_steps=3, attack_attribute=IG(10)).gradients(784) == 3 * 20 + 1 + 4 * 50
    assert defenses.ig_norm(LINF, num_steps=4).gradients(784) == 4 * 20 + 1 + 2 * 50


def test_costs_that_are_not_known_are_none():
    def squared(logits_fn, x, label):
        return jax.grad(lambda z: logits_fn(z)[label])(x) ** 2

    assert ja.as_attribution(squared).gradients is None
    for method in (
        B.singular_value(squared, L2),
        B.smallest(B.singular_value(squared, L2), B.singular_value(SALIENCY, L2)),
        D.ifia(LINF, squared),
        D.restarts(D.ifia(LINF, squared), 3),
        ja.Method("mine", lambda *_: 0),
        defenses.adversarial(lambda *_: 0),
        defenses.igr(defenses.trades(LINF), squared),
    ):
        assert method.gradients(784) is None
