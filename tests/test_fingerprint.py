"""Fingerprints are the same wherever and whenever they are taken, and differ where a number does."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from training_runs import start

from jaxattr import _fingerprint

# With the parts of programs that change from run to run: functions inside of operations, sets, devices, constants.
COMPUTED = """
import jax, jax.numpy as jnp, numpy as np, optax
from training_runs import ADVERSARIAL, APPLY, initial, make_data
import jaxattr as ja
from jaxattr import _fingerprint, training

variables, data = initial(), make_data(8)
params = variables.pop("params")
key, step = jax.random.key(0), jnp.asarray(0)
for objective in (ADVERSARIAL, ja.defenses.igr(ADVERSARIAL, ja.attributions.saliency())):
    gradient = training.Trainer(objective, APPLY, optax.sgd(0.1)).gradient
    print(_fingerprint.program(gradient, params, variables, step, data, key))
optimizer = optax.chain(optax.add_noise(0.1, 0.5, key=key), optax.lion(optax.cosine_decay_schedule(0.1, 9)))
print(_fingerprint.program(optimizer.init, params))
print(_fingerprint.program(optimizer.update, params, optimizer.init(params), params))
print(_fingerprint.arrays(variables))
"""


def test_processes_and_devices_do_not_matter():
    processes = [
        start(COMPUTED, PYTHONHASHSEED=str(seed), JAX_NUM_CPU_DEVICES=str(devices))
        for seed, devices in ((1, 8), (2, 1))
    ]
    first, second = (process.communicate(timeout=300)[0] for process in processes)
    assert [process.returncode for process in processes] == [0, 0], first + second
    assert first == second
    assert len(set(first.split())) == 5


X = jnp.ones(3)
TABLE = np.arange(1000.0, dtype=np.float32)


def table(change):
    values = jnp.asarray(TABLE.copy()).at[500].add(change)
    return lambda x: x + values[:3].sum() + values.sum()


def repeated(times):
    return lambda x: jax.lax.fori_loop(0, times, lambda _, x: x * 2, x)


@pytest.mark.parametrize(
    ("function", "other"),
    [
        (lambda x: 0.1 * x, lambda x: 0.1000001 * x),
        (lambda x: x + 1, lambda x: x - 1),
        # Printed, both arrays are [0., 1., 2., ..., 999.].
        (table(0), table(1)),
        (repeated(3), repeated(4)),
        (jax.jit(lambda x: x * TABLE[1]), jax.jit(lambda x: x * TABLE[2])),
        (lambda x: jax.random.normal(jax.random.key(0)) * x, lambda x: jax.random.normal(jax.random.key(1)) * x),
        (lambda x: (x, 0 * x), lambda x: {"a": x, "b": 0 * x}),
        (jnp.sort, lambda x: jnp.sort(x, descending=True)),
    ],
)
def test_programs_that_differ_are_told_apart(function, other):
    assert _fingerprint.program(function, X) == _fingerprint.program(function, X + 1)
    assert _fingerprint.program(function, X) != _fingerprint.program(other, X)
    assert _fingerprint.program(function, X) != _fingerprint.program(function, jnp.ones(4))


def test_names_and_what_was_traced_before_do_not_matter():
    def make(name):
        def inner(x):
            return jax.nn.softplus(x) * 2

        inner.__name__ = inner.__qualname__ = name
        return functools.partial(lambda f, x: jax.grad(lambda x: jax.jit(f)(f(x)).sum())(x), inner)

    before = _fingerprint.program(make("a"), X)
    jax.clear_caches()
    jax.jit(make("c"))(X)
    assert before == _fingerprint.program(make("b"), X)


def test_arrays_by_value_order_dtype_and_name():
    xs = np.arange(6.0).reshape(3, 2)
    same = _fingerprint.arrays({"a": xs})
    assert same == _fingerprint.arrays({"a": jnp.asarray(xs, jnp.float64) if jax.config.jax_enable_x64 else xs.copy()})
    for other in ({"a": xs[::-1]}, {"a": xs.astype(np.float32)}, {"b": xs}, {"a": xs.reshape(2, 3)}, {"a": xs + 1e-12}):
        assert _fingerprint.arrays(other) != same


def test_optimizers_by_their_numbers():
    def of(optimizer):
        return _fingerprint.program(optimizer.init, X), _fingerprint.program(optimizer.update, X, optimizer.init(X), X)

    assert of(optax.adam(0.1)) == of(optax.adam(0.1))
    assert of(optax.adam(0.1)) != of(optax.adam(0.1, b1=0.8))
    # The rate is in the state, and not in the update.
    injected = [of(optax.inject_hyperparams(optax.sgd)(learning_rate=rate)) for rate in (0.1, 0.2)]
    assert injected[0] != injected[1]
