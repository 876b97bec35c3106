"""Labeled data sets as arrays, prepared by TensorFlow Datasets (TFDS) and read without TensorFlow.

This is the only file that names TFDS. Nothing here touches a network, except ``download=True``.
"""

import importlib.util
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from jaxattr import packed

SPLITS = ("train", "test")
PREPARED = ("cifar10", "cifar10_jpeg", "fashion_mnist", "mnist", "oxford_flowers12")
"""Data sets of images that are read from a directory prepared by TFDS."""

NAMES = ("digits", *PREPARED)
"""Everything that :func:`load` knows."""

# Not in the catalog of TFDS: a directory of them has to come from elsewhere.
_NOT_IN_CATALOG = ("cifar10_jpeg", "oxford_flowers12")
_DIGITS_TRAIN = 1437
_DECODED_AT_ONCE = 1000


@dataclass(frozen=True, eq=False)
class Dataset:
    """Samples and labels on the host.

    Args:
      x: inputs in [0, 1], ``(n, height, width, channels)``, float32.
      label: class indices, ``(n,)``, int32.
      num_classes: number of classes.
      name: of the data set and its split, for tables.
      class_names: one word per class.
    """

    x: Float[np.ndarray, "n h w c"]
    label: Int[np.ndarray, "n"]
    num_classes: int
    name: str
    class_names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: slice | Sequence[int] | np.ndarray) -> "Dataset":
        """Select samples by a slice, indices or a mask; the result is a data set again."""
        if isinstance(index, int | np.integer):
            raise TypeError(f"index with a slice or with indices, not {index}; `.x[{index}]` is one sample.")
        return replace(self, x=self.x[index], label=self.label[index])

    def take(self, n: int) -> "Dataset":
        """Return the first ``n`` samples (all, where there are fewer)."""
        return self[:n]


def load(
    name: str,
    split: str = "train",
    data_dir: str | os.PathLike | None = None,
    limit: int | None = None,
    *,
    download: bool = False,
) -> Dataset:
    """Load a split of a data set into memory.

    ``digits`` comes with scikit-learn and needs no file: 1,797 scans of 8 x 8 pixels, of which the
    first 1,437 are ``train`` and the last 360 ``test``. They are in the order of their 13 writers
    and are not shuffled: a random split would put digits of every writer on both sides, and the
    test accuracy would no longer be that of new handwriting. (At most the one writer at the cut is
    on both sides.)

    Args:
      name: one of :data:`NAMES`.
      split: ``"train"`` or ``"test"``.
      data_dir: where TFDS has prepared its data; default: the environment variable
        ``TFDS_DATA_DIR``, then TFDS's own default, ``~/tensorflow_datasets``. A file ``NAME.npz`` in
        it, as ``python -m experiments pack-data`` writes them, is read first, without TFDS.
      limit: read no more than the first ``limit`` samples. The order is that of the prepared files,
        and the same data set prepared elsewhere can have another.
      download: let TFDS fetch and prepare what is missing (needs TensorFlow and a network).

    Returns:
      The samples, scaled to [0, 1], in a fixed order.

    Raises:
      ValueError: for an unknown name, split or limit.
      FileNotFoundError: if the data set is not prepared in ``data_dir``.
      ImportError: if a package that reads the data is missing.

    Example:
      >>> digits = load("digits", "test")
      >>> digits.x.shape, digits.label[:5].tolist(), len(digits.take(10))
      ((360, 8, 8, 1), [2, 3, 4, 5, 6], 10)
    """
    if name not in NAMES:
        raise ValueError(f"unknown data set {name!r}; known are {', '.join(NAMES)}.")
    if split not in SPLITS:
        raise ValueError(f"unknown split {split!r}; {name} has {' and '.join(SPLITS)}.")
    if limit is not None and limit < 1:
        raise ValueError(f"`limit` is {limit}; give a positive number, or None for all samples.")
    file = None if name == "digits" else packed.find(name, data_dir or os.environ.get("TFDS_DATA_DIR"))
    if file is not None:
        return _packed(file, split, limit)
    data = _digits(split) if name == "digits" else _prepared(name, split, data_dir, limit, download)
    return data if limit is None else data.take(limit)


def _digits(split: str) -> Dataset:
    _require("sklearn")
    from sklearn.datasets import load_digits  # noqa: PLC0415  (optional)

    source: Any = load_digits()
    part = slice(_DIGITS_TRAIN) if split == "train" else slice(_DIGITS_TRAIN, None)
    return Dataset(
        # Gray levels are counts of dark pixels in blocks of 4 x 4: 0 to 16.
        x=(source.images[part, ..., None] / 16).astype(np.float32),
        label=source.target[part].astype(np.int32),
        num_classes=10,
        name=f"digits/{split}",
        class_names=tuple(str(label) for label in source.target_names),
    )


def _packed(file: Path, split: str, limit: int | None) -> Dataset:
    """A split of a packed file, which has the images and the order of the data set that it was made of."""
    pixels, label, names = packed.read(file, split, limit)
    return Dataset(pixels.astype(np.float32) / 255, label, len(names), f"{file.stem}/{split}", names)


def encoded(
    name: str, split: str, data_dir: str | os.PathLike | None = None, limit: int | None = None
) -> tuple[list[bytes], Int[np.ndarray, "n"]]:
    """Read the images of a prepared data set as they are stored, which JPEG loses nothing of, and their labels.

    Args:
      name: one of :data:`PREPARED`.
      split: ``"train"`` or ``"test"``.
      data_dir: as in :func:`load`, not packed.
      limit: no more than the first so many samples.

    Raises:
      FileNotFoundError: if the data set is not prepared in ``data_dir``.
    """
    _require("array_record", "PIL")
    import tensorflow_datasets as tfds  # noqa: PLC0415  (slow to import, needed by few)

    root = Path(data_dir or os.environ.get("TFDS_DATA_DIR") or Path.home() / "tensorflow_datasets").expanduser()
    directory = _version_directory(root / name)
    if directory is None:
        raise FileNotFoundError(_advice(name, root))
    builder: Any = tfds.builder_from_directory(directory)
    source = builder.as_data_source(split=split, decoders={"image": tfds.decode.SkipDecoding()})
    found = source.__getitems__(range(len(source) if limit is None else min(limit, len(source))))
    return [example["image"] for example in found], np.asarray([example["label"] for example in found], np.int32)


def _prepared(name: str, split: str, data_dir: str | os.PathLike | None, limit: int | None, download: bool) -> Dataset:
    _require("array_record", "PIL")
    import tensorflow_datasets as tfds  # noqa: PLC0415  (slow to import, needed by few)

    root = Path(data_dir or os.environ.get("TFDS_DATA_DIR") or Path.home() / "tensorflow_datasets").expanduser()
    directory = _version_directory(root / name)
    if directory is None and download and name not in _NOT_IN_CATALOG:
        tfds.builder(name, data_dir=root, file_format="array_record").download_and_prepare()
        directory = _version_directory(root / name)
    if directory is None:
        raise FileNotFoundError(_advice(name, root))
    builder: Any = tfds.builder_from_directory(directory)
    if builder.info.file_format != tfds.core.FileFormat.ARRAY_RECORD:
        raise ValueError(
            f"{directory} holds {builder.info.file_format.value} files, which need TensorFlow to "
            "be read; prepare it with file_format='array_record'."
        )
    source = builder.as_data_source(split=split)
    n = len(source) if limit is None else min(limit, len(source))
    images, labels = [], []
    for start in range(0, n, _DECODED_AT_ONCE):
        batch = source.__getitems__(range(start, min(start + _DECODED_AT_ONCE, n)))
        images.append(np.stack([example["image"] for example in batch]))
        labels.extend(example["label"] for example in batch)
    classes = builder.info.features["label"]
    return Dataset(
        x=np.concatenate(images).astype(np.float32) / 255,
        label=np.asarray(labels, np.int32),
        num_classes=classes.num_classes,
        name=f"{name}/{split}",
        class_names=tuple(classes.names),
    )


def _version_directory(parent: Path) -> Path | None:
    """Find the newest version that TFDS has finished: it writes dataset_info.json last."""
    found = [info.parent for info in parent.glob("*.*.*/dataset_info.json")]
    return max(found, key=lambda path: tuple(map(int, path.name.split("."))), default=None)


def _advice(name: str, root: Path) -> str:
    lines = [
        f"the data set {name!r} is not prepared: no {root / name}/VERSION/dataset_info.json.",
        "If it is elsewhere, set the environment variable TFDS_DATA_DIR (or pass `data_dir=`, or "
        f"--data-dir on the command line) to the folder that has {name}/ in it.",
    ]
    if name in _NOT_IN_CATALOG:
        lines.append("It is not in the catalog of TFDS, so it cannot be downloaded from here.")
    else:
        lines.append(
            "Otherwise call load(..., download=True) once, with the packages tensorflow and "
            "importlib_resources installed (TFDS needs them to prepare data, not to read it)."
        )
    return "\n".join(lines)


def _require(*packages: str) -> None:
    missing = [package for package in packages if importlib.util.find_spec(package) is None]
    if missing:
        raise ImportError(f"reading this data set needs {' and '.join(missing)}: pip install 'jaxattr[data]'")
