import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.integrate
import scipy.special
from jax.tree_util import Partial
from oracles import affine, network, path_gradients, quadratic, symmetric

import jaxattr as ja
from jaxattr.attributions.integrated_gradients import quadrature

RULES = ["left", "right", "midpoint", "trapezoid", "gauss_legendre"]
X = np.array([0.1, 0.9, 0.4, 0.0, 1.0])


def nodes_and_weights(rule, m):
    """The rules written out, from the formulas of a textbook."""
    k = np.arange(m)
    if rule == "left":
        return k / m, np.ones(m) / m
    if rule == "right":
        return (k + 1) / m, np.ones(m) / m
    if rule == "midpoint":
        return (k + 0.5) / m, np.ones(m) / m
    if rule == "trapezoid":
        return np.arange(m + 1) / m, np.concatenate([[0.5], np.ones(m - 1), [0.5]]) / m
    nodes, weights = scipy.special.roots_legendre(m)
    return (1 + nodes) / 2, weights / 2


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("num_steps", [1, 2, 7, 50])
def test_nodes_and_weights(rule, num_steps):
    nodes, weights = quadrature(rule, num_steps)
    expected_nodes, expected_weights = nodes_and_weights(rule, num_steps)
    np.testing.assert_allclose(nodes, expected_nodes, rtol=1e-13, atol=1e-15)
    np.testing.assert_allclose(weights, expected_weights, rtol=1e-11)
    assert weights.sum() == pytest.approx(1, rel=1e-14)
    assert nodes.min() >= 0
    assert nodes.max() <= 1


@pytest.mark.parametrize(("rule", "degree"), list(zip(RULES, [0, 0, 1, 1, 9], strict=True)))
def test_polynomials_up_to_the_degree_of_the_rule_are_exact(rule, degree):
    nodes, weights = quadrature(rule, 5)
    for power in range(degree + 1):
        assert weights @ nodes**power == pytest.approx(1 / (power + 1), rel=1e-13)
    assert abs(weights @ nodes ** (degree + 1) - 1 / (degree + 2)) > 1e-7


@pytest.mark.parametrize(("rule", "order"), [("left", 1), ("right", 1), ("midpoint", 2), ("trapezoid", 2)])
def test_order_of_convergence_of_the_completeness_gap(rule, order):
    # The gap is the quadrature error of t -> d/dt f(a + t (x - a)), for a smooth f whose derivative is no polynomial.
    with jax.enable_x64(True):
        w = jnp.asarray([0.7, -0.4, 1.1])

        def logits_fn(x):
            return jnp.stack([jnp.exp(w @ x), jnp.sin(3 * w @ x)])

        def gap(steps):
            attribute = ja.attributions.integrated_gradients(steps, rule=rule, baseline=0.1, chunk=None)
            return jax.jit(lambda x: ja.attributions.completeness_gap(attribute)(logits_fn, x, 1))

        gaps = np.abs([float(gap(steps)(jnp.asarray([0.9, 0.2, 0.5]))) for steps in (16, 32, 64)])
        orders = np.log2(gaps[:-1] / gaps[1:])
        np.testing.assert_allclose(orders, order, atol=0.1)


def test_gauss_legendre_converges_faster_than_any_power():
    with jax.enable_x64(True):

        def logits_fn(x):
            return jnp.stack([jnp.sin(3 * jnp.sum(x)), x[0]])

        gaps = []
        for steps in (2, 4, 8, 16):
            attribute = ja.attributions.integrated_gradients(steps, rule="gauss_legendre", chunk=None)
            gap = jax.jit(lambda x, a=attribute: ja.attributions.completeness_gap(a)(logits_fn, x, 0))
            gaps.append(abs(float(gap(jnp.asarray([0.4, 0.5])))))
        orders = np.log2(np.array(gaps[:-2]) / np.array(gaps[1:-1]))
        assert orders[0] > 4
        assert orders[1] > orders[0] + 4
        assert gaps[-1] < 1e-14


@pytest.mark.parametrize("baseline", ["zero", "array"])
@pytest.mark.parametrize("rule", RULES)
def test_quadratic_in_closed_form(rule, baseline):
    # The gradient is linear along the path: rules of degree 1 are exact, left and right miss +- (x - a) A (x - a) / 2m.
    A, b, m = symmetric(0, 5), np.arange(5) - 2.0, 4
    start = np.zeros(5) if baseline == "zero" else np.array([1.0, 0.0, 0.5, 0.3, 0.2])
    with jax.enable_x64(True):
        attribute = ja.attributions.integrated_gradients(m, rule=rule, baseline=0.0 if baseline == "zero" else start)
        found = jax.jit(attribute)(quadratic(A, b), jnp.asarray(X), 0)
        expected = (X - start) * (A @ (X + start) / 2 + b)
        error = {"left": -1, "right": 1}.get(rule, 0) * (X - start) * (A @ (X - start)) / (2 * m)
        np.testing.assert_allclose(found, expected + error, rtol=1e-12, atol=1e-14)


def test_linear_model_needs_one_step():
    W = np.random.default_rng(0).normal(size=(3, 5)).astype(np.float32)
    attribute = ja.attributions.integrated_gradients(1, rule="left", baseline=0.25)
    found = jax.jit(attribute)(affine(W, np.ones(3)), jnp.asarray(X, jnp.float32), 2)
    np.testing.assert_allclose(found, (X - 0.25) * W[2], rtol=1e-6)


ACTIVATIONS = {
    "sigmoid": (jax.nn.sigmoid, scipy.special.expit, lambda z: scipy.special.expit(z) * scipy.special.expit(-z)),
    "exp": (jnp.exp, np.exp, np.exp),
    "softplus": (jax.nn.softplus, lambda z: np.logaddexp(z, 0), scipy.special.expit),
    "logistic_loss": (
        lambda z: jnp.log1p(jnp.exp(-z)),
        lambda z: np.logaddexp(-z, 0),
        lambda z: -scipy.special.expit(-z),
    ),
}


@pytest.mark.parametrize("name", sorted(ACTIVATIONS))
def test_one_unit_in_closed_form(name):
    # F(x) = A(<w, x> + b): IG_i = (F(x) - F(u)) (x - u)_i w_i / <x - u, w>, or (x - u)_i w_i A'(.) where that is 0/0.
    activation, value, derivative = ACTIVATIONS[name]
    w, b, u = np.array([1.0, -2.0, 0.5, 3.0, -1.0]), 0.3, np.array([0.3, 0.2, 0.0, 0.6, 0.1])
    with jax.enable_x64(True):

        def logits(weights, x):
            return jnp.stack([activation(weights @ x + b), 0.0])

        attribute = jax.jit(ja.attributions.integrated_gradients(200, rule="midpoint", baseline=u, chunk=50))
        exact = jax.jit(ja.attributions.integrated_gradients(20, rule="gauss_legendre", baseline=u, chunk=None))
        for direction in (X - u, np.array([2.0, 1.0, 0.0, 0.0, 0.0])):  # the second is orthogonal to w
            x = jnp.asarray(u + direction)
            along = direction @ w
            if abs(along) > 1e-12:
                slope = (value(w @ (u + direction) + b) - value(w @ u + b)) / along
            else:
                slope = derivative(w @ u + b)
            logits_fn = Partial(logits, jnp.asarray(w))
            np.testing.assert_allclose(attribute(logits_fn, x, 0), direction * w * slope, rtol=1e-4, atol=1e-12)
            np.testing.assert_allclose(exact(logits_fn, x, 0), direction * w * slope, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("rule", RULES)
def test_network_against_a_loop_over_the_path(rule):
    with jax.enable_x64(True):
        logits_fn, start = network(0, (5, 7, 3)), np.array([0.5, 0.0, 0.1, 0.2, 1.0])
        nodes, weights = nodes_and_weights(rule, 6)
        expected = (X - start) * (weights @ path_gradients(logits_fn, jnp.asarray(X), 1, start, nodes))
        attribute = ja.attributions.integrated_gradients(6, rule=rule, baseline=start, chunk=4)
        np.testing.assert_allclose(jax.jit(attribute)(logits_fn, jnp.asarray(X), 1), expected, rtol=1e-12, atol=1e-14)


def test_network_against_adaptive_quadrature():
    with jax.enable_x64(True):
        logits_fn = network(0, (5, 7, 3))
        gradient = jax.jit(jax.grad(lambda x: logits_fn(x)[1]))
        average, _ = scipy.integrate.quad_vec(lambda t: np.asarray(gradient(jnp.asarray(t * X))), 0, 1, epsabs=1e-12)
        attribute = ja.attributions.integrated_gradients(16, rule="gauss_legendre")
        np.testing.assert_allclose(jax.jit(attribute)(logits_fn, jnp.asarray(X), 1), X * average, rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize("rule", ["midpoint", "trapezoid"])
def test_chunks_do_not_change_the_map(rule):
    logits_fn, x = network(0, (5, 7, 3)), jnp.asarray(X, jnp.float32)
    maps = [
        jax.jit(ja.attributions.integrated_gradients(10, rule=rule, chunk=chunk))(logits_fn, x, 1)
        for chunk in (None, 1, 3, 7, 1000)
    ]
    for other in maps[1:]:
        np.testing.assert_allclose(other, maps[0], rtol=1e-5, atol=1e-6)


def test_memory_does_not_grow_with_the_number_of_steps():
    logits_fn, x = network(0, (64, 512, 512, 2)), jnp.zeros(64)

    def temporary(steps, chunk):
        attribute = ja.attributions.integrated_gradients(steps, chunk=chunk)
        return jax.jit(attribute).lower(logits_fn, x, 0).compile().memory_analysis().temp_size_in_bytes

    few, many = temporary(10, 5), temporary(200, 5)
    assert many <= few + 200 * 2 * 4 * 4  # nodes and weights
    assert temporary(200, None) > few + 150 * 512 * 4  # what it would be, one hidden layer at every node


def test_baseline_equal_to_the_input_gives_zero():
    x = jnp.asarray(X, jnp.float32)
    attribute = ja.attributions.integrated_gradients(3, baseline=x)
    assert not np.any(jax.jit(attribute)(network(0, (5, 7, 3)), x, 1))


def test_symmetric_split_at_a_tie():
    # f = min(x, y) from (0, 0) to (1, 1): half each, by symmetry and completeness.
    attribute = jax.jit(ja.attributions.integrated_gradients(4), static_argnums=0)
    found = attribute(lambda x: jnp.stack([jnp.minimum(x[0], x[1]), 0.0]), jnp.ones(2), 0)
    np.testing.assert_allclose(found, [0.5, 0.5], rtol=1e-6)
