"""Find the perturbations that keep the label, to first order (Wang and Kong 2023, Proposition 1)."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from jaxattr import _checks
from jaxattr._chunking import map_over
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
        """Return whether ``x + delta`` keeps the label, to first order."""
        return jnp.vdot(self.normal, delta) < self.margin


class LabelRegion(NamedTuple):
    """The half-spaces ``<normals[k], delta> < margins[k]`` in which no class k overtakes the label y.

    Attributes:
      normals: ``grad f_k(x) - grad f_y(x)``, (classes, *shape); zero for the label itself.
      margins: ``f_y(x) - f_k(x)``, (classes,); infinite for the label itself.
    """

    normals: Array
    margins: Array

    def keeps_each(self, delta: Float[Array, "*shape"]) -> Array:
        """Return whether ``x + delta`` keeps the label against each class, to first order: (classes,)."""
        with jax.default_matmul_precision("highest"):
            return jnp.tensordot(self.normals, delta, axes=delta.ndim) < self.margins

    def keeps(self, delta: Float[Array, "*shape"]) -> Array:
        """Return whether ``x + delta`` keeps the label against all classes, to first order."""
        return jnp.all(self.keeps_each(delta))


def label_constraint(logits_fn: LogitsFn, x: Float[Array, "*shape"], label: Any) -> LabelConstraint:
    """Find the half-space in which the second-best class does not win (Wang and Kong 2023, Proposition 1, Eq. 8).

    The paper states ``M = (J_{y'} - J_y)^T 1`` for attributions that are complete (column sums: its ``grad g`` is
    ``J^T``). By completeness ``J^T 1 = grad f_y``, so that M is the gradient of a difference of two logits: two plain
    gradients, no Jacobian, and the baseline's output cancels.

    The constraint does not change the bounds (Section 4.3): of a maximizer ``delta`` and ``-delta``, which move the
    attribution equally far in the linear model, at least one is in the half-space whenever the sample is classified
    correctly. T_e and T_c are therefore the same numbers with and without the constraint. With several competitors
    (:func:`label_region`) both may be excluded; the bound then still holds but need not be attained, and
    :func:`~jaxattr.bounds.label_constrained` is smaller. The condition is on the linearized margin: it does not stop
    the real label from changing.

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
    margins, normal = _linearized(logits_fn, x, label)
    competitor = jnp.argmin(margins)
    return LabelConstraint(normal(competitor), margins[competitor], competitor)


def label_region(logits_fn: LogitsFn, x: Float[Array, "*shape"], label: Any, *, chunk: int | None = 32) -> LabelRegion:
    """Find the half-spaces in which no other class wins (Wang and Kong 2023, Proposition 1).

        <grad f_k(x) - grad f_y(x), delta> < f_y(x) - f_k(x)        for all k other than y.

    One forward pass and as many backward passes as there are classes; the normals hold classes times features numbers.

    Args:
      logits_fn: classifier of one input.
      x: the sample.
      label: its class y.
      chunk: backward passes made at once; ``None`` for all.

    Returns:
      A :class:`LabelRegion`.

    Raises:
      ValueError: if there are fewer than two classes, or the label, ``chunk`` or a shape does not fit.

    Example:
      >>> import jax.numpy as jnp
      >>> import jaxattr as ja
      >>> logits_fn = lambda x: jnp.stack([0.1, x[0], -x[0]])  # class 1 to the right, class 2 to the left
      >>> region = ja.bounds.label_region(logits_fn, jnp.zeros(2), 0)
      >>> region.keeps_each(jnp.array([0.2, 0.0])).tolist(), region.keeps_each(jnp.array([-0.2, 0.0])).tolist()
      ([True, False, True], [True, True, False])
    """
    margins, normal = _linearized(logits_fn, x, label)
    return LabelRegion(map_over(normal, jnp.arange(margins.size), chunk), margins)


def _linearized(logits_fn: LogitsFn, x: Any, label: Any) -> tuple[Array, Callable[[Array], Array]]:
    """Return the label's margins over all classes (infinite over itself), and ``k -> normal`` of k's half-space."""
    x = _checks.sample(x)
    label = _checks.label(logits_fn, x, label)
    classes = _checks.num_classes(logits_fn, x)
    if classes < 2:
        raise ValueError(f"a label constraint needs at least 2 classes, but `logits_fn` has {classes}.")
    # The pullback multiplies at the precision of the forward pass.
    with jax.default_matmul_precision("highest"):
        logits, pull = jax.vjp(logits_fn, x)
    every, own = jnp.arange(classes), logits.dtype

    def normal(k: Array) -> Array:
        difference = (every == k).astype(own) - (every == label).astype(own)
        return pull(difference)[0]

    # Subtract in the wider dtype: a difference of 16-bit logits that is rounded to 16 bits again would lose digits.
    logits = logits.astype(jnp.promote_types(own, x.dtype))
    return jnp.where(every == label, jnp.inf, _checks.of_class(logits, label) - logits), normal
