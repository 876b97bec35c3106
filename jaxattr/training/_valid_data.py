"""Refuse invalid training data before the first step, and explain a step that failed."""

import logging
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxattr import _checks
from jaxattr.apply_fn import ApplyFn, TrainingObjective, Variables
from jaxattr.labeled import check_labels, samples_and_labels

logger = logging.getLogger("jaxattr.training")

_HOW_TO_FIND = "jax.config.update('jax_debug_nans', True) shows the operation."


def require_arguments(variables: Variables, n: int, batch_size: int, epochs: int | None, steps: int | None) -> None:
    """Refuse arguments that do not fit together.

    Raises:
      ValueError: says which.
    """
    if "params" not in variables:
        raise ValueError(f"`variables` needs 'params', got {list(variables)}.")
    if not 1 <= batch_size <= n:
        raise ValueError(f"`batch_size` is {batch_size}; accepted is 1 to {n}, all samples.")
    if (epochs is None) == (steps is None):
        raise ValueError(f"give either `epochs` or `steps`, got {epochs=} and {steps=}.")
    if min(length for length in (epochs, steps) if length is not None) < 0:
        raise ValueError(f"the length of training is negative: {epochs=}, {steps=}.")
    for path, leaf in jax.tree_util.tree_leaves_with_path(dict(variables)):
        if jnp.issubdtype(leaf.dtype, jnp.floating) and not bool(jnp.all(jnp.isfinite(leaf))):
            raise ValueError(f"`variables` have numbers that are not finite in {jax.tree_util.keystr(path)}.")


def checked(
    objective: TrainingObjective, apply_fn: ApplyFn, variables: Variables, data: Any, batch_size: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return inputs and labels on the host, and refuse invalid ones here, where values are known.

    Raises:
      TypeError: if inputs are not floating-point numbers.
      ValueError: if inputs are not finite or outside of the box of the objective's attack, or labels do not exist.
    """
    xs, labels = samples_and_labels(data)
    _checks.sample(xs[:1])
    # Convert as JAX would: without 64-bit mode, float64 inputs become float32.
    xs, labels = (a.astype(jax.dtypes.canonicalize_dtype(a.dtype), copy=False) for a in (xs, labels))
    not_finite = np.flatnonzero(~np.isfinite(xs.reshape(len(xs), -1)).all(axis=1))
    if not_finite.size:
        raise ValueError(
            f"`data.x` has numbers that are not finite in {not_finite.size} of {len(xs)} samples, the first of them"
            f" {not_finite[0]}; leave these out, or mend them."
        )
    ball = getattr(objective, "ball", None)
    if ball is not None:
        ball.check_input(xs)
    _require_labels(apply_fn, variables, xs, labels, batch_size)
    return xs, labels


def _require_labels(apply_fn: ApplyFn, variables: Variables, xs: np.ndarray, labels: np.ndarray, batch_size: int):
    batch = jax.ShapeDtypeStruct((batch_size, *xs.shape[1:]), xs.dtype)
    try:
        logits, _ = jax.eval_shape(apply_fn, dict(variables), batch)
    # An objective may do without the network. One that takes it fails in the same way at its first step.
    except Exception as error:
        logger.debug("labels are not compared with the logits, which cannot be had: %s", error)
        return
    if logits.ndim != 2:
        return
    check_labels(labels, logits.shape[1], "data.label")


def cause(step: int, loss_was_finite: bool) -> str:
    """Explain the first step whose loss or gradient was not finite, given finite inputs."""
    if loss_was_finite:
        return (
            "The loss itself was finite, and its gradient was not: somewhere a function is differentiated where it has"
            " no derivative, such as a square root or a norm at 0 (of a flat image, of a zero vector). A smaller"
            f" learning rate does not help; {_HOW_TO_FIND}"
        )
    if step == 1:
        return (
            "It is the loss of the initial weights, so the learning rate is not the cause: on these inputs, which are"
            f" finite, the network or the objective overflows, or takes a logarithm or quotient of 0. {_HOW_TO_FIND}"
        )
    return (
        "The loss was finite before: a smaller learning rate or gradient clipping (optax.clip_by_global_norm) may help."
    )
