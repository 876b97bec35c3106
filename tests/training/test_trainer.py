"""Steps of training against Optax and a loop by hand."""

import chex
import jax
import numpy as np
import optax
import pytest
from training_runs import ADVERSARIAL, APPLY, initial, make_data

import jaxattr as ja
from jaxattr.training import Batch, Trainer

KEY = jax.random.key(3)
# Not Adam: the bias before batch normalization has gradient zero, and Adam makes steps of its rounding errors.
OPTIMIZER = optax.sgd(0.3, momentum=0.9)


@pytest.fixture(scope="module")
def variables():
    return initial()


def trainer(objective=None, **options):
    return Trainer(objective or ja.defenses.natural(), APPLY, OPTIMIZER, **options)


def by_hand(variables, batches):
    @jax.jit
    def gradient(params, collections, batch, step):
        def loss_fn(params):
            return ADVERSARIAL(APPLY, {**collections, "params": params}, batch, jax.random.fold_in(KEY, step))

        return jax.grad(loss_fn, has_aux=True)(params)

    params, collections = variables["params"], {"batch_stats": variables["batch_stats"]}
    state = OPTIMIZER.init(params)
    for step, batch in enumerate(batches):
        slope, aux = gradient(params, collections, batch, step)
        updates, state = OPTIMIZER.update(slope, state, params)
        params, collections = optax.apply_updates(params, updates), aux["updates"]
    return {"params": params, **collections}


def test_steps_are_those_of_a_loop_by_hand(variables):
    data = make_data(48)
    batches = [Batch(data.x[start : start + 16], data.label[start : start + 16]) for start in (0, 16, 32)]
    made = trainer(ADVERSARIAL, mesh=ja.parallel.mesh(jax.devices()[:1]))
    state = made.init(variables, KEY)
    for batch in batches:
        state, metrics = made.step(state, batch)
    assert int(state.step) == 3
    assert {"loss", "grad_norm", "adversarial_accuracy"} <= set(metrics)
    chex.assert_trees_all_close(made.variables(state), by_hand(variables, batches), rtol=1e-4, atol=1e-6)


def test_a_batch_on_the_host_serves_all_devices(variables):
    data = make_data(16)
    one, all_ = trainer(mesh=ja.parallel.mesh(jax.devices()[:1])), trainer()
    assert all_.mesh.size == jax.device_count() > 1
    results = [made.variables(made.step(made.init(variables, KEY), data)[0]) for made in (one, all_)]
    chex.assert_trees_all_close(*results, rtol=1e-4, atol=1e-6)


def test_the_step_is_compiled_once_and_the_arrays_of_the_caller_stay(variables):
    before = jax.tree.map(np.asarray, variables)

    def objective(*arguments):
        return ja.defenses.natural()(*arguments)

    chex.clear_trace_counter()
    made = trainer(chex.assert_max_traces(objective, 1))
    state = made.init(variables, KEY)
    for _ in range(3):
        state, _ = made.step(state, make_data(16))
    chex.assert_trees_all_equal(variables, before)


def test_a_state_continues_from_what_is_saved_of_it(variables):
    made = trainer()
    state, _ = made.step(made.init(variables, KEY), make_data(16))
    kept = jax.tree.map(np.asarray, state.to_save())
    assert set(kept) == {"step", "params", "collections", "opt_state"}
    expected, _ = made.step(state, make_data(16))
    continued, _ = made.step(made.init(variables, KEY)._replace(**kept), make_data(16))
    chex.assert_trees_all_equal(made.variables(continued), made.variables(expected))


def test_a_step_that_fails_is_remembered(variables):
    made = trainer()
    state, _ = made.step(made.init(variables, KEY), make_data(16))
    assert int(state.failed) == -1
    for _ in range(2):
        state, _ = made.step(state, Batch(np.full((16, 4), np.nan, np.float32), np.zeros(16, int)))
    assert (int(state.failed), bool(state.loss_was_finite)) == (2, False)


def test_fit_makes_the_steps_of_a_trainer(variables):
    """With one batch an epoch, the order of its samples alone differs."""
    data, optimizer = make_data(16), optax.sgd(0.1)
    natural = ja.defenses.natural()
    apply_fn = ja.models.apply_fn(ja.models.MLP(num_classes=3, hidden=()))
    start = ja.models.init(ja.models.MLP(num_classes=3, hidden=()), KEY, (4,))
    fitted = ja.fit(natural, apply_fn, start, data, optimizer=optimizer, batch_size=16, epochs=4, key=KEY)
    made = Trainer(natural, apply_fn, optimizer)
    state = made.init(start, KEY)
    for _ in range(4):
        state, _ = made.step(state, data)
    chex.assert_trees_all_close(made.variables(state), fitted.variables, rtol=1e-5, atol=1e-6)
