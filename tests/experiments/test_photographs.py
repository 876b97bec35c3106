"""ImageNet's row: the published network says of the photographs what their labels say."""

import dataclasses

import pytest

from experiments import cli, evaluate, networks, photographs
from experiments.config import resolve
from experiments.presets import PRESETS

ARGUMENTS = ["--preset", "cpu", "--dataset", "photographs"]


def test_the_network_is_the_published_one_and_knows_the_photographs(tmp_path):
    _, config = cli.parse_evaluate([*ARGUMENTS, "--output", str(tmp_path)])
    assert config.model == "efficientnet_lite0"
    evaluate.obtain(config, "natural")
    evaluate.obtain(config, "natural")  # it is there
    network = networks.load(tmp_path / "models" / "natural")
    assert (network.name, network.model.beta, network.model.cap) == ("natural", 25.0, 6.0)
    data = evaluate.test_data(config)
    assert data.x.shape == (2, 224, 224, 3)
    assert 0 <= data.x.min() < data.x.max() <= 1
    assert evaluate.first_correct(network, data, config).tolist() == [0, 1]
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
