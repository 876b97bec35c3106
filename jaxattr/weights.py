"""Store variables of networks in files that hold arrays only: reading one runs no code."""

import os
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from jaxattr._files import write_atomic


def save_variables(path: str | os.PathLike, variables: Mapping[str, Any], *, overwrite: bool = False) -> None:
    """Write weights as a compressed NumPy archive, one array per leaf, named by its path of keys.

    The format holds arrays only: reading it runs no code.

    Args:
      path: ends in ``.npz``.
      variables: nested dictionaries of arrays, as in ``{"params": {"Dense_0": {"kernel": ...}}}``.
      overwrite: replace a file of this name.

    Raises:
      FileExistsError: if there is such a file and ``overwrite`` is False.
      TypeError: if a leaf is not a real or boolean array, or has a dtype that NumPy lacks (cast
        bfloat16 first).
      ValueError: if the path has another suffix, or a key is not a string without a slash.

    Example:
      >>> import tempfile
      >>> path = Path(tempfile.mkdtemp()) / "weights.npz"
      >>> save_variables(path, {"params": {"Dense_0": {"bias": np.zeros(2, np.float32)}}})
      >>> np.load(path).files
      ['params/Dense_0/bias']
    """
    path = _npz(path)
    if path.exists() and not overwrite:
        raise FileExistsError(f"{path} exists; pass overwrite=True to replace it, or choose another name.")
    leaves = {}
    for keys, leaf in flatten_dict(dict(variables)).items():
        if not all(isinstance(key, str) and key and "/" not in key for key in keys):
            raise ValueError(f"keys have to be non-empty strings without a slash, got {keys}.")
        array = np.asarray(leaf)
        if array.dtype.kind not in "fiub":
            raise TypeError(f"{'/'.join(keys)} has dtype {array.dtype}, which .npz files cannot hold.")
        leaves["/".join(keys)] = array

    def write(temporary: Path) -> None:
        # Given a name, NumPy would add a suffix to it.
        with temporary.open("wb") as file:
            np.savez_compressed(file, **leaves)

    write_atomic(path, write)


def load_variables(path: str | os.PathLike) -> dict[str, Any]:
    """Read weights written by :func:`save_variables`, as nested dictionaries of NumPy arrays.

    Raises:
      FileNotFoundError: if there is no such file.
      ValueError: if it is damaged or not an archive of arrays.
    """
    path = _npz(path)
    with path.open("rb") as file:
        # NumPy would try anything but a zip archive as a single array, or as a pickle.
        if not zipfile.is_zipfile(file):
            raise ValueError(f"{path} is damaged, or no archive of arrays.")
        file.seek(0)
        try:
            with np.load(file, allow_pickle=False) as archive:
                leaves = {tuple(name.split("/")): archive[name] for name in archive.files}
            return unflatten_dict(leaves)
        # Damage shows as nearly any type of exception, depending on the byte.
        except Exception as error:
            raise ValueError(f"{path} is damaged, or no archive of arrays: {error}") from error


def _npz(path: str | os.PathLike) -> Path:
    path = Path(path)
    if path.suffix != ".npz":
        raise ValueError(f"weights are stored in .npz files, got {path.name!r}.")
    return path
