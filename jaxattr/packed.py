"""Pack data sets into one file each, for machines without the packages that read prepared ones.

A file ``NAME.npz`` holds ``class_names`` and, for each split, ``SPLIT_label`` and either ``SPLIT_x``, the pixels as
bytes, or ``SPLIT_jpeg`` and ``SPLIT_ends``, the images as they are stored, one after the other, and where each ends.
Reading one needs NumPy, and Pillow for the latter. ``python -m experiments pack-data`` writes them.
"""

import io
import os
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np


class Split(NamedTuple):
    """A split in a file: pixels (n, h, w, c) of 0 to 255, labels (n,), and a word per class."""

    pixels: np.ndarray
    label: np.ndarray
    class_names: tuple[str, ...]


def find(name: str, directory: str | os.PathLike | None) -> Path | None:
    """Return the packed file of a data set in a directory, if there is one.

    Example:
      >>> find("mnist", "/nowhere") is None
      True
    """
    path = None if directory is None else Path(directory).expanduser() / f"{name}.npz"
    return path if path is not None and path.is_file() else None


def read(path: Path, split: str, limit: int | None = None) -> Split:
    """Read a split of a packed file.

    Args:
      path: the file.
      split: ``"train"`` or ``"test"``.
      limit: no more than the first so many samples.

    Raises:
      ValueError: if there is no such split, or the file is damaged or no packed data set; the message names it.
    """
    try:
        # Open the file here: NumPy leaves a file open that is no archive.
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as arrays:
            there = sorted(name.removesuffix("_label") for name in arrays if name.endswith("_label"))
            if there and split not in there:
                raise LookupError(f"the split {split!r} is not in {path}, which has {' and '.join(there)}.")
            label, names = arrays[f"{split}_label"][:limit], arrays["class_names"]
            pixels = arrays[f"{split}_x"][:limit] if f"{split}_x" in arrays else _decoded(arrays, split, len(label))
    except LookupError as error:
        if isinstance(error, KeyError):
            raise ValueError(f"{path} holds no packed data set ({error}); pack it again.") from error
        raise ValueError(str(error)) from None
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path} is damaged ({error!r}); pack it again.") from error
    if pixels.ndim != 4 or pixels.dtype != np.uint8 or len(pixels) != len(label):
        raise ValueError(f"{path} holds {split} images {pixels.shape} {pixels.dtype} and labels {label.shape}.")
    return Split(pixels, label.astype(np.int32), tuple(str(word) for word in names))


def write(path: Path, splits: dict[str, tuple[Any, np.ndarray]], class_names: tuple[str, ...]) -> None:
    """Write a packed file, in one step.

    Args:
      path: ``DIRECTORY/NAME.npz``.
      splits: of each its images, as an array of bytes (n, h, w, c) or as a list of encoded ones, and its labels.
      class_names: one word per class.

    Example:
      >>> import tempfile
      >>> path = Path(tempfile.mkdtemp()) / "squares.npz"
      >>> write(path, {"test": (np.full((2, 3, 3, 1), 7, np.uint8), np.array([1, 0]))}, ("no", "yes"))
      >>> read(path, "test", limit=1).pixels.shape, read(path, "test").label.tolist()
      ((1, 3, 3, 1), [1, 0])
    """
    arrays: dict[str, np.ndarray] = {"class_names": np.array(class_names)}
    for split, (images, label) in splits.items():
        arrays[f"{split}_label"] = np.asarray(label, np.uint8 if np.max(label) < 256 else np.int32)
        if isinstance(images, np.ndarray):
            arrays[f"{split}_x"] = images
        else:
            arrays[f"{split}_jpeg"] = np.frombuffer(b"".join(images), np.uint8)
            arrays[f"{split}_ends"] = np.cumsum([len(image) for image in images])
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        # Write an npz as NumPy reads it, compressed by more than NumPy's own writer does: a seventh less of
        # Fashion-MNIST.
        with zipfile.ZipFile(draft, "w", zipfile.ZIP_LZMA) as archive:
            for name, array in arrays.items():
                with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                    np.lib.format.write_array(member, array, allow_pickle=False)
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def _decoded(arrays: Any, split: str, count: int) -> np.ndarray:
    from PIL import Image  # noqa: PLC0415  (optional)

    content, ends = arrays[f"{split}_jpeg"].tobytes(), arrays[f"{split}_ends"][:count]
    starts = np.concatenate([[0], ends[:-1]])
    images = (Image.open(io.BytesIO(content[a:b])) for a, b in zip(starts, ends, strict=True))
    return np.stack([np.asarray(image.convert("RGB")) for image in images])
