"""Objectives over one ball, and networks whose attributions have closed forms."""

import jax
import jax.numpy as jnp
import numpy as np

import jaxattr as ja
from jaxattr.training import Batch

KEY = jax.random.key(0)
EPSILON = 0.1
BALL = ja.LInf(EPSILON, box=None)
STEPS = 4


def _ig():
    return ja.attributions.integrated_gradients(num_steps=2)


def _at():
    return ja.defenses.adversarial(ja.attacks.pgd(BALL, num_steps=STEPS))


# name -> (objective, the metric that it is meant to reduce, which passes move statistics of batch normalization)
OBJECTIVES = {
    "natural": (ja.defenses.natural, None, "clean"),
    "adversarial": (_at, None, "adversaries"),
    "trades": (lambda: ja.defenses.trades(BALL, num_steps=STEPS), "kl_divergence", "both"),
    "ig_norm": (
        lambda: ja.defenses.ig_norm(BALL, num_steps=STEPS, path_steps=2, attack_path_steps=2),
        "ig_norm",
        "clean",
    ),
    "ig_sum_norm": (
        lambda: ja.defenses.ig_sum_norm(BALL, num_steps=STEPS, path_steps=2, attack_path_steps=2),
        "ig_norm",
        "adversaries",
    ),
    "aat": (lambda: ja.defenses.aat(_ig(), BALL, num_steps=STEPS), "pearson_distance", "clean"),
    "adv_aat": (lambda: ja.defenses.adv_aat(_ig(), BALL, num_steps=STEPS), "pearson_distance", "adversaries"),
    "art": (lambda: ja.defenses.art(BALL), "triplet_loss", "adversaries"),
    "igr": (lambda: ja.defenses.igr(_at(), _ig()), "cosine_distance", "adversaries"),
    "trades_igr": (
        lambda: ja.defenses.igr(ja.defenses.trades(BALL, num_steps=STEPS), _ig()),
        "cosine_distance",
        "both",
    ),
}


def linear(variables, xs, *, train=False, key=None):
    """Logits ``xs W``, W (features, classes)."""
    del train, key
    return xs @ variables["params"], {}


def quadratic(variables, xs, *, train=False, key=None):
    """Logits ``x^T A_j x / 2`` with symmetric A (classes, features, features): the saliency of class j is ``A_j x``."""
    del train, key
    return jnp.einsum("ni,jik,nk->nj", xs, variables["params"], xs) / 2, {}


def symmetric(classes=3, size=4, seed=1):
    """Symmetric matrices, one per class."""
    a = np.random.default_rng(seed).normal(size=(classes, size, size)).astype(np.float32)
    return a + a.transpose(0, 2, 1)


def batch(n=5, size=4, classes=3, seed=0):
    """Random samples."""
    rng = np.random.default_rng(seed)
    return Batch(rng.normal(size=(n, size)).astype(np.float32), rng.integers(0, classes, n).astype(np.int32))


def run(objective, apply_fn, params, samples, key=KEY):
    """``(loss, metrics, gradient of the parameters, the adversaries of that call)``."""

    def loss_fn(params):
        variables = {"params": params}
        if not isinstance(objective, ja.defenses.AttackedObjective):
            loss, aux = objective(apply_fn, variables, samples, key)
            return loss, (aux["metrics"], samples.x)
        # What calling it does, with the adversaries kept: one compilation of the attack.
        attack_key, loss_key = jax.random.split(key)
        adversaries = objective.adversaries(apply_fn, variables, samples, attack_key)
        loss, aux = objective.loss(apply_fn, variables, samples, adversaries, loss_key)
        return loss, (aux["metrics"], adversaries)

    (loss, (metrics, adversaries)), gradient = jax.jit(jax.value_and_grad(loss_fn, has_aux=True))(params)
    return loss, metrics, gradient, np.asarray(adversaries)


def cross_entropies(logits, label):
    """In NumPy, float64, one per sample."""
    logits = np.asarray(logits, np.float64)
    return np.log(np.exp(logits).sum(-1)) - np.take_along_axis(logits, label[:, None], -1)[:, 0]
