"""Build a training objective from a defense's name and hyperparameters: the only place that knows both."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

import jaxattr as ja


@dataclasses.dataclass(frozen=True)
class Hyperparameters:
    """Hyperparameters of all objectives; each reads its own. None means the preset's value, or else its own default.

    Radii and step sizes are in units of the input in [0, 1].
    """

    epsilon: float | None = None
    """l-infinity radius of the inner maximization."""
    attack_steps: int | None = None
    """Gradient steps of the inner maximization."""
    step_size: float | None = None
    """Step size of the inner maximization."""
    strength: float | None = None
    """Weight of the attribution term."""
    trades_beta: float | None = None
    """Weight of the divergence in TRADES."""
    l1: float | None = None
    """Weight of the l1 norm of all weights, in natural training."""
    path_steps: int | None = None
    """Steps of integrated gradients in the loss."""
    attack_path_steps: int | None = None
    """Steps of integrated gradients in the inner maximization, if that maximizes an attribution term."""
    chunk: int | None = None
    """Path points evaluated at once: trades memory for speed, and changes no result."""
    rematerialize: bool | None = None
    """Compute path points again in the backward pass instead of keeping them: less memory, more time."""
    art_k: int | None = None
    """Features of the largest gradient that ART's attack may change."""


Builder = Callable[[Hyperparameters, Any], ja.evaluation.Objective]


def build(name: str, given: Hyperparameters, data: Any) -> ja.evaluation.Objective:
    """Build the objective of a defense.

    Args:
      name: name in :data:`DEFENSES`.
      given: resolved hyperparameters.
      data: defaults of the data set, for its mean and standard deviation.

    Raises:
      ValueError: if there is no such defense; the message lists what there is.
    """
    if name not in DEFENSES:
        raise ValueError(f"the defense is {name!r}; accepted are {', '.join(DEFENSES)}.")
    return DEFENSES[name](given, data)


def _natural(given: Hyperparameters, _: Any):
    return ja.defenses.natural(**_present(l1=given.l1))


def _adversarial(given: Hyperparameters, _: Any):
    return ja.defenses.adversarial(_attack(given))


def _trades(given: Hyperparameters, _: Any):
    return ja.defenses.trades(_ball(given), **_present(beta=given.trades_beta), **_climb(given))


def _path_norm(constructor: str) -> Builder:
    def build_one(given: Hyperparameters, _: Any):
        options = {name: getattr(given, name) for name in ("path_steps", "attack_path_steps", "chunk", "rematerialize")}
        return getattr(ja.defenses, constructor)(
            _ball(given), **_present(strength=given.strength, **options), **_climb(given)
        )

    return build_one


def _attributional(constructor: str) -> Builder:
    def build_one(given: Hyperparameters, _: Any):
        # The inner attack has fewer path points, since they only steer it.
        coarse = None if given.attack_path_steps is None else _integrated_gradients(given, given.attack_path_steps)
        return getattr(ja.defenses, constructor)(
            _integrated_gradients(given, given.path_steps),
            _ball(given),
            attack_attribute=coarse,
            **_present(strength=given.strength),
            **_climb(given),
        )

    return build_one


def _art(given: Hyperparameters, data: Any):
    images = {name: np.asarray(getattr(data, name), np.float32) for name in ("mean", "std")}
    return ja.defenses.art(_ball(given), **images, **_present(strength=given.strength, k=given.art_k), **_climb(given))


def _with_igr(base: Builder, *, needs_attack: bool = False) -> Builder:
    def build_one(given: Hyperparameters, data: Any):
        return ja.defenses.igr(
            base(given, data),
            _integrated_gradients(given, given.path_steps),
            # The other bases have an attack of their own, whose result the term shares.
            attack=_attack(given) if needs_attack else None,
            **_present(strength=given.strength),
        )

    return build_one


DEFENSES: Mapping[str, Builder] = {
    "natural": _natural,
    "adversarial": _adversarial,
    "ig_norm": _path_norm("ig_norm"),
    "ig_sum_norm": _path_norm("ig_sum_norm"),
    "aat": _attributional("aat"),
    "adv_aat": _attributional("adv_aat"),
    "art": _art,
    "trades": _trades,
    "natural_igr": _with_igr(_natural, needs_attack=True),
    "adversarial_igr": _with_igr(_adversarial),
    "trades_igr": _with_igr(_trades),
}
"""Builders of all training objectives, by their names on the command line."""


def _ball(given: Hyperparameters) -> ja.LInf:
    return ja.LInf(given.epsilon)


def _attack(given: Hyperparameters):
    return ja.attacks.pgd(_ball(given), **_climb(given))


def _climb(given: Hyperparameters) -> dict[str, Any]:
    return _present(num_steps=given.attack_steps, step_size=given.step_size)


def _integrated_gradients(given: Hyperparameters, steps: int | None):
    return ja.attributions.integrated_gradients(
        **_present(num_steps=steps, chunk=given.chunk, rematerialize=given.rematerialize)
    )


def _present(**options: Any) -> dict[str, Any]:
    """Return the options that were given: the others are left to the constructor's own defaults."""
    return {name: value for name, value in options.items() if value is not None}
