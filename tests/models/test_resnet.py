import itertools

import jax
import jax.numpy as jnp
import numpy as np
from architectures import SMOOTH, convolve, dense, randomized, sharp

from jaxattr import models


def test_is_these_layers():
    """Four stages of two blocks; where a stage begins, the sum is with a convolution of 1 x 1 pixel."""
    model, shape = SMOOTH["resnet18"]
    variables = randomized(model, shape)
    rng = np.random.default_rng(3)
    # Statistics that are no ones, so that it matters which is used where.
    statistics = jax.tree.map(lambda a: jnp.asarray(rng.uniform(0.5, 2, a.shape), a.dtype), variables["batch_stats"])
    variables = {**variables, "batch_stats": statistics}
    x = rng.uniform(size=(2, *shape)).astype(np.float32)

    @jax.jit
    def layers(variables, h):
        count = itertools.count()

        def unit(h, strides=1, padding=((1, 1), (1, 1))):
            """A convolution without bias, and the normalization that follows it."""
            index = next(count)
            scale, seen = (variables[name][f"BatchNorm_{index}"] for name in ("params", "batch_stats"))
            h = convolve(variables["params"][f"Conv_{index}"], h, strides, padding)
            return (h - seen["mean"]) / jnp.sqrt(seen["var"] + 1e-5) * scale["scale"] + scale["bias"]

        h = sharp(unit(h))
        for stage in range(4):
            for block in range(2):
                strides = 2 if stage and not block else 1
                inner = unit(sharp(unit(h, strides)))
                h = sharp((unit(h, strides, "VALID") if strides == 2 else h) + inner)
        return dense(variables["params"]["Dense_0"], h.mean((1, 2)))

    logits, _ = jax.jit(models.apply_fn(model))(variables, x)
    np.testing.assert_allclose(logits, layers(variables, x), rtol=1e-4, atol=1e-4)


def test_training_moves_the_statistics_by_a_tenth_towards_those_of_the_batch():
    model, shape = SMOOTH["resnet18"]
    variables = randomized(model, shape)
    x = np.random.default_rng(2).uniform(size=(4, *shape)).astype(np.float32)
    _, updates = jax.jit(lambda variables, x: models.apply_fn(model)(variables, x, train=True))(variables, x)
    stem = jax.jit(convolve, static_argnums=(2, 3))(variables["params"]["Conv_0"], x, 1, "SAME")
    found = updates["batch_stats"]["BatchNorm_0"]
    # The statistics were ones; the variance is the biased one.
    np.testing.assert_allclose(found["mean"], 0.9 + 0.1 * np.mean(stem, axis=(0, 1, 2)), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(found["var"], 0.9 + 0.1 * np.var(stem, axis=(0, 1, 2)), rtol=1e-4, atol=1e-6)
