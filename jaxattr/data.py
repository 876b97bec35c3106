"""Load labeled data sets as arrays, prepared by TensorFlow Datasets (TFDS) and read without TensorFlow.

This is the only file that names TFDS. Nothing here touches a network, except ``download=True``.
"""

import importlib.util
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from jaxattr import packed

_DIGITS = ("train", "test")
_DIGITS_TRAIN = 1437
_DECODED_AT_ONCE = 1000


@dataclass(frozen=True, eq=False)
class Dataset:
    """Samples and labels on the host.

    Args:
      x: inputs, ``(n, *shape)``; images are ``(n, height, width, channels)`` in [0, 1].
      label: class indices, ``(n,)``.
      num_classes: number of classes.
      name: of the data set and its split, for tables.
      class_names: one word per class.
      boxes: where the object is in each image, ``(n, 4)``: ymin, xmin, ymax, xmax as fractions of height and width;
        ``None`` where that is not known.

    Raises:
      TypeError: if inputs are not floating-point numbers, or labels not integers.
      ValueError: if there is not one label (and box) per sample, or a label without a class.
    """

    x: Float[np.ndarray, "n *shape"]
    label: Int[np.ndarray, "n"]
    num_classes: int
    name: str
    class_names: tuple[str, ...]
    boxes: Float[np.ndarray, "n 4"] | None = None

    def __post_init__(self):
        if self.x.dtype.kind != "f":
            raise TypeError(
                f"`x` must hold floating-point numbers, got {self.x.dtype}; images: x.astype('float32') / 255."
            )
        if self.label.dtype.kind not in "iu":
            raise TypeError(f"`label` must hold integers, got {self.label.dtype}.")
        n = len(self.x)
        if self.label.shape != (n,) or (self.boxes is not None and self.boxes.shape != (n, 4)):
            boxes = "" if self.boxes is None else f" and boxes {self.boxes.shape} (one of 4 numbers each)"
            raise ValueError(
                f"the {n} samples of `x` need one label each, got labels of shape {self.label.shape}{boxes}."
            )
        wrong = np.unique(self.label[(self.label < 0) | (self.label >= self.num_classes)])
        if wrong.size:
            raise ValueError(f"`label` must be between 0 and {self.num_classes - 1}, got {wrong[:5].tolist()}.")

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: slice | Sequence[int] | np.ndarray) -> "Dataset":
        """Select samples by a slice, indices or a mask; the result is a data set again."""
        if isinstance(index, int | np.integer):
            raise TypeError(f"index with a slice or with indices, not {index}; `.x[{index}]` is one sample.")
        boxes = None if self.boxes is None else self.boxes[index]
        return replace(self, x=self.x[index], label=self.label[index], boxes=boxes)

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

    Every other name is that of a data set for classification which TFDS has prepared: images or vectors of features,
    and one class each. Images become numbers in [0, 1], vectors stay as they are, as float32. The box around the
    object, where the data set has one, is kept.

    Args:
      name: ``"digits"``, or a name of TFDS: ``"mnist"``, ``"imagenette/160px"``, ``"mnist:3.0.1"``; by default the
        newest version is read.
      split: a split, or an expression of splits as TFDS takes it, such as ``"train[:90%]"`` or ``"train+test"``.
      data_dir: where TFDS has prepared its data; default: the environment variable
        ``TFDS_DATA_DIR``, then TFDS's own default, ``~/tensorflow_datasets``. A file ``NAME.npz`` in
        it, as ``python -m experiments pack-data`` writes them, is read first, without TFDS.
      limit: read no more than the first ``limit`` samples. The order is that of the prepared files,
        and the same data set prepared elsewhere can have another.
      download: let TFDS fetch and prepare what is missing (needs TensorFlow and a network).

    Returns:
      The samples in a fixed order.

    Raises:
      ValueError: for an unknown split, a limit below one, or a data set of another kind.
      FileNotFoundError: if the data set is not prepared in ``data_dir``.
      ImportError: if a package that reads the data is missing.

    Example:
      >>> digits = load("digits", "test")
      >>> digits.x.shape, digits.label[:5].tolist(), len(digits.take(10))
      ((360, 8, 8, 1), [2, 3, 4, 5, 6], 10)
    """
    if limit is not None and limit < 1:
        raise ValueError(f"`limit` is {limit}; give a positive number, or None for all samples.")
    file = None if name == "digits" else packed.find(name, data_dir or os.environ.get("TFDS_DATA_DIR"))
    if file is not None:
        return _packed(file, split, limit)
    data = _digits(split) if name == "digits" else _prepared(name, split, data_dir, limit, download)
    return data if limit is None else data.take(limit)


def _digits(split: str) -> Dataset:
    if split not in _DIGITS:
        raise ValueError(f"unknown split {split!r}; digits has {' and '.join(_DIGITS)}, of which `[:100]` is a part.")
    _require("sklearn")
    from sklearn.datasets import load_digits  # noqa: PLC0415  (optional)

    source: Any = load_digits()
    part = slice(_DIGITS_TRAIN) if split == "train" else slice(_DIGITS_TRAIN, None)
    return Dataset(
        # Gray levels count dark pixels in blocks of 4 x 4: 0 to 16.
        x=(source.images[part, ..., None] / 16).astype(np.float32),
        label=source.target[part].astype(np.int32),
        num_classes=10,
        name=f"digits/{split}",
        class_names=tuple(str(label) for label in source.target_names),
    )


def _packed(file: Path, split: str, limit: int | None) -> Dataset:
    """Read a split of a packed file, which has the images and the order of the original data set."""
    pixels, label, names = packed.read(file, split, limit)
    return Dataset(pixels.astype(np.float32) / 255, label, len(names), f"{file.stem}/{split}", names)


def encoded(
    name: str, split: str, data_dir: str | os.PathLike | None = None, limit: int | None = None
) -> tuple[list[bytes], Int[np.ndarray, "n"]]:
    """Read the images of a prepared data set as they are stored, in JPEG or PNG, and their labels.

    Args:
      name: as TFDS knows it.
      split: ``"train"`` or ``"test"``, or what else there is.
      data_dir: as in :func:`load`, of data that are prepared, not packed.
      limit: no more than the first so many samples.

    Returns:
      One string of bytes per image, and the classes, int32.

    Raises:
      ValueError: for an unknown split, or a data set of another kind.
      FileNotFoundError: if the data set is not prepared in ``data_dir``.
    """
    _require("tensorflow_datasets", "array_record", "PIL")
    import tensorflow_datasets as tfds  # noqa: PLC0415  (slow to import, needed by few)

    root = Path(data_dir or os.environ.get("TFDS_DATA_DIR") or Path.home() / "tensorflow_datasets").expanduser()
    directory = _version_directory(root, name)
    if directory is None:
        raise FileNotFoundError(f"{_missing(name, root)}\n{_ADVICE}")
    builder: Any = tfds.builder_from_directory(directory)
    inputs, classes = _keys(name, builder.info.supervised_keys, dict(builder.info.features.items()), tfds.features)
    source = _source(name, builder, split, decoders={inputs: tfds.decode.SkipDecoding()})
    found = source.__getitems__(range(len(source) if limit is None else min(limit, len(source))))
    return [example[inputs] for example in found], np.asarray([example[classes] for example in found], np.int32)


def _prepared(name: str, split: str, data_dir: str | os.PathLike | None, limit: int | None, download: bool) -> Dataset:
    _require("tensorflow_datasets", "array_record", "PIL")
    import tensorflow_datasets as tfds  # noqa: PLC0415  (slow to import, needed by few)

    root = Path(data_dir or os.environ.get("TFDS_DATA_DIR") or Path.home() / "tensorflow_datasets").expanduser()
    directory = _version_directory(root, name)
    if directory is None and download:
        try:
            tfds.builder(name, data_dir=root, file_format="array_record").download_and_prepare()
        except tfds.core.DatasetNotFoundError:
            raise FileNotFoundError(f"{_missing(name, root)}\nIt is not in the catalog of TFDS either.") from None
        directory = _version_directory(root, name)
    if directory is None:
        raise FileNotFoundError(f"{_missing(name, root)}\n{_ADVICE}")
    builder: Any = tfds.builder_from_directory(directory)
    if builder.info.file_format != tfds.core.FileFormat.ARRAY_RECORD:
        raise ValueError(
            f"{directory} holds {builder.info.file_format.value} files, which need TensorFlow to "
            "be read; prepare it with file_format='array_record'."
        )
    features = dict(builder.info.features.items())
    inputs, classes = _keys(name, builder.info.supervised_keys, features, tfds.features)
    box = next((key for key, kind in features.items() if isinstance(kind, tfds.features.BBoxFeature)), None)
    columns = _read(name, _source(name, builder, split), [inputs, classes, *([] if box is None else [box])], limit)
    return Dataset(
        x=_numbers(columns[inputs], image=isinstance(features[inputs], tfds.features.Image)),
        label=columns[classes].astype(np.int32),
        num_classes=features[classes].num_classes,
        name=f"{name}/{split}",
        class_names=tuple(features[classes].names),
        boxes=None if box is None else columns[box].astype(np.float32),
    )


def _source(name: str, builder: Any, split: str, **options: Any) -> Any:
    try:
        source = builder.as_data_source(split=split, **options)
    except ValueError as error:
        there = ", ".join(f"{part} ({info.num_examples})" for part, info in builder.info.splits.items())
        raise ValueError(
            f"the split {split!r} of {name} cannot be read ({str(error).splitlines()[0]}). It has {there}; parts of"
            " these are written as 'train[:90%]', 'train[100:200]' or 'train+test'."
        ) from error
    return source


def _keys(name: str, supervised: Any, features: Mapping[str, Any], kinds: Any) -> tuple[str, str]:
    """Return the names of inputs and classes: those that TFDS declares, or else the only possible ones."""
    if not (isinstance(supervised, tuple) and len(supervised) == 2 and all(isinstance(key, str) for key in supervised)):
        arrays = [key for key, kind in features.items() if _is_array(kind, kinds)]
        labels = [key for key, kind in features.items() if isinstance(kind, kinds.ClassLabel)]
        supervised = (arrays[0], labels[0]) if len(arrays) == len(labels) == 1 else (None, None)
    inputs, classes = supervised
    if not (_is_array(features.get(inputs), kinds) and isinstance(features.get(classes), kinds.ClassLabel)):
        listed = ", ".join(f"{key}: {type(kind).__name__}" for key, kind in features.items())
        raise ValueError(
            f"{name} is no data set of single inputs with one class each. Accepted are an image or a vector of numbers"
            f" beside a ClassLabel; its features are {listed}."
        )
    return inputs, classes


def _is_array(kind: Any, kinds: Any) -> bool:
    numeric = getattr(kind, "np_dtype", None) is not None and np.dtype(kind.np_dtype).kind in "fiub"
    # Compare the type itself: classes, boxes and others are kinds of tensors, too.
    return numeric and (isinstance(kind, kinds.Image) or type(kind) is kinds.Tensor)


def _read(name: str, source: Any, keys: list[str], limit: int | None) -> dict[str, np.ndarray]:
    n = len(source) if limit is None else min(limit, len(source))
    parts: dict[str, list[np.ndarray]] = {key: [] for key in keys}
    for start in range(0, n, _DECODED_AT_ONCE):
        batch = source.__getitems__(range(start, min(start + _DECODED_AT_ONCE, n)))
        for key in keys:
            values = [np.asarray(example[key]) for example in batch]
            shapes = sorted({value.shape for value in [*values, *(part[0] for part in parts[key])]})
            if len(shapes) > 1:
                raise ValueError(
                    f"{name} has samples of different shapes, such as {shapes[0]} and {shapes[-1]}, and one array holds"
                    " samples of one shape; prepare a data set with all of one size."
                )
            parts[key].append(np.stack(values))
    return {key: np.concatenate(part) for key, part in parts.items()}


def _numbers(values: np.ndarray, image: bool) -> np.ndarray:
    """Scale integers of images by the largest number of their dtype; features are numbers already."""
    largest = np.iinfo(values.dtype).max if image and values.dtype.kind == "u" else 1
    return values.astype(np.float32) / np.float32(largest)


def _version_directory(root: Path, name: str) -> Path | None:
    """Find the newest finished version, or the one asked for: TFDS writes dataset_info.json last."""
    folder, _, version = name.partition(":")
    found = [info.parent for info in (root / folder).glob(f"{version or '*.*.*'}/dataset_info.json")]
    return max(found, key=lambda path: tuple(map(int, path.name.split("."))), default=None)


def _missing(name: str, root: Path) -> str:
    there = sorted({info.relative_to(root).parts[0] for info in root.glob("*/*.*.*/dataset_info.json")})
    folder, _, version = name.partition(":")
    return (
        f"the data set {name!r} is not prepared: no {root / folder}/{version or 'VERSION'}/dataset_info.json. Prepared"
        f" there: {', '.join(there) or 'nothing'}. (The name 'digits' needs no file.)"
    )


_ADVICE = (
    "If it is elsewhere, set the environment variable TFDS_DATA_DIR (or pass `data_dir=`, or --data-dir on the command"
    " line) to the folder that has it. If it is in the catalog of TFDS, call load(..., download=True) once, with the"
    " packages tensorflow and importlib_resources installed (TFDS needs them to prepare data, not to read it)."
)


def _require(*packages: str) -> None:
    missing = [package for package in packages if importlib.util.find_spec(package) is None]
    if missing:
        raise ImportError(f"reading this data set needs {' and '.join(missing)}: pip install 'jaxattr[data]'")
