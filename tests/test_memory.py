"""Memory that is promised, by the compiler's own count; nothing is run."""

import jax
import jax.numpy as jnp
import pytest

import jaxattr as ja


def test_dense_saliency_jacobians_of_sixteen_mnist_samples_stay_under_two_gigabytes():
    model = ja.models.ConvNet()
    shape = jax.eval_shape(lambda key: ja.models.init(model, key, (28, 28, 1)), jax.random.key(0))
    saliency = ja.attributions.saliency()

    def dense(variables, xs):
        logits_fn = ja.models.logits_fn(model, variables)
        return jax.vmap(lambda x: ja.attribution_jacobian(saliency, logits_fn, x, 0).dense())(xs)

    xs = jax.ShapeDtypeStruct((16, 28, 28, 1), jnp.float32)
    analysis = jax.jit(dense).lower(shape, xs).compile().memory_analysis()
    assert analysis is not None
    results = 16 * 784 * 784 * 4
    assert analysis.output_size_in_bytes == results
    # The Jacobians themselves, and no more than a gigabyte to compute them.
    assert analysis.temp_size_in_bytes + results < 2e9
    assert analysis.temp_size_in_bytes < 1e9


@pytest.mark.slow
def test_ig_norm_on_the_network_of_mnist_fits_and_its_knob_saves_memory():
    """50 images: forward, attack and gradient of the parameters, as a step of training has them."""
    model = ja.models.ConvNet()
    shape = jax.eval_shape(lambda key: ja.models.init(model, key, (28, 28, 1)), jax.random.key(0))
    samples = ja.training.Batch(
        jax.ShapeDtypeStruct((50, 28, 28, 1), jnp.float32), jax.ShapeDtypeStruct((50,), jnp.int32)
    )
    key = jax.eval_shape(lambda: jax.random.key(0))

    def temporaries(path_steps, rematerialize):
        objective = ja.defenses.ig_norm(
            ja.LInf(0.1), num_steps=1, path_steps=path_steps, attack_path_steps=10, rematerialize=rematerialize
        )

        def gradient(variables, samples, key):
            return jax.grad(lambda v: objective(ja.models.apply_fn(model), v, samples, key)[0])(variables)

        return jax.jit(gradient).lower(shape, samples, key).compile().memory_analysis().temp_size_in_bytes

    # What is kept grows with the points of the path; computed again, it is that of one chunk.
    kept, again = temporaries(20, rematerialize=False), temporaries(20, rematerialize=True)
    assert kept < 4e9
    assert again < 0.6 * kept
    assert temporaries(10, rematerialize=True) > 0.95 * again
