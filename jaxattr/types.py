"""The few shapes of function that the whole library speaks.

Every method is a pure function of one sample and takes the same first three arguments; what differs is what
comes back, and whether a random key is needed.
"""

from collections.abc import Callable
from typing import Any, TypeAlias

from jax import Array

LogitsFn: TypeAlias = Callable[[Array], Array]
"""A classifier of ONE input, ``(*shape) -> (classes,)``."""

Attribution: TypeAlias = Callable[[LogitsFn, Array, Any], Array]
"""``attribute(logits_fn, x, label) -> map``, of the same shape as ``x``."""

Bound: TypeAlias = Callable[[LogitsFn, Array, Any, Array], Any]
"""``bound(logits_fn, x, label, key) -> DeviationBound``."""

Attack: TypeAlias = Callable[[LogitsFn, Array, Any, Array], Any]
"""``attack(logits_fn, x, label, key) -> AttackResult``."""
