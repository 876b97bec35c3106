"""The tables of names: each is of JAX, none is in two tables, and derivatives of what is called smooth do not jump."""

import itertools

import jax
import jax.numpy as jnp
import optax
import pytest
from abstract import jumps
from jax import lax

from jaxattr.programs import names

# Operations of one number that are smooth as far as they are finite, with a range where they are.
ONE_NUMBER = {
    **dict.fromkeys(("neg", "square", "exp", "exp2", "expm1", "sin", "cos", "atan", "sinh", "cosh"), (-1.0, 1.5)),
    **dict.fromkeys(("tanh", "asinh", "logistic", "erf", "erfc"), (-1.0, 1.5)),
    **dict.fromkeys(("sqrt", "rsqrt", "log", "log1p", "lgamma", "digamma"), (0.2, 1.5)),
    **dict.fromkeys(("tan", "asin", "acos", "atanh", "erf_inv"), (-0.9, 0.9)),
    "acosh": (1.2, 2.0),
    "cbrt": (0.2, 1.5),
}


@pytest.mark.parametrize("name", sorted(ONE_NUMBER))
def test_the_derivative_of_a_smooth_operation_does_not_jump(name):
    assert name in names.SMOOTH
    for function in (getattr(lax, name), jax.grad(getattr(lax, name))):
        assert not jumps(function, *ONE_NUMBER[name])


@pytest.mark.parametrize("name", ["bessel_i0e", "bessel_i1e"])
def test_scaled_bessel_functions_are_not_called_smooth(name):
    """They are exp(-|x|) I(x): the first derivative of one jumps at 0, the second of the other."""
    assert name not in names.SMOOTH
    function = getattr(lax, name)
    assert jumps(function if name == "bessel_i0e" else jax.grad(function), -1.0, 1.5)


@pytest.mark.parametrize("name", ["abs", "sign", "floor", "round", "ceil"])
def test_an_operation_that_jumps_or_bends_is_not_called_smooth(name):
    assert name not in names.SMOOTH
    assert jumps(lambda x: getattr(lax, name)(x) if name == "abs" else x * getattr(lax, name)(x), -1.0, 1.5)


SMOOTH = [*(name for name in names.SMOOTH_FUNCTIONS if hasattr(jax.nn, name)), "logaddexp"]


@pytest.mark.parametrize("name", sorted(set(SMOOTH) - {"dot_product_attention", "glu"}))
def test_a_smooth_function_of_jax_has_no_jump(name):
    function = getattr(jax.nn, name, None) or getattr(jnp, name)

    def of_one(x):
        if name in ("log1mexp",):
            return function(x + 2)
        if name == "logaddexp":
            return function(x, 0.3)
        return (
            function(x)
            if name not in ("softmax", "log_softmax", "standardize")
            else function(jnp.stack([x, 3.0, 1]))[0]
        )

    value = of_one if name != "logsumexp" else lambda x: function(jnp.stack([x, 0.3]))
    assert not jumps(value, -1.0, 1.5)


KINKED = ["relu", "relu6", "leaky_relu", "elu", "selu", "hard_tanh", "hard_sigmoid", "hard_silu", "hard_swish"]


@pytest.mark.parametrize("name", [*KINKED, "soft_sign", "sparse_plus", "sparse_sigmoid"])
def test_a_kinked_function_of_jax_has_a_kink_in_some_derivative(name):
    """ELU with alpha 1 and soft sign have a first derivative without a jump: their second one jumps."""
    assert name in names.KINKED_FUNCTIONS
    function = getattr(jax.nn, name)
    assert jumps(function, -4.0, 7.0) or jumps(jax.grad(function), -4.0, 7.0)


def test_no_name_is_in_two_tables():
    tables = (names.SMOOTH, names.COMPARISONS, names.KINKED_FUNCTIONS)
    for first, second in itertools.combinations(tables, 2):
        assert not first & second
    assert not set(names.SMOOTH_FUNCTIONS) & names.KINKED_FUNCTIONS


def test_every_function_is_defined_somewhere():
    """A name that is misspelled would never be found in a program."""
    modules = (jax.nn, jnp, jnp.linalg, jax.scipy.special, jax.scipy.stats.norm, jax.scipy.linalg, optax)
    # Inner functions of JAX, one of PyTorch's name, and one of NumPy's that JAX has taken out.
    known = {"_log_ndtr", "_sinc_maclaurin", "_dot_product_attention", "_softmax", "prelu", "fix"}
    listed = {*names.SMOOTH_FUNCTIONS, *names.KINKED_FUNCTIONS}
    assert {name for name in listed if not any(hasattr(module, name) for module in modules)} == known


@pytest.mark.parametrize("name", ["softmax", "sigmoid", "softplus"])
def test_ranges_hold(name):
    low, high = names.SMOOTH_FUNCTIONS[name]
    found = getattr(jax.nn, name)(jnp.linspace(-200.0, 200, 1001))
    assert low <= float(found.min())
    assert float(found.max()) <= high
    assert float(found.min()) - low < 1e-6
