"""Read weights that PyTorch has saved, without PyTorch and without running code of the file.

A ``.pth`` file is a pickle, and a pickle is a program: it may call any function of any installed package. Tensors need
four: an ordered dictionary, the types of storages, and the functions that build a tensor or a parameter. The reader
knows these names and no others, and none of them is PyTorch's own; it replaces everything else that the file names
(options of a command line beside the weights, say) by an object that does nothing.
"""

import importlib.util
import logging
import os
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import IO, Any, NamedTuple

import jax.numpy as jnp
import numpy as np

logger = logging.getLogger(__name__)

# This number is the first pickle in a file of the format that PyTorch wrote by default up to version 1.5.
_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C

_STORAGES = {
    "DoubleStorage": "<f8",
    "FloatStorage": "<f4",
    "HalfStorage": "<f2",
    "BFloat16Storage": "bfloat16",
    "LongStorage": "<i8",
    "IntStorage": "<i4",
    "ShortStorage": "<i2",
    "CharStorage": "|i1",
    "ByteStorage": "|u1",
    "BoolStorage": "|b1",
}
# Training scripts save the weights under one of these names, among other entries.
_USUAL = ("state_dict", "model_state_dict", "model")
# Wrappers of a network, for many devices or for compiling, put these prefixes before every name.
_WRAPPERS = ("module.", "_orig_mod.")


class _Storage(NamedTuple):
    dtype: str
    key: str
    size: int


class _Tensor(NamedTuple):
    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class _Foreign:
    """A placeholder for all that a tensor does not need: it accepts what a pickle does to objects, and does nothing."""

    asks_for = ""

    def __new__(cls, *_: Any, **__: Any) -> "_Foreign":
        return super().__new__(cls)

    def _nothing(self, *_: Any) -> None:
        pass

    __init__ = __setstate__ = __setitem__ = append = extend = add = _nothing  # pyright: ignore[reportAssignmentType]

    @classmethod
    def of(cls, name: str) -> type["_Foreign"]:
        return type("_Foreign", (cls,), {"asks_for": name})


class _Unpickler(pickle.Unpickler):
    """An unpickler that admits the parts of tensors only; the numbers themselves are read afterwards."""

    def __init__(self, file: Any):
        super().__init__(file)
        self.storages: dict[str, _Storage] = {}

    def find_class(self, module_name: str, global_name: str, /) -> Any:
        # Storage types become strings, and functions are made anew for every file: a pickle can also set attributes,
        # and must find nothing here that outlives it.
        if module_name == "torch" and global_name in _STORAGES:
            return _STORAGES[global_name]
        foreign = _Foreign.of(f"{module_name}.{global_name}")

        def rebuild(storage: Any, offset: int, shape: Any, strides: Any, *_: Any) -> Any:
            return storage if isinstance(storage, _Foreign) else _Tensor(storage, offset, shape, strides)

        known: dict[tuple[str, str], Callable[..., Any]] = {
            ("collections", "OrderedDict"): OrderedDict,
            ("torch._utils", "_rebuild_tensor_v2"): rebuild,
            ("torch._utils", "_rebuild_parameter"): lambda tensor, *_: tensor,
        }
        return known.get((module_name, global_name), foreign)

    def persistent_load(self, pid: Any, /) -> Any:
        # A whole module in the older format consists of a class and its source code.
        if pid[0] == "module":
            return pid[1]
        kind, dtype, key, _, size, *view = pid
        if isinstance(dtype, type) and issubclass(dtype, _Foreign):
            return dtype()
        if kind != "storage" or dtype not in _STORAGES.values() or (view and view[0] is not None):
            raise pickle.UnpicklingError(f"it refers to {pid!r}, which is no storage of numbers")
        self.storages[str(key)] = _Storage(str(dtype), str(key), int(size))
        return self.storages[str(key)]


def read_state_dict(path: str | os.PathLike, entry: str | None = None) -> dict[str, np.ndarray]:
    """Read the weights in a file of PyTorch, ``.pth`` or ``.pt`` of either format, or in a ``.safetensors`` file.

    The file is a state dictionary (``torch.save(module.state_dict(), path)``) or what a training script saves: a
    dictionary with a state dictionary in it, beside the optimizer's state and the number of the epoch. A warning lists
    what is left out. Numbers in bfloat16, which NumPy lacks, become float32. The prefixes ``module.`` and
    ``_orig_mod.`` of wrapped networks are taken off.

    Nothing in the file is run. Objects of other kinds beside the weights are left out; a file whose weights need more
    than tensors and their storages is refused.

    Args:
      path: of the file.
      entry: the name of the state dictionary in the file, where it has several. By default ``state_dict``,
        ``model_state_dict`` or ``model``, or the only one there is.

    Returns:
      The tensors by name, in the order of the file; each is an array of its own.

    Raises:
      FileNotFoundError: if there is no such file.
      ImportError: if the file is of the format safetensors and the package of this name is not installed.
      ValueError: if the file holds no state dictionary, or several of which none is chosen.

    Example:
      >>> import pathlib, pickle, tempfile
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     path = pathlib.Path(folder, "evil.pth")
      ...     _ = path.write_bytes(pickle.dumps(print))
      ...     read_state_dict(path)
      Traceback (most recent call last):
      ValueError: ...evil.pth is not read: it asks for builtins.print, which a tensor does not need. ...
    """
    with open(path, "rb") as file:
        # The file begins with the length of a header, and the header.
        safe = file.read(9)[8:] == b"{"
    if safe and importlib.util.find_spec("safetensors") is None:
        raise ImportError(f"{os.fspath(path)} needs the package safetensors: pip install 'jaxattr[torch]'")
    try:
        with open(path, "rb") as file:
            if safe:
                found, left_out = _read_safetensors(path, entry)
            else:
                found, left_out = (_read_zip if zipfile.is_zipfile(file) else _read_legacy)(file, entry)
    # A file that is damaged, or made to do damage, can fail in any way.
    except Exception as error:
        raise ValueError(
            f"{os.fspath(path)} is not read: {str(error) or type(error).__name__}. Accepted are state dictionaries "
            "(names to tensors), alone or in a dictionary of other things, as `torch.save(module.state_dict(), path)` "
            "writes them, and .safetensors files; save one from where the file can be trusted."
        ) from error
    if left_out:
        logger.warning("%s: left out are %s", os.fspath(path), ", ".join(left_out))
    return _unwrapped(found)


def _read_safetensors(path: str | os.PathLike, entry: str | None) -> tuple[dict[str, np.ndarray], list[str]]:
    from safetensors.numpy import load_file  # noqa: PLC0415  (an option)

    if entry is not None:
        raise ValueError(f"it is a .safetensors file, which has no entry {entry!r}: all of it is one state dictionary")
    return {name: _known_to_numpy(array) for name, array in load_file(path).items()}, []


def _read_zip(file: IO[bytes], entry: str | None) -> tuple[dict[str, np.ndarray], list[str]]:
    with zipfile.ZipFile(file) as archive:
        pickles = [name for name in archive.namelist() if name.endswith("/data.pkl")]
        if len(pickles) != 1:
            raise ValueError(f"it is a zip file with {len(pickles)} entries */data.pkl instead of one")
        root = pickles[0].removesuffix("data.pkl")
        if f"{root}byteorder" in archive.namelist() and archive.read(f"{root}byteorder") != b"little":
            raise ValueError("its numbers are big-endian")
        with archive.open(pickles[0]) as content:
            tensors, left_out = _named_tensors(_Unpickler(content).load(), entry)
        return _arrays(tensors, lambda storage: archive.read(f"{root}data/{storage.key}")), left_out


def _read_legacy(file: IO[bytes], entry: str | None) -> tuple[dict[str, np.ndarray], list[str]]:
    """Read five pickles (magic number, version, sizes of C types, tensors, keys of storages) and the storages."""
    file.seek(0)
    magic = _Unpickler(file).load()
    if magic != _LEGACY_MAGIC:
        _named_tensors(magic, entry)  # raises the error of a plain pickle, which names its content
        raise ValueError("it does not begin as a file of PyTorch does")
    version, system = _Unpickler(file).load(), _Unpickler(file).load()
    if version != 1001 or not system["little_endian"]:
        raise ValueError(f"its version is {version!r} on {system!r}, and not 1001 with little-endian numbers")
    unpickler = _Unpickler(file)
    tensors, left_out = _named_tensors(unpickler.load(), entry)
    contents = {}
    for key in _Unpickler(file).load():
        count = int.from_bytes(file.read(8), "little", signed=True)
        contents[key] = file.read(max(count, 0) * jnp.dtype(unpickler.storages[key].dtype).itemsize)
    return _arrays(tensors, lambda storage: contents[storage.key]), left_out


def _named_tensors(found: Any, entry: str | None) -> tuple[dict[str, _Tensor], list[str]]:
    """Choose the state dictionary, and list what is left out, by name and kind."""
    _require_dictionary(found)
    left_out = []
    # A state dictionary has no dictionaries in it; a checkpoint can have tensors beside it.
    inner = {name: value for name, value in found.items() if isinstance(value, dict) and _has_tensors(value)}
    if entry is not None or inner or not _has_tensors(found):
        usual = [name for name in _USUAL if name in inner]
        if entry is None and (usual or len(inner) == 1):
            entry = usual[0] if usual else next(iter(inner))
        if entry not in inner:
            names = ", ".join(repr(name) for name in inner) or "none"
            asks_for = sorted({value.asks_for for value in found.values() if isinstance(value, _Foreign)})
            raise ValueError(
                f"it asks for {asks_for[0]}, which a tensor does not need"
                if asks_for and not inner
                else f"of its entries {_listed(found)} these are dictionaries of tensors: {names}"
                f"{'; choose one by `entry`' if inner else ''}"
            )
        left_out = [f"{name!r} ({_kind(value)})" for name, value in found.items() if name != entry]
        found = inner[entry]
    for name, value in found.items():
        if isinstance(value, _Foreign):
            raise ValueError(f"its entry {name!r} is no plain tensor: it asks for {value.asks_for}")
        if not isinstance(name, str):
            raise ValueError(f"its entry {name!r} is of type {type(name).__name__} and not a name")
    left_out += [f"{name!r} ({_kind(value)})" for name, value in found.items() if not isinstance(value, _Tensor)]
    return {name: value for name, value in found.items() if isinstance(value, _Tensor)}, left_out


def _require_dictionary(found: Any) -> None:
    if isinstance(found, _Foreign) or (isinstance(found, type) and issubclass(found, _Foreign)):
        raise ValueError(f"it asks for {found.asks_for}, which a tensor does not need")
    if not isinstance(found, dict):
        raise ValueError(f"it holds {_kind(found)} and not a dictionary of tensors")


def _has_tensors(found: Mapping[Any, Any]) -> bool:
    return any(isinstance(value, _Tensor) for value in found.values())


def _listed(found: Mapping[Any, Any]) -> str:
    names = [f"{name!r} ({_kind(value)})" for name, value in found.items()]
    return f"{', '.join(names[:8]) or '(none)'}{', ...' if len(names) > 8 else ''}"


def _kind(value: Any) -> str:
    if isinstance(value, _Foreign):
        return value.asks_for
    return "a tensor" if isinstance(value, _Tensor) else type(value).__name__


def _unwrapped(found: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    for prefix in _WRAPPERS:
        if found and all(name.startswith(prefix) for name in found):
            logger.info("the prefix %r of all names is taken off", prefix)
            return _unwrapped({name.removeprefix(prefix): array for name, array in found.items()})
    return found


def _arrays(tensors: Mapping[str, _Tensor], read: Callable[[_Storage], bytes]) -> dict[str, np.ndarray]:
    return {name: _array(name, tensor, read(tensor.storage)) for name, tensor in tensors.items()}


def _array(name: str, tensor: _Tensor, content: bytes) -> np.ndarray:
    (dtype, _, size), offset, shape, strides = tensor
    numbers = np.frombuffer(content, jnp.dtype(dtype))
    # Strides beyond the storage would show other memory of this process.
    last = offset + sum((length - 1) * stride for length, stride in zip(shape, strides, strict=True))
    lowest = min((offset, *shape, *strides))
    if numbers.size != size or lowest < 0 or (0 not in shape and last >= size) or np.prod(shape, dtype=object) > size:
        raise ValueError(f"the tensor {name!r} of shape {shape} does not fit into its {numbers.size} numbers")
    steps = [stride * numbers.itemsize for stride in strides]
    return _known_to_numpy(np.lib.stride_tricks.as_strided(numbers[offset:], shape, steps).copy())


def _known_to_numpy(array: np.ndarray) -> np.ndarray:
    """Return the array, in float32 where its dtype (bfloat16 and shorter ones) is not one of NumPy's own."""
    return array if array.dtype.kind in "fiubc" else array.astype(np.float32)
