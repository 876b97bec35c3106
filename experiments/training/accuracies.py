"""Measure a network's accuracy, clean and under PGD, and describe both in words."""

import functools
from typing import Any

import jax

import jaxattr as ja
from experiments.training.recipes import Training


def measure(apply_fn: Any, variables: Any, test: Any, options: Training) -> dict[str, Any]:
    """Measure clean and PGD accuracy on as many test samples as the options say, and record the method."""
    chosen = first(test, options.accuracy_samples)
    found = clean_and_attacked(apply_fn, variables, chosen, options)
    return {
        "accuracy": found.accuracy,
        "pgd_accuracy": found.robust_accuracy,
        # Samples that PGD could not try, and those without finite logits, are in no accuracy under attack.
        **({"pgd_untried": found.stalled, "not_finite": found.not_finite} if found.stalled + found.not_finite else {}),
        "pgd": {
            "norm": "linf",
            "epsilon": options.pgd_epsilon,
            "steps": options.pgd_steps,
            "step_size": 2.5 * float(options.pgd_epsilon or 0) / int(options.pgd_steps or 1),
            "restarts": 1,
            "seed": options.seed,
        },
        "test_samples": len(chosen.x),
        "full_test_set": len(chosen.x) == len(test.x),
    }


def describe(card: dict[str, Any]) -> str:
    """Describe the accuracies of a card in a sentence."""
    part = "all" if card["full_test_set"] else "the first"
    pgd, untried = card["pgd"], card.get("pgd_untried", 0) + card.get("not_finite", 0)
    return (
        f"on {part} {card['test_samples']:,} test samples accuracy {100 * card['accuracy']:.1f} %, and"
        f" {100 * card['pgd_accuracy']:.1f} % under PGD-{pgd['steps']} (l-infinity {pgd['epsilon']:.3g})"
        + (
            f"; {untried} samples could not be attacked, or have no finite logits, and count as not robust"
            * (untried > 0)
        )
    )


def clean_and_attacked(apply_fn: Any, variables: Any, data: Any, options: Training) -> ja.accuracy.Robustness:
    """Measure accuracy, accuracy under PGD, and the samples that count for neither."""
    attack = _attack(float(options.pgd_epsilon or 0), int(options.pgd_steps or 1))
    return ja.accuracy.robustness(apply_fn, variables, data, attack, jax.random.key(options.seed))


@functools.lru_cache
def _attack(epsilon: float, steps: int) -> Any:
    """Return the same object for the same setting: compiled programs are cached by it."""
    return ja.attacks.pgd(ja.LInf(epsilon), num_steps=steps)


def first(data: Any, count: int | None) -> Any:
    """Return the first ``count`` samples; None for all."""
    return ja.training.Batch(data.x[:count], data.label[:count])
