"""Networks of a run are files, which are complete when their card is there."""

import json

import jax
import numpy as np
import pytest

import jaxattr as ja
from jaxattr.audit import networks
from jaxattr.audit.run_directory import StoreError


def test_a_network_is_complete_with_its_card(copy):
    directory = copy / "models" / "plain"
    assert networks.complete(directory)
    (directory / "network.json").unlink()
    assert not networks.complete(directory)
    with pytest.raises(ValueError, match="no trained network"):
        networks.load(directory)


def test_a_network_that_is_read_is_the_one_that_was_written(run, tmp_path):
    stored = ja.zoo.load("network", run / "models" / "plain")
    networks.write(tmp_path / "again", stored.variables, stored.card)
    network = networks.load(tmp_path / "again")
    assert (network.name, network.weights, network.shape) == ("again", stored.card["weights"], (8, 8, 1))
    x = np.full((8, 8, 1), 0.5, np.float32)
    np.testing.assert_array_equal(network.logits_fn(x), stored.logits_fn(x))


def test_cards_come_in_an_order_and_others_by_name(run, tmp_path):
    card = json.loads((run / "models" / "plain" / "network.json").read_text())
    for name in ("trades", "zeta", "natural", "alpha"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "network.json").write_text(json.dumps(card))
    assert list(networks.cards(tmp_path, ("natural", "art", "trades"))) == ["natural", "trades", "alpha", "zeta"]
    assert networks.cards(tmp_path)["zeta"] == card
    assert networks.cards(tmp_path / "absent") == {}


def test_kinks_are_counted_or_refused(copy):
    directory = copy / "models" / "plain"
    assert networks.count_kinks(directory) == networks.count_kinks(directory, "refuse") == 0
    path = directory / "network.json"
    card = json.loads(path.read_text())
    card["model"]["options"]["beta"] = None
    path.write_text(json.dumps(card))
    assert networks.count_kinks(directory) > 0
    with pytest.raises(ValueError, match=r"plain: `audit` needs two derivatives(.|\n)*`--kinks allow`"):
        networks.count_kinks(directory, "refuse")


def test_a_network_of_the_package_is_adopted_once(tmp_path):
    directory = tmp_path / "models" / "natural"
    pretrained = ja.zoo.load("digits/natural")
    networks.adopt("digits/natural", directory)
    stored = ja.zoo.load("network", directory)
    assert stored.card == pretrained.card
    for one, other in zip(jax.tree.leaves(stored.variables), jax.tree.leaves(pretrained.variables), strict=True):
        np.testing.assert_array_equal(one, other)
    before = (directory / "network.npz").stat().st_mtime_ns
    networks.adopt("digits/natural", directory)
    assert (directory / "network.npz").stat().st_mtime_ns == before
    with pytest.raises(StoreError, match=r"holds other weights than digits/trades_igr.*rows/model=natural, its rows"):
        networks.adopt("digits/trades_igr", directory)
    assert networks.load(directory).weights == pretrained.card["weights"]
