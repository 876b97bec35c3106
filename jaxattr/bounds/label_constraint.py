"""Proposition 1 of paper 000: which perturbations keep the label, to first order."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from jaxattr import _checks
from jaxattr.types import LogitsFn


class LabelConstraint(NamedTuple):
    """The half-space ``<normal, delta> < margin`` in which class ``competitor`` does not overtake the label.

    Attributes:
      normal: ``M = grad f_{y'}(x) - grad f_y(x)``, shaped like x.
      margin: ``b = f_y(x) - f_{y'}(x)``; negative for a sample that is misclassified to begin with.
      competitor: ``y'``, the best class other than the label.
    """

    normal: Array
    margin: Array
    competitor: Array

    def keeps(self, delta: Float[Array, "*shape"]) -> Array:
        """Whether ``x + delta`` keeps the label, to first order."""
        return jnp.vdot(self.normal, delta) < self.margin


def label_constraint(logits_fn: LogitsFn, x: Float[Array, "*shape"], label: Any) -> LabelConstraint:
    """The label constraint of paper 000, Proposition 1 (Eq. 8), against the second-best class.

    The paper states ``M = (J_{y'} - J_y)^T 1`` for attributions that are complete (column sums: its ``grad g`` is
    ``J^T``). By completeness ``J^T 1 = grad f_y``, so that M is the gradient of a difference of two logits: two plain
    gradients, no Jacobian, and the baseline's output cancels.

    What it means for the bounds (paper 000, Section 4.3): of a maximizer ``delta`` and ``-delta``, which move the
    attribution equally far in the linear model, at least one is in the half-space whenever the sample is classified
    correctly. T_e and T_c are therefore the same numbers with and without the constraint. With several competitors
    both may be excluded; the bound then still holds but need not be attained. The condition is on the linearized
    margin: it does not stop the real label from changing.

    Args:
      logits_fn: classifier of one input.
      x: the sample.
      label: its class.

    Returns:
      A :class:`LabelConstraint`.

    Raises:
      ValueError: if there are fewer than two classes, or the label or a shape does not fit.

    Example:
      >>> import jax.numpy as jnp
      >>> import jaxattr as ja
      >>> logits_fn = lambda x: jnp.array([[1.0, 0.0], [0.0, 2.0]]) @ x
      >>> constraint = ja.bounds.label_constraint(logits_fn, jnp.array([1.0, 0.2]), 0)
      >>> constraint.normal.tolist(), bool(constraint.keeps(jnp.array([0.0, 0.2])))
      ([-1.0, 2.0], True)
    """
    x = _checks.sample(x)
    label = _checks.label(logits_fn, x, label)
    classes = _checks.num_classes(logits_fn, x)
    if classes < 2:
        raise ValueError(f"a label constraint needs at least 2 classes, but `logits_fn` has {classes}.")
    logits, pull = jax.vjp(logits_fn, x)
    others = jnp.where(jnp.arange(classes) == label, -jnp.inf, logits)
    competitor = jnp.argmax(others)
    difference = jax.nn.one_hot(competitor, classes, dtype=logits.dtype) - jax.nn.one_hot(
        label, classes, dtype=logits.dtype
    )
    return LabelConstraint(pull(difference)[0], _checks.of_class(logits, label) - logits[competitor], competitor)
