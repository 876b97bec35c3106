"""What a network is measured by: accuracy as it is and under PGD, and how that is said."""

import functools
from typing import Any

import jax

import jaxattr as ja
from experiments.recipes import Training


def measure(apply_fn: Any, variables: Any, test: Any, options: Training) -> dict[str, Any]:
    """Clean and PGD accuracy on as many test samples as the options say, and how they were measured."""
    chosen = first(test, options.accuracy_samples)
    accuracy, under_pgd = clean_and_attacked(apply_fn, variables, chosen, options)
    return {
        "accuracy": accuracy,
        "pgd_accuracy": under_pgd,
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


def in_words(card: dict[str, Any]) -> str:
    """The accuracies of a card, in a sentence."""
    part = "all" if card["full_test_set"] else "the first"
    pgd = card["pgd"]
    return (
        f"on {part} {card['test_samples']:,} test samples accuracy {100 * card['accuracy']:.1f} %, and"
        f" {100 * card['pgd_accuracy']:.1f} % under PGD-{pgd['steps']} (l-infinity {pgd['epsilon']:.3g})"
    )


def clean_and_attacked(apply_fn: Any, variables: Any, data: Any, options: Training) -> tuple[float, float]:
    """Accuracy, and accuracy under PGD."""
    attack = _attack(float(options.pgd_epsilon or 0), int(options.pgd_steps or 1))
    return (
        ja.training.accuracy(apply_fn, variables, data),
        ja.training.robust_accuracy(apply_fn, variables, data, attack, jax.random.key(options.seed)),
    )


@functools.lru_cache
def _attack(epsilon: float, steps: int) -> Any:
    """One object per setting: it is what compiled programs are found by."""
    return ja.attacks.pgd(ja.LInf(epsilon), num_steps=steps)


def first(data: Any, count: int | None) -> Any:
    """The first so many samples; None for all."""
    return ja.training.Batch(data.x[:count], data.label[:count])
