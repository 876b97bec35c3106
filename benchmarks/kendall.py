"""Time Kendall's tau-b of many pairs of maps against a SciPy loop over the same pairs.

    python benchmarks/kendall.py
    python benchmarks/kendall.py --pairs 10000 --features 784

Prints a Markdown table with times per pair; the ratio is ours over SciPy's, below 1 is faster. Both
are timed in turns, in blocks of pairs, and the median block counts, so that other work on the
machine hits both alike. Maps are mapped in batches, which keeps working memory at a few MB whatever the
number of pairs.
"""

import argparse
import time
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import scipy.stats

from jaxattr.metrics import kendall_tau

BLOCKS = 5


@partial(jax.jit, static_argnames="batch_size")
def kendall_of_pairs(a, b, batch_size):
    return jax.lax.map(lambda pair: kendall_tau(*pair), (a, b), batch_size=batch_size)


def scipy_of_pairs(a, b):
    return np.array([scipy.stats.kendalltau(x, y)[0] for x, y in zip(a, b, strict=True)])


def maps(pairs, features, zeros):
    rng = np.random.default_rng(0)
    a = rng.normal(size=(pairs, features)).astype(np.float32)
    b = (a + rng.normal(size=a.shape)).astype(np.float32)
    mask = rng.random(a.shape) < zeros
    return np.where(mask, 0, a), np.where(mask, 0, b)


def timed(function, *args):
    start = time.perf_counter()
    value = np.asarray(function(*args))
    return value, time.perf_counter() - start


def compare(pairs, features, zeros):
    """Return seconds per pair of both implementations, and the largest difference of the values."""
    a, b = maps(pairs, features, zeros)
    per_block = max(pairs // BLOCKS, 1)
    ours = partial(kendall_of_pairs, batch_size=max(1, min(128, 2**17 // features)))
    jax.block_until_ready(ours(jnp.asarray(a[:per_block]), jnp.asarray(b[:per_block])))
    times, difference = [], 0.0
    for start in range(0, per_block * (pairs // per_block), per_block):
        block = slice(start, start + per_block)
        value, seconds = timed(ours, a[block], b[block])
        expected, scipy_seconds = timed(scipy_of_pairs, a[block], b[block])
        times.append((seconds / per_block, scipy_seconds / per_block))
        difference = max(difference, float(np.abs(value - expected).max()))
    return *np.median(times, axis=0), difference


def main():
    parser = argparse.ArgumentParser(description="Time Kendall's tau-b, ours and SciPy's.")
    parser.add_argument("--pairs", type=int, help="pairs of maps (default: fewer for larger maps)")
    parser.add_argument("--features", type=int, nargs="+", default=[784, 3072, 12288, 50176])
    options = parser.parse_args()

    print("| n | ties | pairs | ours, ms/pair | SciPy, ms/pair | ratio | largest difference |")
    print("| ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    for features in options.features:
        pairs = options.pairs or max(10, min(10_000, 8_000_000 // features))
        for zeros in (0.0, 0.8):
            ours, scipy, difference = compare(pairs, features, zeros)
            print(
                f"| {features} | {zeros:.0%} | {pairs} | {1e3 * ours:.3f} | {1e3 * scipy:.3f} "
                f"| {ours / scipy:.2f} | {difference:.0e} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
