import jax
import numpy as np
import pytest
from architectures import SMOOTH, convolve, dense, halve, randomized, sharp

from jaxattr import models


@pytest.mark.parametrize("pooling", models.POOLINGS)
def test_has_the_parameters_counted_by_hand(pooling):
    of_convolutions = (9 * 1 * 32 + 32) + (9 * 32 * 32 + 32) + (9 * 32 * 64 + 64) + (9 * 64 * 64 + 64)
    of_dense = (4 * 4 * 64 * 200 + 200) + (200 * 200 + 200) + (200 * 10 + 10)
    model = models.ConvNet(pooling=pooling)
    shapes = jax.eval_shape(lambda key: models.init(model, key, (28, 28, 1)), jax.random.key(0))
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == of_convolutions + of_dense == 312_202


def test_starts_as_trades_does():
    params = models.init(models.ConvNet(), jax.random.key(0), (16, 16, 1))["params"]
    assert not np.any(params["Dense_2"]["kernel"])
    assert not np.any(params["Dense_2"]["bias"])
    for layer, fan_in in {"Conv_1": 9 * 32, "Conv_3": 9 * 64}.items():
        kernel = np.asarray(params[layer]["kernel"])
        # The standard error of a standard deviation of n normal numbers is 1 / sqrt(2 n).
        assert kernel.std() == pytest.approx(np.sqrt(2 / fan_in), rel=5 / np.sqrt(2 * kernel.size))
        assert not np.any(params[layer]["bias"])
    for part in params["Dense_1"].values():
        assert 0.95 / np.sqrt(200) < np.abs(part).max() <= 1 / np.sqrt(200)


def test_is_these_layers():
    model, shape = SMOOTH["conv_net"]
    variables = randomized(model, shape)
    params = variables["params"]
    x = np.random.default_rng(2).uniform(size=(2, *shape)).astype(np.float32)

    @jax.jit
    def layers(params, h):
        for index in range(4):
            h = sharp(convolve(params[f"Conv_{index}"], h))
            h = halve(h) if index in (1, 3) else h
        h = h.reshape(2, -1)
        for index in range(2):
            h = sharp(dense(params[f"Dense_{index}"], h))
        return dense(params["Dense_2"], h)

    logits, updates = jax.jit(models.apply_fn(model))(variables, x)
    np.testing.assert_allclose(logits, layers(params, x), rtol=1e-4, atol=1e-5)
    assert updates == {}
