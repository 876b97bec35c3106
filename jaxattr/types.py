"""Define the types of functions that the whole library uses.

Every method is a pure function of one sample and takes the same first three arguments; methods differ in their
results, and in whether they need a random key.
"""

from collections.abc import Callable
from typing import Any, TypeAlias

from jax import Array

LogitsFn: TypeAlias = Callable[[Array], Array]
"""A classifier of ONE input, ``(*shape) -> (classes,)``."""

AttributionFn: TypeAlias = Callable[[LogitsFn, Array, Any], Array]
"""An attribution is ``attribute(logits_fn, x, label) -> map``, of the same shape as ``x``.

:class:`jaxattr.Attribution` is one with a name; any other function of these arguments goes wherever one is taken.
"""

Bound: TypeAlias = Callable[[LogitsFn, Array, Any, Array], Any]
"""A bound is ``bound(logits_fn, x, label, key) -> DeviationBound``."""

Attack: TypeAlias = Callable[[LogitsFn, Array, Any, Array], Any]
"""An attack is ``attack(logits_fn, x, label, key) -> AttackResult``."""
