"""Time the three maps that make up a convolution's derivatives, ours beside those that JAX derives from ``lax``'s.

    python -m benchmarks.convolutions [--batch 50] [--repeats 5]

For each of the four convolutions of the MNIST network it times the convolution of the images, the transpose with
respect to the images, and that with respect to the kernel; each alone, and inside of a loop (``lax.scan``), where
attacks and bounds run. Times are milliseconds of the median run. Run it with little else on the machine, and read
ratios.
"""

import argparse
import functools

import jax
import jax.numpy as jnp

import jaxattr as ja
from benchmarks.spine import seconds

LAYOUT = ("NHWC", "HWIO", "NHWC")
# Pixels a side, channels in, channels out.
LAYERS = ((28, 1, 32), (26, 32, 32), (12, 32, 64), (10, 64, 64))
LENGTH = 4


def convolve(function, images, kernel):
    """Convolve images by one of the two implementations."""
    return function(images, kernel, (1, 1), "VALID", dimension_numbers=LAYOUT)


def to_images(function, images, kernel, outputs):
    """Apply the transpose with respect to the images to outputs."""
    return jax.vjp(lambda x: convolve(function, x, kernel), images)[1](outputs)[0]


def to_kernel(function, images, kernel, outputs):
    """Apply the transpose with respect to the kernel to outputs."""
    return jax.vjp(lambda w: convolve(function, images, w), kernel)[1](outputs)[0]


MAPS = {
    "images": lambda function, images, kernel, _: convolve(function, images, kernel),
    "transpose, images": to_images,
    "transpose, kernel": to_kernel,
}


def looped(function, images, kernel, outputs):
    """Apply a map several times, so that the compiler can neither omit a call nor move it out of the loop."""

    def step(scale, _):
        return 1 + 1e-9 * jnp.sum(function(scale * images, kernel, scale * outputs)), None

    return jax.lax.scan(step, jnp.float32(1), None, length=LENGTH)[0]


def main() -> None:
    """Measure and print the table, row by row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=50)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    print(f"{jax.devices()[0].device_kind}, JAX {jax.__version__}, float32, batch {options.batch}\n")
    print("| layer | map | lax, ms | ours, ms | lax in a loop | ours in a loop | ratio in a loop |")
    print("| --- | --- | --: | --: | --: | --: | --: |")
    for size, channels, features in LAYERS:
        keys = jax.random.split(jax.random.key(0), 3)
        images = jax.random.normal(keys[0], (options.batch, size, size, channels))
        kernel = jax.random.normal(keys[1], (3, 3, channels, features))
        outputs = jax.random.normal(keys[2], (options.batch, size - 2, size - 2, features))
        for name, function in MAPS.items():
            taken = []
            for inside in (False, True):
                for implementation in (jax.lax.conv_general_dilated, ja.models.convolution):
                    one = functools.partial(function, implementation)
                    run = jax.jit(functools.partial(looped, one) if inside else one)
                    jax.block_until_ready(run(images, kernel, outputs))
                    spent = seconds(lambda run=run, a=(images, kernel, outputs): run(*a), options.repeats)
                    taken.append(1000 * spent / (LENGTH if inside else 1))
            ratio = taken[3] / taken[2]
            cells = " | ".join(f"{value:.1f}" for value in taken)
            print(f"| {size} x {size} x {channels} to {features} | {name} | {cells} | {ratio:.2f} |", flush=True)


if __name__ == "__main__":
    main()
