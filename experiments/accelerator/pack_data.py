"""``python -m experiments pack-data``: pack prepared data sets into one file each, for machines without TFDS."""

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np

import jaxattr as ja
from jaxattr import packed

log = logging.getLogger(__name__)

ENCODED = ("cifar10_jpeg", "oxford_flowers12")
"""Data sets whose JPEG files are packed as they are, in a quarter of the space of their pixels."""


def pack(
    names: Sequence[str], output: Path, *, data_dir: str | None = None, train_samples: int | None = None
) -> list[Path]:
    """Pack images and their classes, one file a data set; boxes around objects are left out.

    Args:
      names: names of data sets that TFDS has prepared.
      output: a directory, which ``ja.data.load(..., data_dir=output)`` then reads.
      data_dir: directory of data prepared by TFDS.
      train_samples: number of training samples, from the first one; None for all. The test set is always whole.

    Returns:
      The files.

    Raises:
      ValueError: for a data set that is not of images in prepared files.
      FileNotFoundError: if one is not prepared.
      FileExistsError: if a file is there already, which stays as it is; the message names it.
    """
    if "digits" in names:
        raise ValueError("`datasets` has 'digits', which comes with scikit-learn; give names of prepared data sets.")
    files = [output / f"{name}.npz" for name in names]
    there = [str(path) for path in files if path.exists()]
    if there:
        raise FileExistsError(f"{', '.join(there)} exists already; delete it, or choose another `--output`.")
    for name, path in zip(names, files, strict=True):
        splits, classes = {}, ()
        for split, limit in (("train", train_samples), ("test", None)):
            if name in ENCODED:
                splits[split] = ja.data.encoded(name, split, data_dir, limit)
                classes = ja.data.load(name, split, data_dir, limit=1).class_names
            else:
                data = ja.data.load(name, split, data_dir, limit)
                if data.x.ndim != 4:
                    raise ValueError(
                        f"{name} holds vectors of {data.x.shape[1]} features, and images alone are packed."
                    )
                splits[split], classes = (np.round(255 * data.x).astype(np.uint8), data.label), data.class_names
        packed.write(path, splits, classes)
        log.info("%s: %.1f MB", path, path.stat().st_size / 1e6)
    return files
