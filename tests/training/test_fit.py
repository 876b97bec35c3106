import json

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from training_runs import ADVERSARIAL, APPLY, initial, make_data, saved_steps, train

import jaxattr as ja
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


SHUFFLED = np.random.default_rng(1).permutation(50)


def scaled(variables):
    return jax.tree.map(lambda leaf: 2 * leaf, variables)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"key": jax.random.key(8)}, "key"),
        ({"batch_size": 8}, r"batch_size \(there batch_size 16, now 8\)"),
        ({"data": lambda data: Batch(data.x[:48], data.label[:48])}, r"number of samples \(.* 50, now 48\)"),
        ({"data": lambda data: Batch(data.x * 255, data.label)}, "inputs"),
        ({"data": lambda data: Batch(data.x, (data.label + 1) % 3)}, "labels"),
        ({"data": lambda data: Batch(data.x[SHUFFLED], data.label[SHUFFLED])}, "inputs, another labels"),
        ({"optimizer": optax.adam(0.05)}, "optimizer or learning rate"),
        ({"optimizer": optax.adam(optax.cosine_decay_schedule(0.051, 60))}, "optimizer or learning rate"),
        ({"optimizer": optax.sgd(0.05, momentum=0.9)}, "optimizer or learning rate"),
        ({"objective": ADVERSARIAL}, "objective or network"),
        ({"variables": scaled}, "initial weights"),
    ],
)
def test_another_run_is_not_continued(variables, run_of_four_steps, change, words):
    """No longer run is begun either: what is refused is the same call with more steps."""
    change = {name: change[name](make_data()) if name == "data" else change[name] for name in change}
    start = change.pop("variables", lambda unchanged: unchanged)(variables)
    with pytest.raises(ValueError, match=rf"run/4 was written by a run with another {words}, so continuing"):
        train(start, **(run_of_four_steps | {"steps": 6} | change))


@pytest.fixture(scope="module")
def run_of_four_steps(variables, tmp_path_factory):
    options = {"checkpoint_dir": tmp_path_factory.mktemp("fit") / "run", "steps": 4, "epochs": None}
    train(variables, **options)
    return options


def test_objectives_that_differ_in_a_number_are_told_apart(variables, tmp_path):
    def run(epsilon, num_steps, **changes):
        objective = ja.defenses.adversarial(ja.attacks.pgd(ja.L2(epsilon, box=None), num_steps=num_steps))
        return train(variables, objective=objective, checkpoint_dir=tmp_path / "run", epochs=None, **changes)

    run(0.3, 2, steps=1)
    for other in ((0.31, 2), (0.3, 3)):
        with pytest.raises(ValueError, match="another objective or network,"):
            run(*other, steps=2)
    # Built anew, and the same.
    assert run(0.3, 2, steps=2).step == 2


def test_a_run_can_be_made_longer_and_no_shorter(variables, run_of_four_steps):
    with pytest.raises(ValueError, match=r"holds a run of 4 steps already, more than the 3"):
        train(variables, **(run_of_four_steps | {"steps": 3}))
    # A finished run is the same run.
    assert train(variables, **run_of_four_steps).step == 4


def test_another_version_of_jax_is_said(variables, tmp_path, monkeypatch, caplog):
    options = {"checkpoint_dir": tmp_path, "steps": 1, "epochs": None}
    monkeypatch.setattr(jax, "__version__", "0.0.1")
    train(variables, **options)
    monkeypatch.undo()
    # Which programs it traced is not known, so another rate is not seen; all else is still compared.
    with pytest.raises(ValueError, match="another initial weights,"):
        train(scaled(variables), **(options | {"steps": 2}))
    train(variables, **(options | {"steps": 2, "optimizer": optax.adam(optax.cosine_decay_schedule(0.06, 60))}))
    assert "was written with JAX 0.0.1" in caplog.text
    assert "cannot be told" in caplog.text


@pytest.mark.parametrize(
    ("data", "error", "message"),
    [
        (Batch((make_data().x * 255).astype(np.uint8), make_data().label), TypeError, r"dtype uint8.*/ 255"),
        (
            Batch(make_data().x, np.where(np.arange(50) < 20, -1, 2)),
            ValueError,
            r"0 and 2 .* 20 of 50 .*: -1 \(20 times",
        ),
        (Batch(make_data().x, np.where(np.arange(50) < 20, 3, 2)), ValueError, r"3 logits.* 3 \(20 times\)\. Leave"),
        (Batch(make_data().x, np.arange(50)), ValueError, r"47 of 50 .*: 3 \(1 times\), .*, 7 \(1 times\), \.\.\."),
        (Batch(np.where(np.arange(200) < 6, np.nan, 0.5).reshape(50, 4), np.zeros(50, int)), ValueError, "in 2 of 50"),
    ],
)
def test_samples_that_cannot_be_learned_are_named(variables, data, error, message):
    """All of these trained, or failed later with advice about the learning rate."""
    with pytest.raises(error, match=message):
        train(variables, data=data)


def test_weights_that_are_not_finite_are_named():
    broken = initial()
    broken["params"]["Dense_1"]["bias"] = np.array([0, np.nan, 0], np.float32)
    with pytest.raises(ValueError, match=r"not finite in \['params'\]\['Dense_1'\]\['bias'\]"):
        train(broken)


def test_inputs_outside_of_the_box_of_the_attack_are_refused(variables):
    """The attack would project them to black and white images."""
    objective = ja.defenses.adversarial(ja.attacks.pgd(ja.LInf(8.0)))
    with pytest.raises(ValueError, match=r"`x` must lie in the box .*range from 0\.\d* to 254\.\d*\. Rescale"):
        train(
            variables,
            objective=objective,
            data=Batch(np.random.default_rng(0).uniform(0, 255, (50, 4)), make_data().label),
        )


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
