"""Count the pairs of features that two maps order alike, or not, for Kendall's tau.

The counts are sums over all n (n - 1) / 2 pairs of features. Two exact methods form them, and
neither holds an n x n array:

- `all_pairs` compares each feature with the feature s places further on, for s = 1, 2, ..:
  vectorized comparisons without a sort, the fastest way up to a few thousand features;
- `blocked` sorts, and leaves comparisons only inside blocks of about sqrt(n) features: O(n^1.5),
  for the maps of large images.

Features with NaN in both maps take part in no pair, so NaN serves as the mark of "left out" and as
padding.

Counts are integers throughout. A count can exceed 32 bits (n = 65,537 has 2^31 pairs), so it
travels as two integers, `high * 2^16 + low`, which add and subtract exactly, and becomes one float
at the end.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

# Make this many comparisons per loop iteration: many, so that the counters are loaded and stored rarely; few, to
# compile fast.
_UNROLL = 16

# This limit keeps every intermediate of `blocked` below 2^31: sums over a block of sqrt(n) features with counts up to
# n.
MAX_FEATURES = 2**20


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Count:
    """A number of pairs, `high * 2^16 + low`."""

    high: Array
    low: Array

    def __add__(self, other: "Count") -> "Count":
        return Count(self.high + other.high, self.low + other.low)

    def __sub__(self, other: "Count") -> "Count":
        return Count(self.high - other.high, self.low - other.low)

    def astype(self, dtype) -> Array:
        """Return the number as a float, rounded once: `high` has at most 24 bits, which float32 holds."""
        high, low = self.high + (self.low >> 16), self.low & 0xFFFF
        return high.astype(dtype) * 2**16 + low.astype(dtype)


class PairCounts(NamedTuple):
    """The counts that tau-b is computed from, over unordered pairs of features."""

    score: Count  # concordant minus discordant
    untied_a: Count  # pairs that differ in a
    untied_b: Count


def _total(counts: Array) -> Count:
    """Sum up to 2^15 integers of 32 bits, without overflow: `>>` rounds down, `low >= 0`."""
    return Count(jnp.sum(counts >> 16, dtype=jnp.int32), jnp.sum(counts & 0xFFFF, dtype=jnp.int32))


def _row_counts(a: Array, b: Array) -> tuple[Array, Array, Array]:
    """Return the score and the untied pairs of two vectors, as (2, places) partial sums."""
    # On a circle with an odd number of places, the shifts up to half a turn meet every pair exactly once. They are
    # taken two at a time: with a second axis, XLA's CPU compiler vectorizes an unbatched call.
    shifts = -(-max(a.size - 1, 1) // (4 * _UNROLL)) * _UNROLL
    places = 4 * shifts + 1

    def circle(values):
        values = jnp.pad(values, (0, places - values.size), constant_values=jnp.nan)
        twice = jnp.concatenate([values, values])
        return values, jnp.stack([twice[: shifts + places], twice[shifts : 2 * shifts + places]])

    (a, a_shifted), (b, b_shifted) = circle(a), circle(b)
    one = jnp.ones((), jnp.int32)

    def compare(block, counters):
        score, untied_a, untied_b = counters
        for s in range(1, _UNROLL + 1):
            a_far = lax.dynamic_slice_in_dim(a_shifted, block * _UNROLL + s, places, axis=1)
            b_far = lax.dynamic_slice_in_dim(b_shifted, block * _UNROLL + s, places, axis=1)
            # Do not write `a != a_far`, which holds for NaN.
            differ_a, differ_b = (a < a_far) | (a > a_far), (b < b_far) | (b > b_far)
            sign = jnp.where((a < a_far) == (b < b_far), one, -one)
            score += jnp.where(differ_a & differ_b, sign, 0)
            untied_a += differ_a.astype(jnp.int32)
            untied_b += differ_b.astype(jnp.int32)
        return score, untied_a, untied_b

    zeros = jnp.zeros((2, places), jnp.int32)
    return lax.fori_loop(0, shifts // _UNROLL, compare, (zeros, zeros, zeros))


def all_pairs(a: Array, b: Array) -> PairCounts:
    """Count pairs of two vectors of floats by n^2 / 2 comparisons, for n up to 2^15."""
    return PairCounts(*(_total(counts) for counts in _row_counts(a, b)))


def blocked(a: Array, b: Array) -> PairCounts:
    """Count pairs of two vectors of floats by sorting and blocks, for n up to `MAX_FEATURES`.

    In the order of (a, b), a pair is discordant if and only if its b decrease strictly (Knight
    1966). So it remains to count the inversions of a permutation: pairs in one block of positions,
    and pairs in one block of values, are compared; all others only through the number of features
    per pair of blocks.
    """
    n = a.size
    width = 2 ** math.ceil(math.log2(max(n, 2)) / 2)
    rows = -(-n // width)

    index = jnp.arange(n, dtype=jnp.int32)
    a, b = lax.sort((a, b), num_keys=2)
    b_sorted, position = lax.sort((b, index), num_keys=1, is_stable=True)

    padding = jnp.arange(n, rows * width, dtype=jnp.int32)

    def in_rows(values):
        return values.reshape(rows, width)

    def total(values):  # sums n nonnegative integers below n
        return _total(jnp.sum(in_rows(jnp.pad(values, (0, padding.size))), axis=1, dtype=jnp.int32))

    def tied(new_run):  # counts each feature with those since its run began; NaN differs from NaN
        new_run = jnp.concatenate([jnp.ones(1, bool), new_run])
        return total(index - lax.cummax(jnp.where(new_run, index, 0)))

    new_a = a[1:] != a[:-1]
    tied_a, tied_b = tied(new_a), tied(b_sorted[1:] != b_sorted[:-1])
    tied_both = tied(new_a | (b[1:] != b[:-1]))
    pairs = total(jnp.where(jnp.isnan(a), 0, index))  # NaN is sorted to the end

    # The places that pad the last block keep their order, so they add no inversion.
    value = jnp.zeros_like(index).at[position].set(index, unique_indices=True)
    value = in_rows(jnp.concatenate([value, padding]))
    position = in_rows(jnp.concatenate([position, padding]))
    inversions = _inversions(jnp.concatenate([value, position // width]))
    per_block = jax.vmap(lambda v: jnp.zeros(rows, jnp.int32).at[v].add(1))(value // width)
    before = jnp.cumsum(per_block, axis=0, dtype=jnp.int32) - per_block
    inversions += _total(jnp.sum(per_block * _sum_after(before), axis=1, dtype=jnp.int32))

    untied_a, untied_b = pairs - tied_a, pairs - tied_b
    return PairCounts(untied_a - tied_b + tied_both - inversions - inversions, untied_a, untied_b)


def _inversions(rows: Array) -> Count:
    """Count the pairs within a row whose first entry is strictly larger than the second."""
    order = jnp.arange(rows.shape[1], dtype=jnp.float32)
    score, _, untied = jax.vmap(lambda row: _row_counts(order, row.astype(jnp.float32)))(rows)
    return _total(jnp.sum(untied - score, axis=(1, 2), dtype=jnp.int32) // 2)


def _sum_after(counts: Array) -> Array:
    """Return, for each column, the sum of the columns to its right."""
    return jnp.cumsum(counts[:, ::-1], axis=1, dtype=jnp.int32)[:, ::-1] - counts
