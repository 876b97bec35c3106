import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxattr as ja
from jaxattr.defenses import art
from jaxattr.defenses.art import misalignment
from tests.defenses.cases import BALL, batch, cross_entropies, quadratic, run, symmetric

PARAMS, SAMPLES = symmetric(), batch()
MEAN, STD = np.array([0.2, 0.1, 0.0, 0.3], np.float32), np.array([0.5, 1.0, 0.25, 2.0], np.float32)


def logits(x):
    return np.einsum("i,jik,k->j", x, PARAMS, x) / 2


def one_quadratic(x):
    return quadratic({"params": PARAMS}, x[None])[0][0]


def rival(x, y):
    return np.argmax(np.where(np.arange(3) == y, -np.inf, logits(x)))


def cosine(a, b):
    return a @ b / np.linalg.norm(a) / np.linalg.norm(b)


def test_loss_against_cosines_in_numpy():
    objective = art(BALL, strength=0.7, mean=MEAN, std=STD)
    loss, metrics, _, adversaries = run(objective, quadratic, PARAMS, SAMPLES)
    terms = []
    for x, y, z in zip(SAMPLES.x.astype(np.float64), SAMPLES.label, adversaries.astype(np.float64), strict=True):
        for image in (x, z):
            unit = (image - MEAN) / STD
            positive = max(1 - cosine(unit, STD * (PARAMS[y] @ w)) for w in (x, z))
            negative = min(1 - cosine(unit, STD * (PARAMS[rival(w, y)] @ w)) for w in (x, z))
            terms.append(np.log1p(np.exp(positive - negative)))
    np.testing.assert_allclose(metrics["triplet_loss"], np.mean(terms), rtol=1e-5)
    moved = cross_entropies(np.stack([logits(z) for z in adversaries]), SAMPLES.label).mean()
    np.testing.assert_allclose(loss, moved + 0.7 * np.mean(terms), rtol=1e-4)


def test_the_attack_climbs_the_misalignment_of_one_image():
    x, y = SAMPLES.x[0].astype(np.float64), SAMPLES.label[0]
    objective = misalignment(mean=MEAN, std=STD)(one_quadratic, jnp.asarray(SAMPLES.x[0]), y)
    unit = (x - MEAN) / STD
    expected = np.log1p(np.exp(cosine(unit, STD * (PARAMS[rival(x, y)] @ x)) - cosine(unit, STD * (PARAMS[y] @ x))))
    np.testing.assert_allclose(objective.value(jnp.asarray(SAMPLES.x[0])), expected, rtol=1e-5)
    higher = ja.attacks.pgd(BALL, objective=misalignment(mean=MEAN, std=STD), num_steps=10, random_start=False)
    found = jax.jit(lambda x, key: higher(one_quadratic, x, y, key).objective)(SAMPLES.x[0], jax.random.key(0))
    assert found > expected + 0.01


def test_only_the_features_of_the_largest_gradient_are_climbed():
    x, y = jnp.asarray(SAMPLES.x[0]), SAMPLES.label[0]
    _, gradient = misalignment(k=2)(one_quadratic, x, y).value_and_grad(x)
    largest = np.argsort(-np.abs(PARAMS[y] @ SAMPLES.x[0]))[:2]
    assert set(np.flatnonzero(gradient)) == set(largest)


def test_a_black_image_leaves_a_finite_gradient():
    samples = SAMPLES._replace(x=np.zeros_like(SAMPLES.x))
    loss, _, gradient, _ = run(art(BALL, step_size=1e-9), quadratic, PARAMS, samples, jax.random.key(1))
    assert np.isfinite(loss)
    assert np.all(np.isfinite(gradient))


def test_bad_options_are_refused():
    with pytest.raises(ValueError, match="`std` must be above 0"):
        art(BALL, std=0.0)
    with pytest.raises(ValueError, match="`k` must be at least 1"):
        art(BALL, k=0)
    with pytest.raises(ValueError, match="`k` must be between 1 and the 4 entries"):
        run(art(BALL, k=5), quadratic, PARAMS, SAMPLES)
