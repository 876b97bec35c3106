"""Files of PyTorch and of safetensors, read without PyTorch and without running their code."""

import os
import pathlib
import pickle
import struct

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save_file
from torch_files import NUMBERS, constant, dictionary, in_legacy, in_zip, inner, tensor

from jaxattr import models

WEIGHT = tensor((12,), (1,))


def read(folder, content, **options):
    path = pathlib.Path(folder, "weights.pth")
    path.write_bytes(content)
    return models.read_state_dict(path, **options)


@pytest.mark.parametrize("legacy", [False, True])
def test_reads_both_formats_with_views_and_transposes(tmp_path, legacy):
    entries = {
        "whole": tensor((3, 4), (4, 1), legacy=legacy),
        "transposed": tensor((4, 3), (1, 4), legacy=legacy),
        "view": tensor((2, 2), (4, 2), offset=5, legacy=legacy),
        "scalar": tensor((), (), offset=11, legacy=legacy),
        "empty": tensor((0, 3), (3, 1), legacy=legacy),
    }
    found = read(tmp_path, (in_legacy if legacy else in_zip)(dictionary(**entries)))
    whole = NUMBERS.reshape(3, 4)
    expected = {
        "whole": whole,
        "transposed": whole.T,
        "view": [[5, 7], [9, 11]],
        "scalar": 11,
        "empty": np.zeros((0, 3)),
    }
    assert list(found) == list(expected)
    for name, values in expected.items():
        np.testing.assert_array_equal(found[name], values)
        assert found[name].dtype == np.float32
        assert found[name].flags.writeable
    integers = NUMBERS.astype(np.int64)
    content = dictionary(count=tensor((12,), (1,), kind=b"LongStorage", legacy=legacy))
    assert read(tmp_path, (in_legacy if legacy else in_zip)(content, integers))["count"].dtype == np.int64


class Malicious:
    def __init__(self, command):
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


def plain(content):
    return content


@pytest.mark.parametrize("wrap", [plain, in_zip, in_legacy])
def test_no_code_of_a_file_is_run(tmp_path, wrap):
    touched = tmp_path / "touched"
    evil = constant(Malicious(f"touch '{touched}'"))
    for content in (b"\x80\x02" + evil + b".", dictionary(weight=evil)):
        with pytest.raises(ValueError, match=r"weights.pth is not read: it asks for (posix|nt).system"):
            read(tmp_path, wrap(content))
    # Beside tensors, where other things are left out: in their dictionary and around it.
    legacy = wrap is in_legacy
    weight = tensor((12,), (1,), legacy=legacy)
    if wrap is not plain:
        with pytest.raises(ValueError, match=r"entry 'evil' is no plain tensor: it asks for (posix|nt).system"):
            read(tmp_path, wrap(dictionary(weight=weight, evil=evil)))
        assert list(read(tmp_path, wrap(dictionary(model=inner(weight=weight), evil=evil)))) == ["weight"]
    assert not touched.exists()
    pickle.loads(b"\x80\x02" + evil + b".")  # the file does what it is feared for, where pickle reads it
    assert touched.exists()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (in_zip(b"\x80\x02cbuiltins\neval\n."), "it asks for builtins.eval"),
        (in_zip(b"\x80\x04\x8c\x0bcollections\x8c\x14OrderedDict.__init__\x93."), "OrderedDict.__init__"),
        (in_zip(dictionary(weight=constant([1.0]))), r"its entries 'weight' \(list\) these are .* tensors: none"),
        (in_zip(dictionary()), r"its entries \(none\) these are"),
        (in_zip(b"\x80\x02" + tensor((12,), (1,)) + b"."), "a tensor and not a dictionary of tensors"),
        (in_zip(dictionary(generator=inner(w=WEIGHT), critic=inner(w=WEIGHT))), "'generator', 'critic'; choose one by"),
        (in_zip(dictionary(w=tensor((12,), (1,), kind=b"QInt8Storage"))), "asks for torch.QInt8Storage"),
        (
            in_zip(dictionary(v=WEIGHT, w=tensor((12,), (1,), kind=b"QInt8Storage"))),
            "'w' is no plain tensor: it asks for",
        ),
        # Strides and offsets that would show what lies beside the numbers.
        (in_zip(dictionary(weight=tensor((12,), (2,)))), r"'weight' of shape \(12,\) does not fit into its 12 numbers"),
        (in_zip(dictionary(weight=tensor((2,), (-1,), offset=3))), "does not fit"),
        (in_zip(dictionary(weight=tensor((2,), (1,), offset=-1))), "does not fit"),
        (in_zip(dictionary(weight=tensor((10**9,), (0,)))), "does not fit"),
        (in_zip(dictionary(weight=tensor((12,), (1,), size=24))), "does not fit"),
        (in_zip(dictionary(), byteorder=b"big"), "big-endian"),
        (in_legacy(dictionary(weight=tensor((12,), (1,), legacy=True)))[:-4], "is not read"),
        (b"hello", "is not read"),
        (b"", "is not read"),
    ],
)
def test_other_files_are_refused(tmp_path, content, reason):
    with pytest.raises(ValueError, match=f"(?s)weights.pth is not read.*{reason}|{reason}.*state dictionaries"):
        read(tmp_path, content)


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("name", ["state_dict", "model_state_dict", "model", "net"])
def test_checkpoints_of_training_give_their_weights_and_say_what_is_left_out(tmp_path, name, legacy, caplog):
    """Optimizers keep tensors too, and scripts their options: a class that is not there."""
    weight, moment = (tensor((12,), (1,), legacy=legacy, offset=0) for _ in range(2))
    slots = b"}(" + constant(0) + b"}(" + constant("exp_avg") + moment + constant("step") + constant(7) + b"uu"
    optimizer = inner(state=slots, param_groups=constant([{"lr": 0.1, "betas": (0.9, 0.99)}]))
    options = b"cnowhere\nNamespace\n)\x81}(" + constant("lr") + constant(0.1) + b"ub"
    entries = {
        "epoch": constant(3),
        "best": tensor((), (), legacy=legacy),
        "arch": constant("resnet18"),
        "optimizer": optimizer,
        "args": options,
    }
    weights = inner(**{"fc.weight": weight, "bn.num_batches_tracked": constant(5), "bn.extra": constant(None)})
    content = dictionary(**entries, **{name: weights})
    found = read(tmp_path, (in_legacy if legacy else in_zip)(content))
    assert list(found) == ["fc.weight"]
    np.testing.assert_array_equal(found["fc.weight"], NUMBERS)
    for part in (
        "'epoch' (int)",
        "'best' (a tensor)",
        "'optimizer' (OrderedDict)",
        "'args' (nowhere.Namespace)",
        "'arch' (str)",
        "'bn.num_batches_tracked' (int)",
        "'bn.extra' (NoneType)",
    ):
        assert part in caplog.text


def test_one_of_several_networks_is_chosen(tmp_path):
    content = in_zip(dictionary(ema=inner(w=tensor((1,), (1,), offset=3)), model=inner(w=WEIGHT)))
    assert read(tmp_path, content)["w"].shape == (12,)
    assert read(tmp_path, content, entry="ema")["w"] == [3]
    with pytest.raises(ValueError, match=r"are dictionaries of tensors: 'ema', 'model'; choose one by `entry`"):
        read(tmp_path, content, entry="state_dict")


def test_names_of_wrapped_networks(tmp_path):
    wrapped = {"module._orig_mod.fc.weight": WEIGHT, "module._orig_mod.module.bias": WEIGHT}
    assert list(read(tmp_path, in_zip(dictionary(**wrapped)))) == ["fc.weight", "module.bias"]
    assert list(read(tmp_path, in_zip(dictionary(**{"module.a": WEIGHT, "b": WEIGHT})))) == ["module.a", "b"]


@pytest.mark.parametrize("legacy", [False, True])
def test_bfloat16_becomes_float32(tmp_path, legacy):
    numbers = np.linspace(-3, 3, 12).astype(ml_dtypes.bfloat16)
    content = dictionary(w=tensor((4, 3), (1, 4), kind=b"BFloat16Storage", legacy=legacy))
    found = read(tmp_path, (in_legacy if legacy else in_zip)(content, numbers))["w"]
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, numbers.astype(np.float32).reshape(3, 4).T)


def test_safetensors(tmp_path, monkeypatch):
    path = tmp_path / "model.safetensors"
    arrays = {"w": NUMBERS.reshape(3, 4), "half": NUMBERS.astype(np.float16), "count": np.array(5)}
    save_file(arrays | {"brain": NUMBERS.astype(ml_dtypes.bfloat16)}, path, metadata={"format": "pt"})
    found = models.read_state_dict(path)
    assert {name: array.dtype.name for name, array in found.items()} == {
        "w": "float32", "half": "float16", "count": "int64", "brain": "float32"
    }  # fmt: skip
    np.testing.assert_array_equal(found["w"], arrays["w"])
    np.testing.assert_array_equal(found["brain"], NUMBERS)
    with pytest.raises(ValueError, match="no entry 'model'"):
        models.read_state_dict(path, entry="model")
    content = path.read_bytes()
    # Cut short, and a header that is longer than the file.
    for damaged in (content[:-3], struct.pack("<Q", 10**6) + content[8:]):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"model\.safetensors is not read"):
            models.read_state_dict(path)
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(ImportError, match=r"pip install 'jaxattr\[torch\]'"):
        models.read_state_dict(path)
