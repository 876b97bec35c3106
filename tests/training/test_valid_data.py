"""Data that cannot be learned is refused before the first step."""

import numpy as np
import pytest
from training_runs import initial, make_data, train

import jaxattr as ja
from jaxattr.training import Batch


@pytest.fixture(scope="module")
def variables():
    return initial()


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
