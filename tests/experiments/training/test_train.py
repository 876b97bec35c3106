"""A training from command to card, killed and continued, and its way into a zoo."""

import json
import shutil

import jax
import numpy as np
import pytest

import jaxattr as ja
from experiments import cli
from experiments.training import publish, train
from jaxattr.audit import networks
from jaxattr.audit.run_directory import StoreError

# Everything of the preset but the network, which is quicker to compile, and the test set, which a zoo wants in full.
ARGUMENTS = ["--preset", "smoke", "--defense", "adversarial", "--model", "mlp", "--training.accuracy-samples", "360"]


def command(directory, *more):
    return ["train", *ARGUMENTS, "--output", str(directory), *more]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    directory = tmp_path_factory.mktemp("runs") / "smoke"
    assert cli.main(command(directory)) == 0
    return directory


@pytest.fixture
def copy(run, tmp_path):
    return shutil.copytree(run, tmp_path / "copy")


def contents(directory):
    return {path: path.read_bytes() for path in sorted(directory.rglob("*")) if path.is_file()}


def card_of(directory):
    return json.loads((directory / "network.json").read_text())


def test_the_card_says_what_was_done_and_measured(run):
    card = card_of(run)
    record = json.loads((run / "run.json").read_text())
    assert (card["defense"], card["data"]["name"], card["model"]["name"]) == ("adversarial", "digits", "mlp")
    assert card["config_hash"] == record["hash"]
    assert (card["steps"], card["epochs"]) == (11, 1.0)
    assert record["config"]["training"]["attack_steps"] == 1
    assert card["environment"]["jax"] == jax.__version__
    digits = ja.data.load("digits", "test")
    assert (card["test_samples"], card["full_test_set"]) == (len(digits), True)
    network = ja.zoo.load("network", run)
    assert card["accuracy"] == ja.training.accuracy(network.apply_fn, network.variables, digits)
    attack = ja.attacks.pgd(ja.LInf(card["pgd"]["epsilon"]), num_steps=card["pgd"]["steps"])
    expected = ja.training.robust_accuracy(network.apply_fn, network.variables, digits, attack, jax.random.key(0))
    assert card["pgd_accuracy"] == expected
    assert card["accuracy"] > 0.2  # an epoch is enough for more than chance


def test_losses_and_accuracies_are_logged_on_the_way(run):
    rows = [json.loads(line) for line in (run / "training.jsonl").read_text().splitlines()]
    measured = [row for row in rows if "test_accuracy" in row]
    assert [row["step"] for row in measured] == [6, 11]
    assert all(0 <= row["test_pgd_accuracy"] <= row["test_accuracy"] <= 1 for row in measured)
    assert any("adversarial_accuracy" in row and "loss" in row for row in rows)


def test_a_second_run_changes_nothing(copy):
    before = contents(copy)
    assert cli.main(command(copy)) == 0
    after = contents(copy)
    # But for where it lies: the run was moved.
    about = [json.loads(files.pop(copy / "run.json")) for files in (before, after)]
    assert after == before
    assert about[1]["config"].pop("output") == str(copy)
    assert about[0]["config"].pop("output") != str(copy)
    assert about[0] == about[1]


def test_another_configuration_is_refused_and_nothing_overwritten(copy, capsys):
    before = contents(copy)
    assert cli.main(command(copy, "--training.epsilon", "0.2")) == 2
    message = capsys.readouterr().err
    assert "training.epsilon: 0.1 -> 0.2" in message
    assert "--output" in message
    assert contents(copy) == before


def test_a_foreign_directory_is_left_alone(tmp_path, capsys):
    (tmp_path / "thesis.tex").write_text("words")
    assert cli.main(command(tmp_path)) == 2
    assert "thesis.tex" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_run_of_another_command_is_refused(copy, capsys):
    assert cli.main(["report", str(copy)]) == 2
    assert "a run of `train`, not of `audit`" in capsys.readouterr().err


def test_a_killed_training_continues_to_the_same_weights(run, tmp_path, monkeypatch):
    save = ja.checkpoints.Checkpoints.save

    def killed(checkpoints, step, state, meta=None):
        if step == 8:
            raise KeyboardInterrupt
        save(checkpoints, step, state, meta)

    monkeypatch.setattr(ja.checkpoints.Checkpoints, "save", killed)
    directory = tmp_path / "killed"
    with pytest.raises(KeyboardInterrupt):
        cli.main(command(directory))
    assert not networks.complete(directory)
    monkeypatch.setattr(ja.checkpoints.Checkpoints, "save", save)
    assert cli.main(command(directory)) == 0
    assert card_of(directory)["weights"] == card_of(run)["weights"]


def test_a_loss_that_is_not_finite_ends_the_run(tmp_path, capsys):
    more = ["--training.optimizer", "sgd", "--training.learning-rate", "1e30", "--training.schedule", "constant"]
    assert cli.main(command(tmp_path / "run", *more)) == 1
    assert "not finite" in capsys.readouterr().err
    assert not networks.complete(tmp_path / "run")


def test_the_composition_of_wang_and_kong_2023_on_its_data_set(tmp_path):
    arguments = ["--preset", "smoke", "--defense", "trades_igr", "--training.samples", "256"]
    assert cli.parse_train(arguments).model == "small_cnn"
    arguments += ["--model", "mlp"]  # quicker to compile
    directory = tmp_path / "run"
    assert cli.main(["train", *arguments, "--training.evaluations", "1", "--output", str(directory)]) == 0
    rows = [json.loads(line) for line in (directory / "training.jsonl").read_text().splitlines()]
    assert {"kl_divergence", "cosine_distance", "test_pgd_accuracy"} <= set().union(*rows)
    card = card_of(directory)
    assert (card["model"]["name"], card["steps"], card["full_test_set"]) == ("mlp", 2, False)
    with pytest.raises(StoreError, match="full test set"):
        publish.publish(directory, "digits/trades_igr", directory=tmp_path / "zoo")
    assert not (tmp_path / "zoo").exists()


def test_published_weights_load_with_their_card(run, tmp_path, capsys):
    arguments = ["publish", str(run), "digits/adversarial", "--directory", str(tmp_path)]
    assert cli.main(arguments) == 0
    network = ja.zoo.load("digits/adversarial", tmp_path)
    assert network.card == card_of(run)
    for stored, trained in zip(
        jax.tree.leaves(network.variables), jax.tree.leaves(ja.zoo.load(networks.NAME, run).variables), strict=True
    ):
        np.testing.assert_array_equal(stored, trained)
    before = contents(tmp_path)
    assert cli.main(arguments) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert contents(tmp_path) == before
    assert cli.main([*arguments, "--overwrite"]) == 0
    assert contents(tmp_path) == before


def test_accuracies_of_rounded_weights_are_measured_with_them(run, tmp_path):
    publish.publish(run, "digits/half", directory=tmp_path, dtype="float16")
    network = ja.zoo.load("digits/half", tmp_path)
    card = network.card
    assert card["dtype"] == "float16"
    assert card["before_rounding"] == {name: card_of(run)[name] for name in ("accuracy", "pgd_accuracy")}
    digits = ja.data.load("digits", "test")
    assert card["accuracy"] == ja.training.accuracy(network.apply_fn, network.variables, digits)
    assert card["full_test_set"]
    for leaf in jax.tree.leaves(network.variables):
        np.testing.assert_array_equal(leaf, leaf.astype(np.float16))


def test_weights_are_rounded_or_refused_where_they_are_large(run, tmp_path, monkeypatch):
    size = (run / "network.npz").stat().st_size
    monkeypatch.setattr(publish, "LARGEST", size // 4)
    with pytest.raises(StoreError, match=f"at most {size // 4:,}"):
        publish.publish(run, "digits/large", directory=tmp_path)
    assert ja.zoo.names(tmp_path) == ()
    assert not any(path.is_file() for path in tmp_path.rglob("*"))
    monkeypatch.setattr(publish, "LARGEST", size * 3 // 4)
    publish.publish(run, "digits/large", directory=tmp_path)
    assert ja.zoo.load("digits/large", tmp_path).card["dtype"] == "float16"


@pytest.mark.parametrize("name", ["adversarial", "mnist/adversarial", "digits/../adversarial", "digits/"])
def test_names_of_the_zoo_begin_with_their_data_set(run, tmp_path, name):
    with pytest.raises(ValueError, match="digits/WORD"):
        publish.publish(run, name, directory=tmp_path)


def test_an_unfinished_training_is_not_published(copy, tmp_path):
    (copy / "network.json").unlink()
    with pytest.raises(StoreError, match="finish it with `train`"):
        publish.publish(copy, "digits/adversarial", directory=tmp_path / "zoo")


def test_seconds_are_of_all_processes_that_took_part():
    assert train.seconds([{"seconds": 3.0}, {"seconds": 5.0}, {"seconds": 1.0}, {"seconds": 2.5}]) == 7.5
    assert train.seconds([]) == 0.0
