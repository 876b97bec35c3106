"""Another run is not continued, and is told by what differs."""

import jax
import numpy as np
import optax
import pytest
from training_runs import ADVERSARIAL, initial, make_data, train

import jaxattr as ja
from jaxattr.training import Batch


@pytest.fixture(scope="module")
def variables():
    return initial()


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
