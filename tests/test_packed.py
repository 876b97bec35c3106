"""Packed data sets: what was packed is what is read, and a file that is none is named."""

import io

import numpy as np
import pytest

import jaxattr as ja
from jaxattr import packed


def pixels(n, *shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (n, *shape), np.uint8)


@pytest.fixture
def squares(tmp_path):
    splits = {"train": (pixels(5, 4, 3, 1), np.array([0, 1, 2, 1, 0])), "test": (pixels(2, 4, 3, 1), np.array([2, 2]))}
    packed.write(tmp_path / "squares.npz", splits, ("a", "b", "c"))
    return tmp_path, splits


def test_pixels_labels_and_names_come_back(squares, monkeypatch):
    directory, splits = squares
    for split, (x, label) in splits.items():
        data = ja.data.load("squares", split, directory)
        np.testing.assert_array_equal(np.round(data.x * 255), x)
        np.testing.assert_array_equal(data.label, label)
        assert (data.x.dtype, data.label.dtype) == (np.float32, np.int32)
        assert (data.num_classes, data.class_names, data.name) == (3, ("a", "b", "c"), f"squares/{split}")
    assert len(ja.data.load("squares", "train", directory, limit=2)) == 2
    monkeypatch.setenv("TFDS_DATA_DIR", str(directory))
    assert len(ja.data.load("squares", "test")) == 2


@pytest.mark.parametrize("limit", [None, 2])
def test_images_come_back_as_they_are_stored(tmp_path, limit):
    image = pytest.importorskip("PIL.Image")
    expected, files = pixels(3, 8, 8, 3), []
    for each in expected:
        stream = io.BytesIO()
        image.fromarray(each).save(stream, "PNG")
        files.append(stream.getvalue())
    packed.write(tmp_path / "color.npz", {"test": (files, np.arange(3))}, ("x", "y", "z"))
    read = packed.read(tmp_path / "color.npz", "test", limit)
    np.testing.assert_array_equal(read.pixels, expected[:limit])
    np.testing.assert_array_equal(read.label, np.arange(3)[:limit])


def test_files_that_are_none_and_splits_that_are_not_there_are_named(squares):
    directory, _ = squares
    with pytest.raises(ValueError, match=r"'train\[:2\]' is not in .*squares\.npz, which has test and train"):
        ja.data.load("squares", "train[:2]", directory)
    whole = (directory / "squares.npz").read_bytes()
    for content in (b"", whole[: len(whole) // 2], whole[:60] + b"?" * 30 + whole[90:]):
        (directory / "damaged.npz").write_bytes(content)
        with pytest.raises(ValueError, match=r"damaged\.npz is damaged"):
            ja.data.load("damaged", "test", directory)
    np.savez(directory / "other.npz", weights=np.zeros(3))
    with pytest.raises(ValueError, match=r"other\.npz holds no packed data set"):
        ja.data.load("other", "test", directory)


def test_prepared_images_are_packed_as_they_are_stored(tmp_path):
    try:
        files, label = ja.data.encoded("cifar10_jpeg", "test", limit=3)
    except FileNotFoundError as error:
        pytest.skip(f"{str(error).splitlines()[0]} Set TFDS_DATA_DIR to run this test.")
    packed.write(tmp_path / "cifar10_jpeg.npz", {"test": (files, label)}, tuple("abcdefghij"))
    expected = ja.data.load("cifar10_jpeg", "test", limit=3)
    found = ja.data.load("cifar10_jpeg", "test", tmp_path)
    np.testing.assert_array_equal(found.x, expected.x)
    np.testing.assert_array_equal(found.label, expected.label)
