"""Define labeled samples, and refuse inputs and labels that do not fit together."""

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Array, Float, Int

from jaxattr import _checks

__all__ = ["Batch", "check_labels", "samples_and_labels"]


class Batch(NamedTuple):
    """Samples and their labels."""

    x: Float[Array | np.ndarray, "n *shape"]
    label: Int[Array | np.ndarray, "n"]


def samples_and_labels(data: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return ``data.x`` and ``data.label`` on the host.

    Raises:
      TypeError: if inputs are not floating-point numbers.
      ValueError: if inputs and labels do not match.
    """
    xs, labels = np.asarray(data.x), np.asarray(data.label)
    if len(xs) == 0 or labels.shape != xs.shape[:1] or labels.dtype.kind not in "iu":
        raise ValueError(
            "`data` needs samples `x` (n, *shape) and one integer `label` each (n,), got "
            f"x {xs.shape} and label {labels.shape} {labels.dtype}."
        )
    # Check one sample only, so that nothing is copied.
    _checks.sample(xs[0])
    return xs, labels


def check_labels(labels: Any, classes: int, name: str = "label") -> None:
    """Refuse labels that no logit belongs to.

    Indexing would take -1 for the last class, and a class that is never predicted counts as a mistake.

    Args:
      labels: integers.
      classes: how many logits there are.
      name: of the argument, for the message.

    Raises:
      ValueError: if there are any; the message names them.

    Example:
      >>> check_labels(np.array([0, 2, -1]), 3)
      Traceback (most recent call last):
      ValueError: `label` must be between 0 and 2 (the network has 3 logits), but 1 of 3 labels are not: -1 ...
    """
    labels = np.asarray(labels)
    wrong, counts = np.unique(labels[(labels < 0) | (labels >= classes)], return_counts=True)
    if wrong.size:
        named = ", ".join(f"{label} ({count} times)" for label, count in zip(wrong[:5], counts[:5], strict=True))
        raise ValueError(
            f"`{name}` must be between 0 and {classes - 1} (the network has {classes} logits), but {counts.sum()} of"
            f" {labels.size} labels are not: {named}{', ...' if wrong.size > 5 else ''}. Leave such samples out, or"
            " give the network a logit for each class."
        )
