"""Methods over many samples: a key for each, one program for all weights, any array."""

import jax
import numpy as np
from many_samples import KEY, PGD, SALIENCY, N, data
from tables import model, tolerance

import jaxattr as ja


def test_every_sample_has_a_key_of_its_own():
    """Equal samples, different starts; the same ones again in other company."""
    logits_fn, xs, labels = data()
    same = np.repeat(xs[:1], 6, axis=0)
    found = ja.over_samples(PGD, logits_fn)(same, np.repeat(labels[:1], 6), KEY).x
    gaps = np.max(np.abs(found[:, None] - found[None]), axis=(2, 3)) + np.eye(6)
    assert np.min(gaps) > 1e-3
    fewer = ja.over_samples(PGD, logits_fn)(same[:3], labels[[0, 0, 0]], KEY).x
    np.testing.assert_allclose(fewer, found[:3], **tolerance())


def test_attributions_and_bounds_go_through():
    logits_fn, xs, labels = data(5)
    values = ja.over_samples(SALIENCY, logits_fn)(xs, labels)
    np.testing.assert_allclose(values, jax.vmap(SALIENCY, (None, 0, 0))(logits_fn, xs, labels), **tolerance())
    bound = ja.bounds.singular_value(SALIENCY, ja.L2(0.2), num_steps=3)
    result = ja.over_samples(bound, logits_fn)(xs, labels, KEY)
    assert isinstance(result, ja.bounds.DeviationBound)
    assert result.euclidean.shape == (5,)
    assert result.direction.shape == xs.shape
    assert result.methods == ("singular_value",)


def test_other_weights_share_the_compilation_and_closures_work():
    m = model("softplus", N)
    traces = []

    def method(logits_fn, x, label):
        traces.append(1)
        return SALIENCY(logits_fn, x, label)

    first, second = (ja.over_samples(method, f, batch_size=8)(m.xs, m.labels) for f in (m.logits_fn, m.other))
    assert len(traces) == 1
    assert np.max(np.abs(first - second)) > 1e-2
    closed = ja.over_samples(method, lambda x: m.other(x) + 0, batch_size=8)(m.xs, m.labels)
    np.testing.assert_allclose(closed, second, **tolerance())


def test_float64_inputs_become_what_jax_takes_and_lists_are_taken():
    logits_fn, xs, labels = data(3)
    result = ja.over_samples(SALIENCY, logits_fn)(xs.astype(np.float64).tolist(), labels.tolist())
    assert result.dtype == np.float32
    np.testing.assert_allclose(result, ja.over_samples(SALIENCY, logits_fn)(xs, labels), **tolerance())
