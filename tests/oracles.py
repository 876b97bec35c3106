"""Models whose answers are known without the library, and searches that are too slow for it."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from jaxattr.spectral import overlap_quantile


def _quadratic_logits(parameters, x):
    matrix, vector = parameters
    z = x.ravel()
    return jnp.stack([z @ matrix @ z / 2 + vector @ z, jnp.sum(z)])


def quadratic(matrix, vector=None, dtype=None) -> Partial:
    """Logits ``[x^T A x / 2 + b.x, sum(x)]``, A symmetric; arguments of one shape share one trace."""
    matrix = np.asarray(matrix)
    dtype = dtype or jnp.result_type(float)
    vector = np.zeros(len(matrix)) if vector is None else np.asarray(vector)
    return Partial(_quadratic_logits, (jnp.asarray(matrix, dtype), jnp.asarray(vector, dtype)))


def _affine_logits(parameters, x):
    matrix, vector = parameters
    return matrix @ x.ravel() + vector


def affine(matrix, vector, dtype=None) -> Partial:
    """Logits ``W x + b``."""
    dtype = dtype or jnp.result_type(float)
    return Partial(_affine_logits, (jnp.asarray(matrix, dtype), jnp.asarray(vector, dtype)))


def _network_logits(parameters, x):
    for kernel, bias in parameters[:-1]:
        x = jax.nn.softplus(x.ravel() @ kernel + bias)
    kernel, bias = parameters[-1]
    return x.ravel() @ kernel + bias


def network(seed: int, widths: tuple[int, ...], gain: float = 2.0, dtype=None) -> Partial:
    """A dense softplus network with fixed random weights; the same numbers, rounded, in every dtype."""
    rng = np.random.default_rng(seed)
    dtype = dtype or jnp.result_type(float)
    layers = []
    for inputs, outputs in itertools.pairwise(widths):
        # Rounded to float32 once, so that float32 and float64 are the same function.
        kernel = (gain * rng.normal(size=(inputs, outputs)) / np.sqrt(inputs)).astype(np.float32)
        bias = (0.1 * rng.normal(size=outputs)).astype(np.float32)
        layers.append((jnp.asarray(kernel, dtype), jnp.asarray(bias, dtype)))
    return Partial(_network_logits, tuple(layers))


def symmetric(seed: int, size: int) -> np.ndarray:
    """A random symmetric matrix with eigenvalues of both signs."""
    matrix = np.random.default_rng(seed).normal(size=(size, size))
    return (matrix + matrix.T) / 2


def with_spectrum(seed: int, values) -> np.ndarray:
    """A symmetric matrix with these eigenvalues."""
    basis = np.linalg.qr(np.random.default_rng(seed).normal(size=(len(values), len(values))))[0]
    return (basis * np.asarray(values)) @ basis.T


def corners(size: int) -> np.ndarray:
    """All 2^size sign vectors as rows."""
    return np.array(list(itertools.product([-1.0, 1.0], repeat=size)))


def largest_at_corner(jacobian) -> float:
    """``max ||J s||_2`` over all sign vectors s: a convex function is largest at a corner of the cube."""
    jacobian = np.asarray(jacobian, np.float64)
    return float(np.linalg.norm(corners(jacobian.shape[1]) @ jacobian.T, axis=1).max())


def path_gradients(logits_fn, x, label, baseline, nodes):
    """Gradients of one logit at points between the baseline and x, as rows (a loop, not the library's path)."""
    gradient = jax.jit(jax.grad(lambda z: logits_fn(z)[label]))
    return np.stack([np.asarray(gradient(baseline + t * (x - baseline))) for t in nodes])


def central_difference(function, x, direction, step):
    """``(function(x + h v) - function(x - h v)) / 2h``."""
    return (function(x + step * direction) - function(x - step * direction)) / (2 * step)


def assert_of_exhausted_run(upper, truth, size, confidence=0.999):
    """An upper value of a float32 Krylov run that ended before it had seen all features.

    A residual below rounding may hide a part of the spectrum, of which the value states at most ``eps / delta``: delta
    is the least overlap of the start at that confidence. Beside it stands the rounding of products, ``4 sqrt(n) eps``
    by the run and once more by the bound, and half a unit for each of the last operations, of which there are eight.
    """
    eps = np.finfo(np.float32).eps
    hidden = eps / overlap_quantile(size, 1 - confidence)
    assert truth * (1 - eps) <= float(upper) <= truth * (1 + hidden + 8 * np.sqrt(size) * eps + 4 * eps)
