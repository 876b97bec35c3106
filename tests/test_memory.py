"""Memory that is promised, by the compiler's own count; nothing is run."""

import jax
import jax.numpy as jnp

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
