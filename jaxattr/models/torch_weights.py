"""Weights that PyTorch has saved, read without PyTorch and without running code of the file.

A ``.pth`` file is a pickle, and a pickle is a program: it may call any function of any installed package. A state
dictionary needs four: an ordered dictionary, the types of storages, and what puts a tensor or a parameter together.
The reader knows these names and no others, and none of them is PyTorch's own.
"""

import os
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import IO, Any, NamedTuple

import numpy as np

# The first of the pickles in a file of the format that PyTorch wrote by default up to version 1.5.
_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C

_STORAGES = {
    "DoubleStorage": "<f8",
    "FloatStorage": "<f4",
    "HalfStorage": "<f2",
    "LongStorage": "<i8",
    "IntStorage": "<i4",
    "ShortStorage": "<i2",
    "CharStorage": "|i1",
    "ByteStorage": "|u1",
    "BoolStorage": "|b1",
}


class _Storage(NamedTuple):
    dtype: str
    key: str
    size: int


class _Tensor(NamedTuple):
    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class _Unpickler(pickle.Unpickler):
    """Admits what tensors are made of; the numbers themselves are read afterwards."""

    def find_class(self, module_name: str, global_name: str, /) -> Any:
        # Storage types become strings, and functions are made anew for every file: a pickle can also set attributes,
        # and must find nothing here that outlives it.
        if module_name == "torch" and global_name in _STORAGES:
            return _STORAGES[global_name]
        known: dict[tuple[str, str], Callable[..., Any]] = {
            ("collections", "OrderedDict"): OrderedDict,
            ("torch._utils", "_rebuild_tensor_v2"): lambda storage, offset, shape, strides, *_: _Tensor(
                storage, offset, shape, strides
            ),
            ("torch._utils", "_rebuild_parameter"): lambda tensor, *_: tensor,
        }
        if (module_name, global_name) not in known:
            raise pickle.UnpicklingError(f"it asks for {module_name}.{global_name}, which a tensor does not need")
        return known[module_name, global_name]

    def persistent_load(self, pid: Any, /) -> _Storage:
        kind, dtype, key, _, size, *view = pid
        if kind != "storage" or dtype not in _STORAGES.values() or (view and view[0] is not None):
            raise pickle.UnpicklingError(f"it refers to {pid!r}, which is no storage of numbers")
        return _Storage(dtype, str(key), int(size))


def read_state_dict(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """Read a state dictionary, ``torch.save(module.state_dict(), path)``, of the zip or of the older format.

    Nothing in the file is run: it may name ordered dictionaries, tensors and their storages, and whatever else it
    names is refused. Numbers of the type bfloat16, which NumPy lacks, are refused as well.

    Args:
      path: of the file, ``.pth`` or ``.pt``.

    Returns:
      The tensors by name, in the order of the file; each is an array of its own.

    Raises:
      FileNotFoundError: if there is no such file.
      ValueError: if the file is no state dictionary, or holds anything but tensors.

    Example:
      >>> import pathlib, pickle, tempfile
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     path = pathlib.Path(folder, "evil.pth")
      ...     _ = path.write_bytes(pickle.dumps(print))
      ...     read_state_dict(path)
      Traceback (most recent call last):
      ValueError: ...evil.pth is not read: it asks for builtins.print, which a tensor does not need. ...
    """
    try:
        with open(path, "rb") as file:
            found = _read_zip(path) if zipfile.is_zipfile(file) else _read_legacy(file)
    except FileNotFoundError:
        raise
    # A pickle that is damaged, or made to do damage, can fail in any way.
    except Exception as error:
        raise ValueError(
            f"{os.fspath(path)} is not read: {str(error) or type(error).__name__}. Accepted are state dictionaries "
            "(names to tensors) as `torch.save(module.state_dict(), path)` writes them; save one from where the "
            "file can be trusted."
        ) from error
    return found


def _read_zip(path: str | os.PathLike) -> dict[str, np.ndarray]:
    with zipfile.ZipFile(path) as archive:
        pickles = [name for name in archive.namelist() if name.endswith("/data.pkl")]
        if len(pickles) != 1:
            raise ValueError(f"it is a zip file with {len(pickles)} entries */data.pkl instead of one")
        root = pickles[0].removesuffix("data.pkl")
        if f"{root}byteorder" in archive.namelist() and archive.read(f"{root}byteorder") != b"little":
            raise ValueError("its numbers are big-endian")
        with archive.open(pickles[0]) as file:
            tensors = _named_tensors(_Unpickler(file).load())

        def read(storage: _Storage) -> bytes:
            return archive.read(f"{root}data/{storage.key}")

        return _arrays(tensors, read)


def _read_legacy(file: IO[bytes]) -> dict[str, np.ndarray]:
    """Read five pickles (magic number, version, sizes of C types, tensors, keys of storages) and the storages."""
    file.seek(0)
    if _Unpickler(file).load() != _LEGACY_MAGIC:
        raise ValueError("it does not begin as a file of PyTorch does")
    version, system = _Unpickler(file).load(), _Unpickler(file).load()
    if version != 1001 or not system["little_endian"]:
        raise ValueError(f"its version is {version!r} on {system!r}, and not 1001 with little-endian numbers")
    tensors = _named_tensors(_Unpickler(file).load())
    sizes = {tensor.storage.key: np.dtype(tensor.storage.dtype).itemsize for tensor in tensors.values()}
    contents = {}
    for key in _Unpickler(file).load():
        count = int.from_bytes(file.read(8), "little", signed=True)
        contents[key] = file.read(max(count, 0) * sizes[key])
    return _arrays(tensors, lambda storage: contents[storage.key])


def _named_tensors(found: Any) -> dict[str, _Tensor]:
    if not isinstance(found, dict):
        raise ValueError(f"it holds {type(found).__name__} and not a dictionary of tensors")
    for name, value in found.items():
        if not isinstance(name, str) or not isinstance(value, _Tensor):
            kind = type(value).__name__
            raise ValueError(f"its entry {name!r} is of type {kind} and not a tensor with a name")
    return dict(found)


def _arrays(tensors: Mapping[str, _Tensor], read: Callable[[_Storage], bytes]) -> dict[str, np.ndarray]:
    return {name: _array(name, tensor, read(tensor.storage)) for name, tensor in tensors.items()}


def _array(name: str, tensor: _Tensor, content: bytes) -> np.ndarray:
    (dtype, _, size), offset, shape, strides = tensor
    numbers = np.frombuffer(content, dtype)
    # Strides beyond the storage would show other memory of this process.
    last = offset + sum((length - 1) * stride for length, stride in zip(shape, strides, strict=True))
    lowest = min((offset, *shape, *strides))
    if numbers.size != size or lowest < 0 or (0 not in shape and last >= size) or np.prod(shape, dtype=object) > size:
        raise ValueError(f"the tensor {name!r} of shape {shape} does not fit into its {numbers.size} numbers")
    steps = [stride * numbers.itemsize for stride in strides]
    return np.lib.stride_tricks.as_strided(numbers[offset:], shape, steps).copy()
