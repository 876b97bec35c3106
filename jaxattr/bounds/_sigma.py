"""Compute the largest singular value of an attribution Jacobian, by products or from the matrix."""

from typing import Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
from jax import Array

from jaxattr import _checks, _numerics, spectral
from jaxattr.jacobian import AttributionJacobian

Algorithm = Literal["lanczos", "dense"]


class SigmaOptions(NamedTuple):
    """Options of the computation of the largest singular value, shared by the bounds that need it."""

    method: Algorithm
    num_steps: int
    confidence: float
    tolerance: float
    chunk: int | None
    linearize: bool

    @classmethod
    def checked(cls, method, num_steps, confidence, tolerance, chunk, linearize) -> "SigmaOptions":
        """Build validated options."""
        _checks.choice("method", method, get_args(Algorithm))
        _checks.positive_int("num_steps", num_steps)
        _checks.probability("confidence", confidence)
        _checks.non_negative("tolerance", tolerance)
        if chunk is not None:
            _checks.positive_int("chunk", chunk)
        return cls(method, num_steps, confidence, tolerance, chunk, linearize)

    @property
    def needs_key(self) -> bool:
        """Return whether the computation is random."""
        return self.method == "lanczos"

    def products(self, size: int, symmetric: bool) -> int:
        """Return how many products with J or its transpose it takes at most, for an input of ``size`` features."""
        if self.method == "dense":
            return size
        return self.num_steps + 1 if symmetric else 2 * self.num_steps + 1

    def solve(self, jacobian: AttributionJacobian, key: Array) -> spectral.Extreme:
        """Return the largest singular value of J with its right singular vector."""
        shape, dtype = jacobian.value.shape, jacobian.value.dtype
        if self.method == "lanczos":
            return spectral.largest_singular_value(
                jacobian.matvec,
                jacobian.rmatvec,
                shape,
                key,
                symmetric=jacobian.symmetric,
                num_steps=self.num_steps,
                confidence=self.confidence,
                tolerance=self.tolerance,
                dtype=dtype,
            )
        matrix = jacobian.dense(self.chunk)
        value, vector = _numerics.largest_svd(matrix)
        upper = value * (1 + _numerics.rounding(vector.size, dtype))
        with jax.default_matmul_precision("highest"):
            attained = _numerics.norm(matrix @ vector)
        one, zero = jnp.ones((), dtype), jnp.zeros((), dtype)
        return spectral.Extreme(attained, upper, vector.reshape(shape), zero, one, jacobian.dense_products())
