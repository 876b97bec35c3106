import json

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from training_runs import APPLY, initial, make_data, saved_steps, train

from jaxattr import models
from jaxattr.defenses import natural
from jaxattr.training import Batch, JsonLines, Progress, accuracy, fit


@pytest.fixture(scope="module")
def variables():
    return initial()


def test_one_step_of_sgd_in_closed_form():
    """All samples in one batch, so that their order does not matter."""
    data, rate = make_data(), 0.5
    x, y = data.x.astype(np.float64), np.eye(3)[data.label]
    apply = models.apply_fn(models.MLP(num_classes=3, hidden=()))
    start = {"params": {"Dense_0": {"kernel": jnp.zeros((4, 3)), "bias": jnp.zeros(3)}}}
    result = fit(
        natural(),
        apply,
        start,
        data,
        optimizer=optax.sgd(rate),
        batch_size=50,
        steps=1,
        key=jax.random.key(0),
    )
    # At zero weights all classes have probability 1/3.
    gradient = {"kernel": x.T @ (1 / 3 - y) / 50, "bias": (1 / 3 - y).mean(0)}
    for name, value in gradient.items():
        np.testing.assert_allclose(result.variables["params"]["Dense_0"][name], -rate * value, rtol=1e-4, atol=1e-6)
    (row,) = result.history
    assert row["loss"] == pytest.approx(np.log(3), rel=1e-5)
    norm = np.sqrt(sum((value**2).sum() for value in gradient.values()))
    assert row["grad_norm"] == pytest.approx(norm, rel=1e-4)
    # The caller's arrays were not donated.
    assert not np.any(start["params"]["Dense_0"]["kernel"])


def test_epochs_visit_every_sample_in_new_orders():
    visited = []

    def objective(apply_fn, variables, batch, key):
        jax.debug.callback(lambda x, key: visited.append((x.ravel(), key)), batch.x, key_data(key))
        return variables["params"].sum(), {"metrics": {}, "updates": {}}

    key_data = jax.random.key_data
    data = Batch(np.arange(6, dtype=np.float32)[:, None], np.zeros(6, int))
    fit(
        objective,
        APPLY,
        {"params": jnp.ones(2)},
        data,
        optimizer=optax.sgd(0.1),
        batch_size=2,
        epochs=3,
        key=jax.random.key(0),
    )
    jax.effects_barrier()
    orders = np.concatenate([x for x, _ in visited]).reshape(3, 6)
    np.testing.assert_array_equal(np.sort(orders, axis=1), np.tile(np.arange(6), (3, 1)))
    assert len(np.unique(orders, axis=0)) == 3
    assert len(np.unique([key for _, key in visited], axis=0)) == 9


def test_training_learns_and_reports(variables, tmp_path, capsys):
    data, log = make_data(), tmp_path / "runs" / "log.jsonl"
    result = train(
        variables,
        epochs=20,
        evaluate=lambda variables: {"clean": accuracy(APPLY, variables, data)},
        evaluate_every=30,
        writers=[JsonLines(log), Progress()],
        log_every=20,
    )
    assert result.step == 60
    assert [(row["step"], "clean" in row) for row in result.history] == [
        (20, False),
        (30, True),
        (40, False),
        (60, False),
        (60, True),
    ]
    assert [json.loads(line) for line in log.read_text().splitlines()] == result.history
    assert result.history[0]["epoch"] == pytest.approx(20 / 3, abs=1e-4)
    assert result.history[0]["loss"] > 1.5 * result.history[3]["loss"]
    assert result.history[-1]["clean"] == accuracy(APPLY, result.variables, data) > 0.9
    assert "step 60/60" in capsys.readouterr().err
    # The statistics were carried along, and only by training.
    assert np.any(result.variables["batch_stats"]["BatchNorm_0"]["mean"])
    assert not np.any(variables["batch_stats"]["BatchNorm_0"]["mean"])


@pytest.mark.parametrize("what", ["loss", "gradient"])
def test_nan_stops_with_the_step_and_the_last_good_checkpoint(what, tmp_path):
    def objective(apply_fn, variables, batch, key):
        w = variables["params"]
        # Falls by 1 a step, to 0 after the sixth. The loss is finite there, and its gradient not.
        gap = jnp.log(w) if what == "loss" else jnp.sqrt(w)
        return w + 0.0 * gap, {"metrics": {}, "updates": {}}

    def run(directory):
        return fit(
            objective,
            APPLY,
            {"params": jnp.asarray(6.0)},
            make_data(),
            optimizer=optax.sgd(1.0),
            batch_size=50,
            steps=20,
            key=jax.random.key(0),
            checkpoint_dir=directory,
            checkpoint_every=5,
            writers=[JsonLines(tmp_path / f"{directory is None}.jsonl")],
        )

    # Clipping does not make a number of NaN, and no rate of learning helps a derivative that is not there.
    advice = {"loss": "smaller learning rate or gradient clipping", "gradient": "a square root or a norm at 0"}[what]
    with pytest.raises(FloatingPointError, match=rf"step 7; the last good checkpoint is .*run/5\. .*{advice}"):
        run(tmp_path / "run")
    assert saved_steps(tmp_path / "run") == [5]
    with pytest.raises(FloatingPointError, match=r"step 7; there is no checkpoint before it"):
        run(None)


def test_a_first_loss_that_is_not_finite_is_not_blamed_on_the_learning_rate(variables):
    def objective(apply_fn, variables, batch, key):
        return jnp.log(-1 - batch.x[0, 0] ** 2), {"metrics": {}, "updates": {}}

    with pytest.raises(FloatingPointError, match=r"step 1; .* learning rate is not the cause: .*logarithm"):
        train(variables, objective=objective)


def test_the_objective_is_traced_once_and_once_more_for_checkpoints(variables, tmp_path):
    def objective(*arguments):
        return natural()(*arguments)

    for traces, options in ((1, {}), (2, {"checkpoint_dir": tmp_path / "run"})):
        chex.clear_trace_counter()
        result = train(variables, objective=chex.assert_max_traces(objective, traces), **options)
        chex.assert_tree_all_finite(result.variables)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epochs": None}, "either `epochs` or `steps`, got epochs=None and steps=None"),
        ({"steps": 3}, "either `epochs` or `steps`, got epochs=6 and steps=3"),
        ({"epochs": -1}, "negative"),
        ({"batch_size": 51}, "`batch_size` is 51; accepted is 1 to 50"),
        ({"batch_size": 0}, "`batch_size` is 0"),
        ({"log_every": 0}, "`log_every` is 0"),
        ({"checkpoint_every": -3}, "`checkpoint_every` is -3"),
    ],
)
def test_wrong_usage_is_named(variables, changes, message):
    with pytest.raises(ValueError, match=message):
        train(variables, **changes)


def test_a_writer_outside_of_a_list_is_refused(variables, tmp_path):
    with pytest.raises(TypeError, match=r"is a list, such as \[ja.training.JsonLines\(path\)\], got JsonLines"):
        train(variables, writers=JsonLines(tmp_path / "log.jsonl"))


def test_variables_without_params_are_refused(variables):
    with pytest.raises(ValueError, match=r"needs 'params', got \['Dense_0'\]"):
        train({"Dense_0": {}})


def test_optimizers_that_share_the_weights_and_keys_work(variables):
    """Lookahead keeps the very arrays it is given, and noise keeps a random key: both are donated."""
    shared = optax.chain(optax.add_noise(0.1, 0.5, key=jax.random.key(0)), optax.sgd(0.1))
    train(variables, optimizer=shared, epochs=1)
    aliased = optax.GradientTransformation(
        init=lambda params: params, update=lambda updates, _, params=None: (updates, params)
    )
    train(variables, optimizer=aliased, epochs=1)
