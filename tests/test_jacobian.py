import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import affine, central_difference, network, path_gradients, quadratic, symmetric

import jaxattr as ja

X = np.array([0.1, 0.9, 0.4, 0.0, 1.0, 0.3])
START = np.array([0.5, 0.0, 0.4, 0.2, 1.0, 0.0])
STRUCTURED = {
    "saliency": ja.attributions.saliency(),
    "input_x_gradient": ja.attributions.input_x_gradient(),
    "integrated_gradients": ja.attributions.integrated_gradients(8, rule="gauss_legendre", baseline=START, chunk=3),
}


def squared_gradient(logits_fn, x, label):
    """An attribution that is no gradient field times a multiplier."""
    return jax.grad(lambda z: logits_fn(z)[label])(x) ** 2


ATTRIBUTIONS = {**STRUCTURED, "generic": squared_gradient}


def quadratic_jacobian(name, A, b, x):
    """Closed forms for f = x^T A x / 2 + b.x."""
    if name == "saliency":
        return A
    if name == "input_x_gradient":
        return np.diag(A @ x + b) + x[:, None] * A
    if name == "integrated_gradients":
        return np.diag(A @ (x + START) / 2 + b) + (x - START)[:, None] * A / 2
    return 2 * (A @ x + b)[:, None] * A


@functools.partial(jax.jit, static_argnames=("name", "linearize", "chunk"))
def products(logits_fn, x, label, vs, *, name, linearize=True, chunk=64):
    jacobian = ja.attribution_jacobian(ATTRIBUTIONS[name], logits_fn, x, label, linearize=linearize)
    return {
        "value": jacobian.value,
        "dense": jacobian.dense(chunk),
        "matvec": jax.vmap(jacobian.matvec)(vs),
        "rmatvec": jax.vmap(jacobian.rmatvec)(vs),
        "gram": jax.vmap(jacobian.gram)(vs),
    }


@functools.partial(jax.jit, static_argnames="name")
def differentiated(logits_fn, x, label, *, name):
    """The map and its Jacobian, by forward differentiation of the whole."""

    def value(x):
        return ATTRIBUTIONS[name](logits_fn, x, label)

    return value(x), jax.jacfwd(value)(x)


@pytest.mark.parametrize("linearize", [True, False])
@pytest.mark.parametrize("name", sorted(ATTRIBUTIONS))
def test_products_against_dense_differentiation(name, linearize):
    with jax.enable_x64(True):
        logits_fn, x = network(0, (6, 8, 3)), jnp.asarray(X)
        vs = np.random.default_rng(0).normal(size=(3, 6))
        found = products(logits_fn, x, 1, jnp.asarray(vs), name=name, linearize=linearize)
        value, J = map(np.asarray, differentiated(logits_fn, x, 1, name=name))
        assert name == "saliency" or np.abs(J - J.T).max() > 0.1
        np.testing.assert_allclose(found["value"], value, rtol=1e-12, atol=1e-14)
        np.testing.assert_allclose(found["dense"], J, rtol=1e-11, atol=1e-13)
        np.testing.assert_allclose(found["matvec"], vs @ J.T, rtol=1e-11, atol=1e-12)
        np.testing.assert_allclose(found["rmatvec"], vs @ J, rtol=1e-11, atol=1e-12)
        np.testing.assert_allclose(found["gram"], vs @ (J.T @ J), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", sorted(ATTRIBUTIONS))
def test_quadratic_in_closed_form(name):
    A, b = symmetric(0, 6), np.arange(6) - 2.0
    with jax.enable_x64(True):
        found = products(quadratic(A, b), jnp.asarray(X), 0, jnp.eye(6)[:3], name=name)
        np.testing.assert_allclose(found["dense"], quadratic_jacobian(name, A, b, X), rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("name", sorted(ATTRIBUTIONS))
def test_finite_differences_of_the_attribution(name):
    # In float64, of the attribution itself: no differentiation of the library is between.
    with jax.enable_x64(True):
        logits_fn, x = network(0, (6, 8, 3)), jnp.asarray(X)
        v = np.random.default_rng(1).normal(size=6)
        expected = central_difference(lambda z: differentiated(logits_fn, z, 1, name=name)[0], x, v, 1e-5)
        vs = jnp.asarray(np.stack([v, v, v]))
        found = products(logits_fn, x, 1, vs, name=name)["matvec"][0]
        np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("name", sorted(ATTRIBUTIONS))
def test_images_chunks_and_adjointness_in_float32(name):
    # (2, 3) images of the same function; <u, J v> = <J^T u, v>.
    logits_fn, x = network(0, (6, 8, 3)), jnp.asarray(X, jnp.float32).reshape(2, 3)
    attribute = ATTRIBUTIONS[name]
    if name == "integrated_gradients":
        attribute = ja.attributions.integrated_gradients(8, rule="gauss_legendre", baseline=START.reshape(2, 3))
    u, v = (jnp.asarray(a, jnp.float32).reshape(2, 3) for a in np.random.default_rng(2).normal(size=(2, 6)))

    @jax.jit
    def evaluate(logits_fn, x):
        jacobian = ja.attribution_jacobian(attribute, logits_fn, x, 1)
        return [jacobian.dense(chunk) for chunk in (1, 4, None)], jacobian.matvec(v), jacobian.rmatvec(u)

    by_chunks, forward, backward = evaluate(logits_fn, x)
    assert forward.shape == backward.shape == (2, 3)
    J = np.asarray(products(logits_fn, jnp.asarray(X, jnp.float32), 1, jnp.eye(6)[:3], name=name)["dense"], np.float64)
    scale = np.abs(J).max() * 6
    for dense in by_chunks:
        np.testing.assert_allclose(dense, J, atol=1e-6 * scale)
    left, right = float(jnp.vdot(u, forward)), float(jnp.vdot(backward, v))
    assert left == pytest.approx(right, abs=1e-6 * scale)
    assert left == pytest.approx(np.ravel(u) @ J @ np.ravel(v), abs=1e-6 * scale)


def test_orientation_of_the_gram_matrix():
    # Rows of J are features of the map: P = J^T J, whose top eigenvector is the RIGHT singular vector.
    A, b = symmetric(0, 6), np.arange(6) - 2.0
    with jax.enable_x64(True):
        J = quadratic_jacobian("input_x_gradient", A, b, X)
        found = products(quadratic(A, b), jnp.asarray(X), 0, jnp.eye(6)[:3], name="input_x_gradient")
        np.testing.assert_allclose(found["gram"], (J.T @ J)[:3], rtol=1e-11, atol=1e-12)
        assert np.abs(found["gram"] - (J @ J.T)[:3]).max() > 1
        right = np.linalg.svd(J)[2][0]
        vs = jnp.asarray(np.stack([right] * 3))
        found = products(quadratic(A, b), jnp.asarray(X), 0, vs, name="input_x_gradient")
        assert np.linalg.norm(found["matvec"][0]) == pytest.approx(np.linalg.norm(J, 2), rel=1e-12)


def test_column_sums_of_integrated_gradients_are_the_gradient():
    # Completeness, differentiated (Wang and Kong 2023, Proposition 1): J^T 1 = grad f, while J 1 is something else.
    with jax.enable_x64(True):
        logits_fn, x = network(0, (6, 8, 3)), jnp.asarray(X)
        attribute = ja.attributions.integrated_gradients(24, rule="gauss_legendre", baseline=START)

        @jax.jit
        def sums(x):
            jacobian = ja.attribution_jacobian(attribute, logits_fn, x, 1)
            return jacobian.rmatvec(jnp.ones(6)), jacobian.matvec(jnp.ones(6)), jax.grad(lambda z: logits_fn(z)[1])(x)

        of_columns, of_rows, gradient = sums(x)
        np.testing.assert_allclose(of_columns, gradient, rtol=1e-9)
        assert np.abs(of_rows - gradient).max() > 0.1


@pytest.mark.parametrize("rule", ["left", "trapezoid"])
def test_rows_of_integrated_gradients(rule):
    # J = diag(sum_j w_j grad f(p_j)) + diag(x - a) sum_j w_j t_j Hess f(p_j), with dense Hessians at every path point.
    nodes = np.arange(4) / 4 if rule == "left" else np.arange(5) / 4
    weights = np.full(4, 0.25) if rule == "left" else np.array([0.125, 0.25, 0.25, 0.25, 0.125])
    with jax.enable_x64(True):
        logits_fn, x = network(0, (6, 8, 3)), jnp.asarray(X)
        hessian = jax.jit(jax.hessian(lambda z: logits_fn(z)[1]))
        field = weights @ path_gradients(logits_fn, x, 1, START, nodes)
        curvature = sum(
            w * t * np.asarray(hessian(START + t * (x - START))) for w, t in zip(weights, nodes, strict=True)
        )
        attribute = ja.attributions.integrated_gradients(4, rule=rule, baseline=START, chunk=2)
        J = np.asarray(jax.jit(lambda z: ja.attribution_jacobian(attribute, logits_fn, z, 1).dense())(x))
        np.testing.assert_allclose(J, np.diag(field) + (X - START)[:, None] * curvature, rtol=1e-11, atol=1e-13)
        # Features at the baseline move with themselves only, and still move.
        for i in np.flatnonzero(X == START):
            np.testing.assert_allclose(J[i], field[i] * np.eye(6)[i], atol=1e-15)


def test_symmetric_is_claimed_for_hessians_only():
    claims = {}

    def claim(x):
        logits_fn = quadratic(symmetric(0, 6))
        claims.update({name: ja.attribution_jacobian(a, logits_fn, x, 0).symmetric for name, a in ATTRIBUTIONS.items()})
        return x

    jax.eval_shape(claim, jnp.asarray(X, jnp.float32))
    assert claims == {"saliency": True, "input_x_gradient": False, "integrated_gradients": False, "generic": False}
    assert {name: a.symmetric for name, a in STRUCTURED.items()} == {n: n == "saliency" for n in STRUCTURED}


def test_linear_model_does_not_move_saliency():
    W = np.random.default_rng(0).normal(size=(3, 6)).astype(np.float32)
    logits_fn, x = affine(W, np.zeros(3)), jnp.asarray(X, jnp.float32)
    assert not np.any(products(logits_fn, x, 1, jnp.eye(6)[:3], name="saliency")["dense"])
    for name in ("input_x_gradient", "integrated_gradients"):
        J = products(logits_fn, x, 1, jnp.eye(6)[:3], name=name)["dense"]
        np.testing.assert_allclose(J, np.diag(W[1]), rtol=1e-6, atol=1e-9)


def test_an_attribution_of_another_shape_is_refused():
    logits_fn, x = quadratic(np.eye(6)), jnp.asarray(X, jnp.float32)
    with pytest.raises(ValueError, match="shape"):
        ja.attribution_jacobian(lambda f, z, _: f(z), logits_fn, x, 0)


@pytest.mark.parametrize("chunk", [1, 4, None])
@pytest.mark.parametrize("name", ["saliency", "input_x_gradient", "integrated_gradients"])
def test_rows_of_the_baseline_cost_no_product(name, chunk):
    """Two pixels of X are at the baseline of IG, one is black; counted as the products are made."""
    counted = []

    def field(logits_fn, x, label):
        return STRUCTURED[name].field(logits_fn, x, label)

    @jax.custom_jvp
    def watched(x):
        return field(network(0, (6, 8, 3)), x, 1)

    @watched.defjvp
    def _(primals, tangents):
        jax.debug.callback(lambda _: counted.append(1), tangents[0][0])
        return jax.jvp(lambda x: field(network(0, (6, 8, 3)), x, 1), primals, tangents)

    attribute = ja.Attribution(name, field=lambda _, x, __: watched(x), baseline=STRUCTURED[name].baseline)

    @jax.jit
    def dense(logits_fn, x):
        jacobian = ja.attribution_jacobian(attribute, logits_fn, x, 1, linearize=False)
        return jacobian.dense(chunk), jacobian.dense_products()

    matrix, products = dense(network(0, (6, 8, 3)), jnp.asarray(X, jnp.float32))
    jax.effects_barrier()
    expected = {"saliency": 6, "input_x_gradient": 5, "integrated_gradients": 4}[name]
    assert int(products) == expected
    # A block that is not full is filled up.
    size = 6 if chunk is None else chunk
    assert len(counted) == -(-expected // size) * size if name != "saliency" else len(counted) == 6
    _, reference = differentiated(network(0, (6, 8, 3)), jnp.asarray(X, jnp.float32), 1, name=name)
    np.testing.assert_allclose(matrix, reference, rtol=1e-4, atol=1e-5)


def test_derivatives_of_a_dense_jacobian_with_rows_left_out():
    """Forward and reverse, though the loop over active rows has no reverse mode of its own."""
    with jax.enable_x64(True):
        x, attribute = jnp.asarray(X), STRUCTURED["integrated_gradients"]
        rng = np.random.default_rng(0)
        weights, v = jnp.asarray(rng.normal(size=(6, 6))), jnp.asarray(rng.normal(size=6))

        def value(x):
            J = ja.attribution_jacobian(attribute, network(0, (6, 8, 3)), x, 1).dense(4)
            return jnp.sum(weights * J**2)

        both = jax.jit(lambda x: (jax.jvp(value, (x,), (v,)), jax.grad(value)(x)))
        slope = (both(x + 1e-5 * v)[0][0] - both(x - 1e-5 * v)[0][0]) / 2e-5
        (_, forward), gradient = both(x)
        np.testing.assert_allclose(forward, slope, rtol=1e-7)
        np.testing.assert_allclose(gradient @ v, slope, rtol=1e-7)
