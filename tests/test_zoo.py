"""Trained networks as package data: what is listed loads, and nothing else does."""

import functools
import json
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest

import jaxattr as ja

PACKAGE = Path(ja.zoo.__file__).parent


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "digits").mkdir()
    for suffix in ("npz", "json"):
        shutil.copy(PACKAGE / f"digits/natural.{suffix}", tmp_path / f"digits/other.{suffix}")
    return tmp_path


def test_there_is_something_in_the_package():
    assert "digits/natural" in ja.zoo.names()


@functools.cache
def shapes_and_kinks(model, shape):
    """What an architecture has, whatever its weights: shapes of its variables, and operations that are not smooth."""
    variables = jax.eval_shape(lambda key: ja.models.init(model, key, shape), jax.random.key(0))
    zeros = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), variables)
    kinks = ja.kinks(ja.models.logits_fn(model, zeros), jax.ShapeDtypeStruct(shape, np.float32))
    return jax.tree.map(np.shape, variables), kinks


@functools.cache
def pgd(epsilon, steps, step_size):
    """One attack for all networks that were measured with it: it is compiled once."""
    return ja.attacks.pgd(ja.LInf(epsilon), num_steps=steps, step_size=step_size)


@pytest.mark.parametrize("name", ja.zoo.names())
def test_every_network_fits_its_card(name):
    network = ja.zoo.load(name)
    card = network.card
    assert (PACKAGE / f"{name}.npz").stat().st_size <= 1_500_000
    assert name.split("/")[0] == card["data"]["name"]
    leaves = jax.tree.leaves(network.variables)
    assert all(leaf.dtype == np.float32 and np.isfinite(leaf).all() for leaf in leaves)
    assert sum(leaf.size for leaf in jax.tree.leaves(network.variables["params"])) == card["parameters"]
    shapes, kinks = shapes_and_kinks(network.model, tuple(card["data"]["shape"]))
    assert shapes == jax.tree.map(np.shape, network.variables)
    assert kinks == []
    assert card["full_test_set"]
    assert 0 <= card["pgd_accuracy"] <= card["accuracy"] <= 1
    # Nothing of the machine that trained it.
    assert not {"output", "data_dir"} & set(card["config"])


@pytest.mark.parametrize("name", [name for name in ja.zoo.names() if name.startswith("digits/")])
def test_the_accuracies_of_a_card_are_those_of_its_weights(name):
    network = ja.zoo.load(name)
    digits = ja.data.load("digits", "test")
    measured = ja.training.accuracy(network.apply_fn, network.variables, digits)
    assert network.card["test_samples"] == len(digits)
    # One digit near a boundary may fall on the other side on another device.
    assert network.card["accuracy"] == pytest.approx(measured, abs=1.5 / len(digits))
    of = network.card["pgd"]
    attack = pgd(of["epsilon"], of["steps"], of["step_size"])
    key = jax.random.key(of["seed"])
    measured = ja.training.robust_accuracy(network.apply_fn, network.variables, digits, attack, key)
    assert network.card["pgd_accuracy"] == pytest.approx(measured, abs=2.5 / len(digits))


def test_a_network_is_ready_for_attributions_and_bounds():
    network = ja.zoo.load("digits/natural")
    x = ja.data.load("digits", "test").x[0]
    logits, _ = network.apply_fn(network.variables, x[None])
    np.testing.assert_array_equal(network.logits_fn(x), logits[0])
    label = int(logits[0].argmax())
    bound = ja.bounds.singular_value(ja.attributions.saliency(), ja.L2(0.01), num_steps=5)
    assert jax.jit(bound)(network.logits_fn, x, label, jax.random.key(0)).euclidean > 0


def test_an_unknown_name_lists_what_there_is(folder):
    with pytest.raises(ValueError, match=r"'digits/none'.*digits/other"):
        ja.zoo.load("digits/none", folder)
    with pytest.raises(ValueError, match="there is nothing"):
        ja.zoo.load("digits/none", folder / "absent")
    # Not a way to read other files.
    with pytest.raises(ValueError, match="digits/natural"):
        ja.zoo.load("digits/../digits/natural")


def test_half_precision_is_read_as_float32(folder):
    network = ja.zoo.load("digits/other", folder)
    halved = jax.tree.map(lambda leaf: leaf.astype(np.float16), network.variables)
    ja.weights.save_variables(folder / "digits/other.npz", halved, overwrite=True)
    card = {**network.card, "weights": ja.zoo.weights_hash(halved)}
    (folder / "digits/other.json").write_text(json.dumps(card))
    leaves, before = (jax.tree.leaves(tree) for tree in (ja.zoo.load("digits/other", folder).variables, halved))
    for leaf, half in zip(leaves, before, strict=True):
        assert leaf.dtype == np.float32
        np.testing.assert_array_equal(leaf, half)


def test_weights_of_another_card_are_refused(folder):
    network = ja.zoo.load("digits/other", folder)
    moved = jax.tree.map(lambda leaf: leaf + np.float32(1e-3), network.variables)
    ja.weights.save_variables(folder / "digits/other.npz", moved, overwrite=True)
    with pytest.raises(ValueError, match="not those that the card was written for"):
        ja.zoo.load("digits/other", folder)


@pytest.mark.parametrize("text", ["", "[]", '{"weights": "0"}', '{"weights": "0", "model": {"name": "mlp"}}'])
def test_a_damaged_card_is_named(folder, text):
    (folder / "digits/other.json").write_text(text)
    with pytest.raises(ValueError, match=r"other\.json is (damaged|no card)"):
        ja.zoo.load("digits/other", folder)


def test_weights_without_a_card_are_not_listed(folder):
    (folder / "digits/other.json").unlink()
    assert ja.zoo.names(folder) == ()
