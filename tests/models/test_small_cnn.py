import jax
import numpy as np
from architectures import SMOOTH, convolve, dense, halve, randomized, sharp

from jaxattr import models


def test_is_these_layers():
    model, shape = SMOOTH["small_cnn"]
    variables = randomized(model, shape)
    x = np.random.default_rng(2).uniform(size=(2, *shape)).astype(np.float32)

    @jax.jit
    def layers(params, h):
        for index in range(2):
            h = halve(sharp(convolve(params[f"Conv_{index}"], h, padding="SAME")))
        return dense(params["Dense_1"], sharp(dense(params["Dense_0"], h.reshape(2, -1))))

    logits, updates = jax.jit(models.apply_fn(model))(variables, x)
    np.testing.assert_allclose(logits, layers(variables["params"], x), rtol=1e-4, atol=1e-5)
    assert updates == {}


def test_has_the_parameters_counted_by_hand():
    of_convolutions = (9 * 1 * 16 + 16) + (9 * 16 * 32 + 32)
    of_dense = (2 * 2 * 32 * 64 + 64) + (64 * 10 + 10)
    shapes = jax.eval_shape(lambda key: models.init(models.SmallCNN(), key, (8, 8, 1)), jax.random.key(0))
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == of_convolutions + of_dense
