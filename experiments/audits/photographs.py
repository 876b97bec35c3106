"""Stand in for ImageNet: scikit-learn's two photographs, and EfficientNet-Lite0 with the published weights.

Wang and Kong 2023 have ImageNet in their Appendix D.3 without settings or numbers. Labels are the predictions of the
network with its own ReLU6 (palace and daisy): there is no other source, so that no accuracy is claimed.
"""

import os
from pathlib import Path

import jax
import numpy as np
from PIL import Image

import jaxattr as ja
from jaxattr.audit import networks
from jaxattr.audit.run_directory import environment
from jaxattr.parallel import on_first

DATASET = "photographs"
SIZE = 224
LABELS = {"china.jpg": (698, "palace"), "flower.jpg": (985, "daisy")}
CLASSES = 1000


def crop(pixels: np.ndarray, size: int = SIZE) -> np.ndarray:
    """Scale the shorter side to 256 pixels (of 224) and crop the central square as in the network's test; in [0, 1]."""
    image = Image.fromarray(pixels)
    scale = size * 256 / SIZE / min(image.size)
    image = image.resize((round(image.width * scale), round(image.height * scale)), resample=Image.Resampling.BICUBIC)
    left, top = (image.width - size) // 2, (image.height - size) // 2
    return np.asarray(image.crop((left, top, left + size, top + size)), np.float32) / 255


def load() -> ja.data.Dataset:
    """Load the photographs, 224 x 224."""
    from sklearn.datasets import load_sample_images  # noqa: PLC0415  (slow to import, needed by few)

    samples = load_sample_images()
    files = [os.path.basename(name) for name in samples.filenames]
    names = [str(index) for index in range(CLASSES)]
    for index, name in LABELS.values():
        names[index] = name
    return ja.data.Dataset(
        x=np.stack([crop(image) for image in samples.images]),
        label=np.array([LABELS[file][0] for file in files], np.int32),
        num_classes=CLASSES,
        name=f"{DATASET}/test",
        class_names=tuple(names),
    )


def write_network(directory: Path) -> None:
    """Write the published weights, and a card, into the directory of a run, unless they are there.

    Raises:
      ImportError: if the package that has the weights is missing.
    """

    def write() -> int:
        if networks.complete(directory):
            return 0
        variables = jax.tree.map(np.asarray, ja.models.efficientnet_lite0_variables())
        model = ja.models.EfficientNetLite0()
        card = {
            "data": {"name": "imagenet", "shape": [SIZE, SIZE, 3]},
            "defense": "natural",
            "model": {"name": "efficientnet_lite0", "options": {"beta": model.beta, "cap": model.cap}},
            "source": "published ImageNet weights, with smooth activations",
            "weights": ja.zoo.weights_hash(variables),
            "dtype": "float32",
            "environment": environment(),
        }
        networks.write(directory, variables, card)
        return 0

    on_first(write)
