"""Build a training objective from a defense's name and hyperparameters: the only place that knows both."""

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

import jaxattr as ja
from jaxattr.audit import spec


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


Builder = Callable[[Hyperparameters, Any], ja.apply_fn.TrainingObjective]


def build(defense: str, given: Hyperparameters, data: Any) -> ja.apply_fn.TrainingObjective:
    """Build the objective of a defense.

    Args:
      defense: name in :data:`DEFENSES`, or the call of a registered one, whose parameters called ``ball``,
        ``attribute``, ``attack``, ``base``, ``mean`` and ``std`` are filled in, and options of the names of
        hyperparameters where these are given.
      given: resolved hyperparameters.
      data: defaults of the data set, for its mean and standard deviation.

    Raises:
      ValueError: if there is no such defense; the message lists what there is.
    """
    call = parse(defense)
    if call is None:
        return DEFENSES[defense](given, data)
    options = {**dataclasses.asdict(given), **_climb(given)}
    fitting = {name: value for name, value in options.items() if value is not None and call.accepts(name)}
    required = {
        "ball": _ball(given),
        "attribute": _integrated_gradients(given, given.path_steps),
        "attack": _attack(given),
        "base": ja.defenses.natural(),
        "mean": np.asarray(data.mean, np.float32),
        "std": np.asarray(data.std, np.float32),
    }
    return call.replace({**fitting, **call.arguments}).build(**required)


def parse(defense: str) -> Any:
    """Parse the call of a registered defense; ``None`` for a name in :data:`DEFENSES`.

    Raises:
      ValueError: if there is no such defense or option; the message lists what there is.
    """
    if defense in DEFENSES:
        return None
    try:
        return ja.parse(ja.defenses.REGISTRY, defense)
    except ValueError as error:
        raise ValueError(f"the defense is {defense!r}; accepted are {', '.join(DEFENSES)}. {error}") from error


def name_of(defense: str) -> str:
    """Return the name of a defense, without the options of its call."""
    call = parse(defense)
    return defense if call is None else call.name


def labeled(defenses: Iterable[str]) -> dict[str, str]:
    """Return defenses by label: their names, or what stands before an equals sign, as in ``soft=trades(beta=1.0)``.

    Raises:
      ValueError: if one is unknown, or two have one label.
    """
    found: dict[str, str] = {}
    for text in defenses:
        label, words = spec.split_label(text)
        label = label or name_of(words)
        if label in found:
            raise ValueError(
                f"`defenses`: two are called {label!r}; give one another label, such as '{label}_2={words}'."
            )
        parse(words)
        found[label] = words
    return found


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
