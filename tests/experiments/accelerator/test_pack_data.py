"""Prepared data sets are packed as they are read, and no file is replaced."""

import numpy as np
import pytest

import jaxattr as ja
from experiments import cli
from experiments.accelerator import pack_data


def test_packing_reads_what_is_prepared_and_replaces_nothing(tmp_path, monkeypatch, capsys):
    source = {name: ja.data.load("digits", name).take(30) for name in ("train", "test")}
    load = ja.data.load
    monkeypatch.setattr(ja.data, "load", lambda _, split, *__, **___: source[split])
    assert cli.main(["pack-data", "--datasets", "mnist", "--output", str(tmp_path)]) == 0
    assert str(tmp_path / "mnist.npz") in capsys.readouterr().out
    monkeypatch.setattr(ja.data, "load", load)
    for name, data in source.items():
        again = ja.data.load("mnist", name, tmp_path)
        np.testing.assert_allclose(again.x, data.x, atol=0.5 / 255)
        np.testing.assert_array_equal(again.label, data.label)
    before = (tmp_path / "mnist.npz").read_bytes()
    assert cli.main(["pack-data", "--datasets", "mnist", "--output", str(tmp_path)]) == 2
    assert "exists already" in capsys.readouterr().err
    assert (tmp_path / "mnist.npz").read_bytes() == before
    with pytest.raises(ValueError, match="comes with scikit-learn"):
        pack_data.pack(["digits"], tmp_path)
    with pytest.raises(FileNotFoundError, match="not prepared"):
        pack_data.pack(["fashion_mnist"], tmp_path / "new", data_dir=str(tmp_path))
