"""ImageNet's row: the published network says of the photographs what their labels say."""

import dataclasses

import pytest

import jaxattr as ja
from experiments import cli
from experiments.audits import photographs
from experiments.audits.config import resolve
from experiments.audits.presets import PRESETS
from experiments.audits.run import load_data, obtain
from jaxattr.audit import networks
from jaxattr.audit.run import first_correct

ARGUMENTS = ["--preset", "cpu", "--dataset", "photographs"]


def test_the_network_is_the_published_one_and_knows_the_photographs(tmp_path):
    _, config = cli.parse_audit([*ARGUMENTS, "--output", str(tmp_path)])
    assert config.model == "efficientnet_lite0"
    obtain(config, "natural")
    obtain(config, "natural")  # it is there
    network = networks.load(tmp_path / "models" / "natural")
    assert (network.name, network.shape) == ("natural", (224, 224, 3))
    model = ja.zoo.load(networks.NAME, tmp_path / "models" / "natural").model
    assert (model.beta, model.cap) == (25.0, 6.0)
    data = load_data(config)
    assert data.x.shape == (2, 224, 224, 3)
    assert 0 <= data.x.min() < data.x.max() <= 1
    assert first_correct(network, data, config).tolist() == [0, 1]
    assert [data.class_names[label] for label in data.label] == ["palace", "daisy"]


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"source": "zoo"}, "go together"),
        ({"dataset": "mnist"}, "go together"),
        ({"defenses": ("natural", "trades")}, "there is natural alone"),
    ],
)
def test_photographs_and_their_network_go_together(changed, words):
    given = {"dataset": photographs.DATASET, "source": "imagenet", "defenses": ("natural",), **changed}
    with pytest.raises(ValueError, match=words):
        resolve(dataclasses.replace(PRESETS["cpu"][1], **given), "cpu")
