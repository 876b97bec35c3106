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
    "gtsrb": ((32, 32, 3), (39_209, 12_630), 43),
    "oxford_flowers12": ((128, 128, 3), (720, 240), 12),
}
VECTORS = {"spambase": ((57,), (3_450, 1_151), 2), "mushroom": ((22,), (6_499, 1_625), 2)}


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


def test_wrong_usage_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"'validation'; digits has train and test"):
        data.load("digits", "validation")
    with pytest.raises(ValueError, match="`limit` is 0"):
        data.load("digits", limit=0)
    (tmp_path / "gtsrb" / "1.0.0").mkdir(parents=True)
    (tmp_path / "gtsrb" / "1.0.0" / "dataset_info.json").touch()
    with pytest.raises(FileNotFoundError, match=r"'gtsbr' is not prepared: .* Prepared there: gtsrb\. .*'digits'"):
        data.load("gtsbr", data_dir=tmp_path)


X, LABEL = np.zeros((3, 2), np.float32), np.array([0, 1, 1])


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"x": np.zeros((3, 2), np.uint8)}, TypeError, r"got uint8; images: x\.astype\('float32'\) / 255"),
        ({"label": np.zeros(3)}, TypeError, "integers, got float64"),
        ({"label": np.zeros(2, int)}, ValueError, r"3 samples .* one label each, got labels of shape \(2,\)"),
        ({"boxes": np.zeros((3, 2))}, ValueError, r"and boxes \(3, 2\)"),
        ({"label": np.array([0, -1, 2])}, ValueError, r"between 0 and 1, got \[-1, 2\]"),
    ],
)
def test_arrays_that_are_no_data_set_are_named(changes, error, message):
    with pytest.raises(error, match=message):
        data.Dataset(**({"x": X, "label": LABEL, "num_classes": 2, "name": "x", "class_names": ("a", "b")} | changes))


def test_missing_data_say_where_and_what_to_do(tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError) as caught:
        data.load("mnist", data_dir=tmp_path)
    for part in (str(tmp_path / "mnist"), "TFDS_DATA_DIR", "--data-dir", "download=True"):
        assert part in str(caught.value)
    # A directory in which TFDS was interrupted is as good as none; and the variable is looked up.
    (tmp_path / "cifar10_jpeg" / "1.0.0").mkdir(parents=True)
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="not in the catalog of TFDS") as caught:
        data.load("cifar10_jpeg", download=True)
    assert str(tmp_path) in str(caught.value)
    # The argument comes first.
    with pytest.raises(FileNotFoundError, match="elsewhere"):
        data.load("mnist", data_dir=tmp_path / "elsewhere")


def test_missing_packages_are_named(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(ImportError, match=r"needs sklearn: pip install 'jaxattr\[data\]'"):
        data.load("digits")
    with pytest.raises(ImportError, match="needs tensorflow_datasets and array_record and PIL"):
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


@pytest.mark.parametrize("name", VECTORS)
def test_prepared_vectors_stay_as_they_are(name):
    prepared(name)
    import tensorflow_datasets as tfds  # noqa: PLC0415

    shape, sizes, classes = VECTORS[name]
    train = data.load(name)
    assert (train.x.shape, train.x.dtype, len(train.class_names)) == ((sizes[0], *shape), np.float32, classes)
    source = tfds.data_source(name, split="train")
    np.testing.assert_array_equal(train.x[[3, 2000]], [source[index]["features"] for index in (3, 2000)])
    assert train.boxes is None
    assert train.x.max() > 1


def test_boxes_are_kept():
    prepared("gtsrb")
    signs = data.load("gtsrb", "test", limit=1100)
    assert signs.boxes.shape == (1100, 4)
    ymin, xmin, ymax, xmax = signs.boxes.T
    assert np.all((ymin >= 0) & (ymin < ymax) & (ymax <= 1) & (xmin < xmax))
    # The part of the image that is said of this data set.
    assert ((ymax - ymin) * (xmax - xmin)).mean() == pytest.approx(0.57, abs=0.03)
    part = signs[np.array([7, 2])]
    np.testing.assert_array_equal(part.boxes, signs.boxes[[7, 2]])


def test_expressions_of_splits():
    prepared("spambase")
    whole = data.load("spambase", "train")
    np.testing.assert_array_equal(data.load("spambase", "train[:90%]").x, whole.x[:3105])
    np.testing.assert_array_equal(data.load("spambase", "train[-10:]").label, whole.label[-10:])
    both = data.load("spambase", "train[:2]+test[:3]")
    assert (len(both), both.name) == (5, "spambase/train[:2]+test[:3]")
    np.testing.assert_array_equal(both.x[:2], whole.x[:2])
    for wrong in ("validation", "train[", "test[:5000]", "train[:0]"):
        with pytest.raises(
            ValueError, match=r"cannot be read .*has train \(3450\), test \(1151\); parts .*'train\[:90%\]'"
        ):
            data.load("spambase", wrong)


def test_the_version_asked_for_is_read():
    prepared("spambase")
    assert len(data.load("spambase:1.0.0", "test", limit=3)) == 3
    with pytest.raises(FileNotFoundError, match=r"spambase/2\.0\.0/dataset_info\.json"):
        data.load("spambase:2.0.0")


def test_features_are_found_or_named():
    """By TFDS's own kinds of features, for data sets that are not here."""
    import tensorflow_datasets as tfds  # noqa: PLC0415

    kinds = tfds.features
    image, label, box = kinds.Image(shape=(4, 4, 3)), kinds.ClassLabel(num_classes=2), kinds.BBoxFeature()
    vector, words = kinds.Tensor(shape=(4,), dtype=np.float32), kinds.Text()
    found = {"photo": image, "kind": label, "where": box, "id": words}
    assert data._keys("x", None, found, kinds) == ("photo", "kind")
    assert data._keys("x", ("photo", "kind"), found | {"mask": image}, kinds) == ("photo", "kind")
    for features, keys in (
        (found | {"mask": image}, None),  # which of the two images
        ({"text": words, "label": label}, ("text", "label")),
        ({"features": {"a": vector}, "label": label}, ("features", "label")),
        ({"x": vector, "y": vector}, ("x", "y")),  # regression
        ({"image": image, "label": kinds.Sequence(label)}, ("image", "label")),
        ({"image": image, "label": label, "question": words}, ("image", "question", "label")[:2]),
        ({"low": image, "high": image}, ("low", "high")),
    ):
        with pytest.raises(
            ValueError, match=r"x is no data set of single inputs with one class each.*features are \w+: "
        ):
            data._keys("x", keys, features, kinds)


def test_images_of_several_sizes_are_named():
    class Source:
        def __len__(self):
            return 1001

        def __getitems__(self, indices):
            return [{"image": np.zeros((4 + (i == 1000), 4, 3), np.uint8), "label": 0} for i in indices]

    with pytest.raises(ValueError, match=r"beans has samples of different shapes, such as \(4, 4, 3\) and \(5, 4, 3\)"):
        data._read("beans", Source(), ["image", "label"], None)
    assert data._read("beans", Source(), ["image", "label"], 1000)["image"].shape == (1000, 4, 4, 3)


@pytest.mark.parametrize(("dtype", "largest"), [(np.uint8, 255), (np.uint16, 65535), (np.float32, 1)])
def test_images_end_at_one_and_features_do_not(dtype, largest):
    values = np.array([0, largest], dtype)
    np.testing.assert_array_equal(data._numbers(values, image=True), np.array([0, 1], np.float32))
    np.testing.assert_array_equal(data._numbers(values, image=False), np.array([0, largest], np.float32))


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
        (tmp_path / "mnist" / version).mkdir(parents=True)
        (tmp_path / "mnist" / version / "dataset_info.json").touch()
    (tmp_path / "mnist" / "4.0.0").mkdir()
    assert data._version_directory(tmp_path, "mnist") == tmp_path / "mnist" / "3.0.10"
    assert data._version_directory(tmp_path, "mnist:3.0.9") == tmp_path / "mnist" / "3.0.9"
