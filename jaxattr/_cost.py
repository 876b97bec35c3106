"""Count the gradients of a network that methods cost, as far as it is known."""

from collections.abc import Iterable
from typing import Any


def gradients_of(method: Any, size: int | None = None) -> int | None:
    """Return what an attribution or objective states (of a bound or attack: for ``size`` features), or ``None``.

    Example:
      >>> import jaxattr as ja
      >>> gradients_of(ja.attributions.integrated_gradients(7)), gradients_of(lambda logits_fn, x, label: x)
      (7, None)
    """
    stated: Any = getattr(method, "gradients", None)
    if callable(stated):
        stated = stated(size)
    return stated if isinstance(stated, int) else None


def times(factor: int, gradients: int | None) -> int | None:
    """Return a multiple, ``None`` where the number is not known."""
    return None if gradients is None else factor * gradients


def total(gradients: Iterable[int | None]) -> int | None:
    """Return the sum, ``None`` where a part is not known."""
    parts = list(gradients)
    known = [part for part in parts if part is not None]
    return sum(known) if len(known) == len(parts) else None
