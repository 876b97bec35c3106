"""What the tests of many samples run: an attack on samples of the shared table, lifted and in a plain loop."""

import functools

import jax
import numpy as np
from tables import model

import jaxattr as ja

KEY = jax.random.key(11)
N = 13
PGD = ja.attacks.pgd(ja.L2(0.3), num_steps=2, step_size=0.05)
SALIENCY = ja.attributions.saliency()


def data(n=N):
    m = model("softplus", N)
    return m.logits_fn, np.asarray(m.xs[:n]), np.asarray(m.labels[:n])


@functools.cache
def looped():
    """A Python loop over samples, each with the key that its index gives it."""
    logits_fn, xs, labels = data()
    single = jax.jit(PGD)
    results = [
        single(logits_fn, x, y, jax.random.fold_in(KEY, i)) for i, (x, y) in enumerate(zip(xs, labels, strict=True))
    ]
    return jax.tree.map(lambda *leaves: np.stack(leaves), *results)
