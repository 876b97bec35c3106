"""Files as PyTorch writes them, written without it."""

import io
import pickle
import zipfile

import numpy as np

NUMBERS = np.arange(12, dtype=np.float32)


def constant(value):
    """The opcodes that push ``value``."""
    return pickle.dumps(value, 2)[2:-1]


def tensor(shape, strides, offset=0, size=12, kind=b"FloatStorage", legacy=False):
    """The opcodes that PyTorch writes for a tensor in the storage "7"."""
    storage = [constant("storage"), b"ctorch\n" + kind + b"\n", *map(constant, ("7", "cpu", size))]
    arguments = [*map(constant, (offset, shape, strides, False)), b"ccollections\nOrderedDict\n)R"]
    view = [constant(None)] if legacy else []
    return b"".join([b"ctorch._utils\n_rebuild_tensor_v2\n((", *storage, *view, b"tQ", *arguments, b"tR"])


def inner(**entries):
    """The opcodes of an ordered dictionary of what has opcodes already."""
    pairs = b"".join(constant(name) + value for name, value in entries.items())
    return b"ccollections\nOrderedDict\n)R(" + pairs + b"u"


def dictionary(**entries):
    """A whole pickle."""
    return b"\x80\x02" + inner(**entries) + b"."


def in_zip(content, numbers=NUMBERS, byteorder=b"little"):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, data in {"data.pkl": content, "byteorder": byteorder, "data/7": numbers.tobytes()}.items():
            archive.writestr(f"archive/{name}", data)
    return file.getvalue()


def in_legacy(content, numbers=NUMBERS):
    head = (0x1950A86A20F9469CFC6C, 1001, {"protocol_version": 1001, "little_endian": True, "type_sizes": {}})
    tail = pickle.dumps(["7"], 2) + numbers.size.to_bytes(8, "little") + numbers.tobytes()
    return b"".join(pickle.dumps(part, 2) for part in head) + content + tail
