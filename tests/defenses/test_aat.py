import numpy as np
import pytest

import jaxattr as ja
from jaxattr.defenses import aat, adv_aat, adversarial, natural
from tests.defenses.cases import BALL, batch, cross_entropies, quadratic, run, symmetric

PARAMS, SAMPLES = symmetric(), batch()
SALIENCY = ja.attributions.saliency()


def distances(adversaries):
    """By NumPy's correlation of the saliencies A_y x and A_y x'."""
    pairs = zip(SAMPLES.x, adversaries, PARAMS[SAMPLES.label], strict=True)
    return np.array([(1 - np.corrcoef(a @ x, a @ z)[0, 1]) / 2 for x, z, a in pairs])


def logits(xs):
    return np.einsum("ni,jik,nk->nj", xs, PARAMS, xs) / 2


def test_aat_against_correlations_in_numpy():
    loss, metrics, _, adversaries = run(aat(SALIENCY, BALL, 2.0), quadratic, PARAMS, SAMPLES)
    expected = distances(adversaries).mean()
    assert expected > 1e-3
    np.testing.assert_allclose(metrics["pearson_distance"], expected, rtol=1e-3)
    np.testing.assert_allclose(loss, cross_entropies(logits(SAMPLES.x), SAMPLES.label).mean() + 2 * expected, rtol=1e-4)


def test_adv_aat_against_correlations_in_numpy():
    loss, metrics, _, adversaries = run(adv_aat(SALIENCY, BALL, 2.0), quadratic, PARAMS, SAMPLES)
    expected = distances(adversaries).mean()
    np.testing.assert_allclose(metrics["pearson_distance"], expected, rtol=1e-3)
    np.testing.assert_allclose(
        loss, cross_entropies(logits(adversaries), SAMPLES.label).mean() + 2 * expected, rtol=1e-4
    )


def test_aat_attacks_the_explanation_and_adv_aat_the_prediction_as_well():
    by_aat, by_both, by_at = (
        run(objective, quadratic, PARAMS, SAMPLES)[3]
        for objective in (
            aat(SALIENCY, BALL),
            adv_aat(SALIENCY, BALL),
            adversarial(ja.attacks.pgd(BALL, num_steps=7)),
        )
    )
    assert distances(by_aat).mean() > distances(by_at).mean()
    loss_of = lambda xs: cross_entropies(logits(xs), SAMPLES.label).mean()  # noqa: E731
    assert loss_of(by_both) > loss_of(by_aat)


def test_at_strength_zero_they_are_natural_and_adversarial():
    np.testing.assert_allclose(
        run(aat(SALIENCY, BALL, 0.0), quadratic, PARAMS, SAMPLES)[0],
        run(natural(), quadratic, PARAMS, SAMPLES)[0],
        rtol=1e-6,
    )
    np.testing.assert_allclose(
        run(adv_aat(SALIENCY, BALL, 0.0), quadratic, PARAMS, SAMPLES)[0],
        run(adversarial(ja.attacks.pgd(BALL, num_steps=7)), quadratic, PARAMS, SAMPLES)[0],
        rtol=1e-6,
    )


@pytest.mark.parametrize("constructor", [aat, adv_aat])
def test_bad_options_are_refused(constructor):
    with pytest.raises(ValueError, match="`strength`"):
        constructor(SALIENCY, BALL, float("inf"))
    with pytest.raises(TypeError, match="`dissimilarity` must be a Dissimilarity"):
        constructor(SALIENCY, BALL, dissimilarity="pearson")
