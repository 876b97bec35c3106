"""Identify a training run, and refuse to continue another one."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PRNGKeyArray

from jaxattr import _fingerprint
from jaxattr.apply_fn import Variables
from jaxattr.labeled import Batch
from jaxattr.training._trainer import Trainer

logger = logging.getLogger("jaxattr.training")

# These names denote the JAX version, and the two kinds of program that it traced.
_JAX, _OBJECTIVE, _OPTIMIZER = "JAX", "objective or network", "optimizer or learning rate"
# Where the name before the colon differs, those after it differ as a consequence, and are not reported.
_FOLLOWS = {
    "number of samples": ("inputs", "labels"),
    "batch_size": (_OBJECTIVE,),
    "initial weights": (_OBJECTIVE, _OPTIMIZER),
}


def of_run(
    trainer: Trainer,
    variables: Variables,
    xs: np.ndarray,
    labels: np.ndarray,
    batch_size: int,
    key: PRNGKeyArray,
) -> dict[str, Any]:
    """Return the identity of a run, keyed by the words of messages; JSON can hold it.

    Args:
      trainer: its objective, network and optimizer are traced, and not run.
      variables: where training starts.
      xs: all inputs, in their order.
      labels: their classes.
      batch_size: samples per step.
      key: random key of the run.
    """
    collections = {name: value for name, value in variables.items() if name != "params"}
    params = variables["params"]
    batch = Batch(np.zeros((batch_size, *xs.shape[1:]), xs.dtype), np.zeros(batch_size, labels.dtype))
    key_data, key_impl = jax.random.key_data(key), jax.random.key_impl(key)
    step = jax.eval_shape(lambda: jnp.asarray(0))
    optimizer = trainer.optimizer

    def gradient(params, collections, step, batch, key_data):
        key = jax.random.wrap_key_data(key_data, impl=key_impl)
        return trainer.gradient(params, collections, step, batch, key)

    state = jax.eval_shape(optimizer.init, params)
    return {
        _JAX: jax.__version__,
        "batch_size": batch_size,
        "number of samples": len(xs),
        "key": np.asarray(key_data).tolist(),
        "inputs": _fingerprint.arrays(xs),
        "labels": _fingerprint.arrays(labels.astype(np.int32)),
        "initial weights": _fingerprint.arrays(dict(variables)),
        _OBJECTIVE: _fingerprint.program(gradient, params, collections, step, batch, key_data),
        _OPTIMIZER: [
            _fingerprint.program(optimizer.init, params),
            _fingerprint.program(optimizer.update, params, state, params),
        ],
    }


def require_same(was: Mapping[str, Any], now: Mapping[str, Any], path: Path) -> None:
    """Refuse to continue another run.

    Args:
      was: the identity in the checkpoint.
      now: the identity of the run that is to continue.
      path: path of the checkpoint.

    Raises:
      ValueError: if they differ; what differs is named.
    """
    compared = [name for name in now if name != _JAX]
    if was.get(_JAX) != now[_JAX]:
        # Another version of JAX may trace the same function to another program.
        compared = [name for name in compared if name not in (_OBJECTIVE, _OPTIMIZER)]
        logger.warning(
            "%s was written with JAX %s and is continued with %s: whether objective, network and optimizer are the same"
            " cannot be told, and the numbers are equal to rounding only",
            path,
            was.get(_JAX),
            now[_JAX],
        )
    changed = [name for name in compared if was.get(name) != now[name]]
    if not changed:
        return
    follow = {name for cause in changed for name in _FOLLOWS.get(cause, ())}
    named = [name for name in changed if name not in follow]
    counts = (name for name in ("batch_size", "number of samples") if name in named)
    values = "; ".join(f"{name} {was[name]}, now {now[name]}" for name in counts)
    raise ValueError(
        f"{path} was written by a run with another {', another '.join(named)}"
        f"{f' (there {values})' if values else ''}, so continuing would not be exact; use the same"
        " arguments, or another directory."
    )
