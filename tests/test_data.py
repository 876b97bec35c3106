import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from jaxattr import data

SPLITS = {  # name: shape, sizes, classes
    "mnist": ((28, 28, 1), (60_000, 10_000), 10),
    "fashion_mnist": ((28, 28, 1), (60_000, 10_000), 10),
    "cifar10_jpeg": ((32, 32, 3), (50_000, 10_000), 10),
    "oxford_flowers12": ((128, 128, 3), (720, 240), 12),
}


def prepared(name):
    root = Path(os.environ.get("TFDS_DATA_DIR") or Path.home() / "tensorflow_datasets")
    if not list(root.glob(f"{name}/*/dataset_info.json")):
        pytest.skip(f"{name} is not prepared in {root}; set TFDS_DATA_DIR to run this test")
    return root / name


def test_digits_are_those_of_scikit_learn_in_their_order():
    from sklearn.datasets import load_digits  # noqa: PLC0415

    source = load_digits()
    train, test = data.load("digits"), data.load("digits", "test")
    assert (len(train), len(test), train.num_classes) == (1437, 360, 10)
    x = np.concatenate([train.x, test.x])
    assert x.dtype == np.float32
    assert x.shape == (1797, 8, 8, 1)
    np.testing.assert_array_equal(x[..., 0] * 16, source.images)
    np.testing.assert_array_equal(np.concatenate([train.label, test.label]), source.target)
    assert train.label.dtype == np.int32
    assert (x.min(), x.max()) == (0, 1)
    assert (train.name, test.class_names[3]) == ("digits/train", "3")


def test_selection_keeps_samples_and_labels_together():
    digits = data.load("digits", "test", limit=20)
    assert len(digits) == 20
    part = digits[np.array([5, 3])]
    np.testing.assert_array_equal(part.x, digits.x[[5, 3]])
    np.testing.assert_array_equal(part.label, digits.label[[5, 3]])
    assert part.num_classes == 10
    assert len(digits[digits.label == 4]) == np.sum(digits.label == 4) > 0
    assert len(digits.take(3)) == 3
    assert len(digits.take(99)) == 20
    with pytest.raises(TypeError, match=r"`\.x\[3\]` is one sample"):
        digits[3]


def test_wrong_usage_is_named():
    with pytest.raises(ValueError, match=r"'imagenet'; known are digits, cifar10"):
        data.load("imagenet")
    with pytest.raises(ValueError, match=r"'validation'; mnist has train and test"):
        data.load("mnist", "validation")
    with pytest.raises(ValueError, match="`limit` is 0"):
        data.load("digits", limit=0)


def test_missing_data_say_where_and_what_to_do(tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError) as caught:
        data.load("mnist", data_dir=tmp_path)
    for part in (str(tmp_path / "mnist"), "TFDS_DATA_DIR", "--data-dir", "download=True"):
        assert part in str(caught.value)
    # A directory in which TFDS was interrupted is as good as none; and the variable is looked up.
    (tmp_path / "cifar10_jpeg" / "1.0.0").mkdir(parents=True)
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="not in the catalog") as caught:
        data.load("cifar10_jpeg", download=True)
    assert str(tmp_path) in str(caught.value)
    # The argument comes first.
    with pytest.raises(FileNotFoundError, match="elsewhere"):
        data.load("mnist", data_dir=tmp_path / "elsewhere")


def test_missing_packages_are_named(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(ImportError, match=r"needs sklearn: pip install 'jaxattr\[data\]'"):
        data.load("digits")
    with pytest.raises(ImportError, match="needs array_record and PIL"):
        data.load("mnist")


def test_download_is_left_to_tfds(tmp_path, monkeypatch):
    """With TFDS replaced: what is asked of it, and that its result is read."""
    import tensorflow_datasets as tfds  # noqa: PLC0415

    asked = []

    class Builder:
        def download_and_prepare(self):
            asked.append("prepare")

    def builder(name, **options):
        asked.append((name, options))
        return Builder()

    monkeypatch.setattr(tfds, "builder", builder)
    with pytest.raises(FileNotFoundError):
        data.load("mnist", data_dir=tmp_path, download=True)
    assert asked == [("mnist", {"data_dir": tmp_path, "file_format": "array_record"}), "prepare"]


@pytest.mark.parametrize("name", SPLITS)
def test_prepared_images(name):
    prepared(name)
    shape, sizes, classes = SPLITS[name]
    test = data.load(name, "test", limit=1200)  # more than are decoded at once
    assert test.x.shape == (min(1200, sizes[1]), *shape)
    assert test.x.dtype == np.float32
    assert test.label.dtype == np.int32
    assert test.x.min() == 0
    assert 0.9 < test.x.max() <= 1
    assert test.num_classes == len(test.class_names) == classes
    assert set(test.label) == set(range(classes))
    train = data.load(name, "train", limit=5)
    assert not np.array_equal(train.x, test.take(5).x)


def test_all_of_mnist_against_the_records():
    prepared("mnist")
    import tensorflow_datasets as tfds  # noqa: PLC0415

    test = data.load("mnist", "test")
    assert len(test) == 10_000
    # The usual mean and deviation are of the training set; the test set's mean is 0.1325.
    assert test.x.mean() == pytest.approx(0.1325, abs=1e-3)
    source = tfds.data_source("mnist", split="test")
    for index in (0, 999, 1000, 9999):
        np.testing.assert_array_equal(np.rint(test.x[index] * 255), source[index]["image"])
        assert test.label[index] == source[index]["label"]


def test_files_that_need_tensorflow_are_refused(tmp_path):
    (version,) = prepared("mnist").glob("*")
    copy = tmp_path / "mnist" / version.name
    copy.mkdir(parents=True)
    for file in version.glob("*.json"):
        shutil.copy(file, copy)
    info = json.loads((copy / "dataset_info.json").read_text())
    (copy / "dataset_info.json").write_text(json.dumps(info | {"fileFormat": "tfrecord"}))
    with pytest.raises(ValueError, match=r"holds tfrecord files.*file_format='array_record'"):
        data.load("mnist", data_dir=tmp_path)


def test_the_newest_version_is_read(tmp_path):
    for version in ("3.0.1", "3.0.10", "3.0.9"):
        (tmp_path / version).mkdir()
        (tmp_path / version / "dataset_info.json").touch()
    (tmp_path / "4.0.0").mkdir()
    assert data._version_directory(tmp_path) == tmp_path / "3.0.10"
