"""What comes back from an accelerator: tables into the README, records, and networks that are better."""

import json
import tarfile

import pytest

import jaxattr as ja
from experiments import cli
from experiments.accelerator import take_in
from experiments.training.recipes import Training
from experiments.training.train import TrainConfig, resolve
from jaxattr.audit.run_directory import as_dict, config_hash
from jaxattr.audit.spec import NUMERICS

DEVICE = {
    "device": "a card",
    "jax": "1",
    "python": "3",
    "copy_gb_a_second": 1234.0,
    "rates": [{"size": 256, "dtype": "float32", "precision": "highest", "tflops": 40.0}],
}
ROW = {"name": "PGD-20", "samples": 10, "seconds": 0.1, "a_second": 100.0, "compile_seconds": 1.0, "megabytes": 5.0}


@pytest.fixture
def output(tmp_path):
    """Of a run: two measurements, one failure, and a network with its run."""
    folder = tmp_path / "out"
    run = folder / "networks" / "digits-natural"
    run.mkdir(parents=True)
    torch = {"torch_seconds": 0.4, "over_torch": 0.25}
    jobs = {
        "device": {"status": "done", "seconds": 1, "result": DEVICE},
        "mnist": {"status": "done", "seconds": 1, "result": {"rows": [{**ROW, **torch}, {**ROW, "name": "saliency"}]}},
        "hessian": {"status": "failed", "seconds": 1, "error": "XlaRuntimeError: out | of memory", "result": {}},
    }
    for name, record in jobs.items():
        (folder / f"{name}.json").write_text(json.dumps({"job": name, **record}))
    (folder / "summary.json").write_text("{}")
    network = ja.zoo.load("digits/natural")
    config = resolve(TrainConfig(str(run), "digits", training=Training(preset="cpu")))
    described = {"command": "train", "hash": config_hash(config), "numerics": NUMERICS, "config": as_dict(config)}
    described["environment"] = {}
    (run / "run.json").write_text(json.dumps(described))
    (run / "network.json").write_text(json.dumps(network.card))
    ja.weights.save_variables(run / "network.npz", network.variables)
    (folder / "networks" / "digits-trades").mkdir()
    (tmp_path / "README.md").write_text(f"before\n\n{take_in.BEGIN}\nold\n{take_in.END}\n\nafter\n")
    return folder


def arguments(output, *more):
    root = output.parent
    places = {"results": root / "results", "readme": root / "README.md", "zoo": root / "zoo"}
    return [
        "take-in",
        str(output),
        *(word for name, path in places.items() for word in (f"--{name}", str(path))),
        *more,
    ]


def test_tables_records_and_networks_are_taken_in(output, capsys):
    assert cli.main(arguments(output)) == 0
    said = capsys.readouterr().out
    assert "digits/natural_paper: 5" in said
    assert "digits/trades_paper: left out, its training is not finished" in said
    text = (output.parent / "README.md").read_text()
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert "old" not in text
    # 10 samples in 0.4 seconds there; ten million in 100,000 seconds here.
    assert "| PGD-20 | 10 | 100 | 1.0 | 5 | 25 | 0.25 | 27.8 |" in text
    assert "| hessian | failed | XlaRuntimeError: out / of memory |" in text
    records = json.loads((output.parent / "results" / "results.json").read_text())
    assert records["device"]["result"] == DEVICE
    assert "summary" not in records
    assert ja.zoo.names(output.parent / "zoo") == ("digits/natural_paper",)
    assert ja.zoo.load("digits/natural_paper", output.parent / "zoo").card == ja.zoo.load("digits/natural").card


def test_only_better_networks_replace_those_that_are_there(output, capsys):
    assert cli.main(arguments(output)) == 0
    stored = output.parent / "zoo" / "digits" / "natural_paper.json"
    card = json.loads(stored.read_text())
    capsys.readouterr()
    assert cli.main(arguments(output)) == 0
    assert "left out, the one that is there is as good" in capsys.readouterr().out
    stored.write_text(json.dumps({**card, "accuracy": card["accuracy"] - 0.1}))
    assert cli.main(arguments(output)) == 0
    assert json.loads(stored.read_text()) == card


def test_archives_are_read_as_folders_are(output, tmp_path):
    packed = tmp_path / "packed"
    packed.mkdir()
    with tarfile.open(packed / "results.tar.gz", "w:gz") as tar:
        for path in output.glob("*.json"):
            tar.add(path, path.name)
    assert cli.main(arguments(packed)) == 0
    assert "40.0" in (tmp_path / "README.md").read_text()


def test_what_is_no_output_and_no_place_for_tables_are_named(output, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    assert cli.main(arguments(tmp_path / "empty")) == 2
    assert "holds no results" in capsys.readouterr().err
    (tmp_path / "README.md").write_text("no marks")
    assert cli.main(arguments(output)) == 2
    assert "has no part between" in capsys.readouterr().err
    assert not (tmp_path / "results").exists()
    assert not (tmp_path / "zoo").exists()
