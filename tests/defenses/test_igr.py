import numpy as np
import pytest

import jaxattr as ja
from jaxattr.defenses import adversarial, igr, natural, trades
from tests.defenses.cases import BALL, batch, quadratic, run, symmetric

PARAMS, SAMPLES = symmetric(), batch()
PGD = ja.attacks.pgd(BALL, num_steps=4)
BASES = {
    "natural": (natural(), PGD),
    "adversarial": (adversarial(PGD), None),
    "trades": (trades(BALL, num_steps=4), None),
}


@pytest.mark.parametrize("name", BASES)
def test_it_is_the_base_plus_a_cosine_of_integrated_gradients(name):
    """On a quadratic network IG from 0 is ``x * A_y x / 2``, exactly by the midpoint rule."""
    base, attack = BASES[name]
    objective = igr(base, ja.attributions.integrated_gradients(num_steps=2), 0.3, attack=attack)
    loss, metrics, _, adversaries = run(objective, quadratic, PARAMS, SAMPLES)
    expected, base_metrics, _, _ = run(base, quadratic, PARAMS, SAMPLES)
    distances = []
    for x, z, a in zip(SAMPLES.x, adversaries, PARAMS[SAMPLES.label], strict=True):
        g, h = x * (a @ x), z * (a @ z)
        distances.append(1 - g @ h / np.linalg.norm(g) / np.linalg.norm(h))
    np.testing.assert_allclose(metrics["cosine_distance"], np.mean(distances), rtol=1e-3)
    np.testing.assert_allclose(loss, expected + 0.3 * np.mean(distances), rtol=1e-5)
    assert {**base_metrics}.items() <= {k: v for k, v in metrics.items() if k != "cosine_distance"}.items()


@pytest.mark.parametrize("name", BASES)
def test_at_strength_zero_it_is_the_base(name):
    base, attack = BASES[name]
    objective = igr(base, ja.attributions.saliency(), 0.0, attack=attack)
    loss, _, gradient, _ = run(objective, quadratic, PARAMS, SAMPLES)
    expected, _, expected_gradient, _ = run(base, quadratic, PARAMS, SAMPLES)
    np.testing.assert_allclose(loss, expected, rtol=1e-6)
    np.testing.assert_allclose(gradient, expected_gradient, rtol=1e-5, atol=1e-6)


def test_another_attack_replaces_that_of_the_base():
    standing = ja.attacks.pgd(ja.LInf(0.0, box=None), num_steps=1)
    metrics = run(igr(trades(BALL), ja.attributions.saliency(), attack=standing), quadratic, PARAMS, SAMPLES)[1]
    assert metrics["kl_divergence"] == pytest.approx(0, abs=1e-6)
    assert metrics["cosine_distance"] == pytest.approx(0, abs=1e-6)


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="`base` has no attack: give one as `attack=`"):
        igr(natural(), ja.attributions.saliency())
    with pytest.raises(ValueError, match="`strength` must be a finite number of at least 0"):
        igr(trades(BALL), ja.attributions.saliency(), -0.1)
