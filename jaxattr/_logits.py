"""Compute with logits at a precision that does not depend on how confident the network is.

``1 - softmax(f)_y`` is rounded to 0 in float32 once the label is 17 ahead, and with it the label's own gradient of
probability, log-probability and cross-entropy. Here all of them are functions of the log-odds
``o_y = f_y - log sum_{j != y} exp(f_j)``, from which nothing cancels:

    p_y = sigmoid(o_y),   log p_y = -softplus(-o_y),   d p_y = sigmoid(o_y) sigmoid(-o_y) d o_y.

Names that begin with ``jaxattr_`` appear in traced programs, by which the search for kinks knows them to be smooth.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float, Int

from jaxattr._activations import sigmoid


@jax.custom_jvp
def jaxattr_softplus(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Compute ``log(1 + exp(x))``, with derivatives that keep their relative precision.

    The softplus of the activations is a series, which is quick on large arrays; of a few logits this one is as quick
    and exact to rounding.
    """
    return jnp.logaddexp(x, 0)


@jaxattr_softplus.defjvp
def _(primals, tangents):
    (x,), (slope,) = primals, tangents
    return jaxattr_softplus(x), sigmoid(x) * slope


@jax.jit
def jaxattr_log_odds(logits: Float[Array, " classes"]) -> Float[Array, " classes"]:
    """Compute ``o_k = f_k - log sum_{j != k} exp(f_j)`` for every k, in O(classes).

    Where k is not the predicted class, its own term is taken off a sum that is at least 1 without it. The predicted
    class, whose term is the sum, gets a sum of its own.
    """
    leads = jnp.arange(logits.size) == jnp.argmax(logits)
    largest = jax.lax.stop_gradient(jnp.max(logits))
    terms = jnp.exp(logits - largest)
    without = largest + jnp.log(jnp.where(leads, 1, jnp.sum(terms) - terms))
    followers = jax.nn.logsumexp(jnp.where(leads, -jnp.inf, logits))
    return logits - jnp.where(leads, followers, without)


def split(logits: Float[Array | np.ndarray, " classes"], label: Any) -> tuple[Array, Array]:
    """Return the label's logit (NaN for a traced label without a logit), and all logits with ``-inf`` in its place."""
    own = jnp.arange(logits.size) == label
    # Sum instead of indexing: a batch then has no gather, and its derivative no scatter.
    chosen = jnp.sum(jnp.where(own, logits, 0)) * jnp.where(jnp.any(own), 1, jnp.nan)
    return chosen, jnp.where(own, -jnp.inf, logits)


def log_odds_of(logits: Float[Array | np.ndarray, " classes"], label: Any) -> Float[Array, ""]:
    """Return the log-odds of one class; NaN for a traced label without a logit."""
    own, others = split(logits, label)
    return own - jax.nn.logsumexp(others)


def cross_entropy(logits: Float[Array | np.ndarray, " classes"], label: Any) -> Float[Array, ""]:
    """Compute ``-log softmax(f)_y`` of one sample."""
    return jaxattr_softplus(-log_odds_of(logits, label))


def log_softmax(logits: Float[Array | np.ndarray, " classes"]) -> Float[Array, " classes"]:
    """Compute ``log softmax(f)`` of one sample."""
    return -jaxattr_softplus(-jaxattr_log_odds(logits))


def divergence(log_p: Float[Array, " classes"], log_q: Float[Array, " classes"]) -> Float[Array, ""]:
    """Compute ``KL(p || q)`` in nats from logarithms of probabilities."""
    # An excluded class contributes 0 * (-inf) = 0, by the definition of the divergence.
    p = jnp.exp(log_p)
    return jnp.sum(jnp.where(p > 0, p * (log_p - log_q), 0))


def predicted(logits: Float[Array | np.ndarray, "*batch classes"]) -> Int[Array, "*batch"]:
    """Return the predicted class, the lower one of equals; -1 where logits are NaN or infinite, for no prediction.

    A single class of ``-inf`` is one that the network rules out, and no fault.
    """
    exists = jnp.isfinite(jnp.max(logits, axis=-1))
    return jnp.where(exists, jnp.argmax(logits, axis=-1), -1).astype(jnp.int32)


def require_classes(count: int, method: str) -> None:
    """Raise ``ValueError`` for a network of one logit where ``method`` compares classes."""
    if count < 2:
        raise ValueError(
            f"`{method}` compares classes and needs logits of at least 2, but the network has {count}: the softmax of"
            " one number is 1 whatever the input. Make two logits of one, f:"
            " `jnp.concatenate([jnp.zeros_like(f), f], axis=-1)`, which predicts class 1 where f > 0. Attributions and"
            " bounds of the logit itself need no second one."
        )
