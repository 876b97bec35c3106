"""Methods are called with a key where they need one, and inside of the box of their ball alone."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxattr as ja
from jaxattr.method import Calling, Method

KEY = jax.random.key(0)
X = jnp.asarray([0.2, 0.8], jnp.float32)


def logits_fn(x):
    return jnp.stack([x @ x, 0.0])


def noise(logits_fn, x, label, key):
    return logits_fn(x + jax.random.normal(key, x.shape))[label]


def test_what_needs_a_key_is_refused_without_one():
    method = Method("noise", noise, ja.L2(0.1))
    assert float(method(logits_fn, X, 0, KEY)) == float(noise(logits_fn, X, 0, KEY))
    with pytest.raises(TypeError, match="`noise` draws random numbers and needs a key"):
        method(logits_fn, X, 0)
    free = Method("value", lambda logits_fn, x, label, _: logits_fn(x)[label], needs_key=False)
    assert float(free(logits_fn, X, 0)) == pytest.approx(0.68)


def test_inputs_outside_of_the_box_are_refused():
    method = Method("noise", noise, ja.L2(0.1))
    with pytest.raises(ValueError, match="box"):
        method(logits_fn, X + 1, 0, KEY)
    assert np.isfinite(Method("noise", noise, ja.L2(0.1, box=None))(logits_fn, X + 1, 0, KEY))


def no_key(logits_fn, x, label):
    return x


def fourth(logits_fn, x, label, key):
    return key


def optional(logits_fn, x, label, key=None):
    return key


def by_name(logits_fn, x, label, *, key):
    return key


CALLS = {
    "attribution": (ja.attributions.saliency(), False, False),
    "attack": (ja.attacks.pgd(ja.L2(0.1), num_steps=1), True, True),
    "three arguments": (no_key, False, False),
    "four arguments": (fourth, True, True),
    "key with a default": (optional, True, False),
    "key by name": (by_name, True, True),
}


@pytest.mark.parametrize("name", CALLS)
def test_the_signature_decides_who_gets_a_key(name):
    method, takes, required = CALLS[name]
    calling = Calling(method)
    assert calling.required == required
    assert (calling.require_key(KEY) is not None) == takes
    if required:
        with pytest.raises(TypeError, match="needs a key"):
            calling.require_key(None)
    else:
        assert calling.require_key(None) is None
    if method in (fourth, optional, by_name):
        assert calling.call(method, logits_fn, X, 0, KEY) is KEY


@pytest.mark.parametrize("key", [0, "key", np.zeros(2)])
def test_what_is_no_key_is_refused(key):
    with pytest.raises((TypeError, ValueError), match="`key` must be"):
        Calling(fourth).require_key(key)


def test_what_it_costs_is_said_where_it_is_known():
    assert Method("noise", noise).gradients(5) is None
    assert Method("noise", noise, gradients=lambda size: 3 * size).gradients(5) == 15
