"""Networks of every framework, as their users have them, and a few samples."""

import functools
from dataclasses import dataclass
from typing import Any

import equinox as eqx
import flax.linen as nn
import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.tree_util import Partial

import jaxattr as ja

KEY = jax.random.key(0)
XS = np.random.default_rng(0).uniform(0.1, 0.9, size=(4, 3)).astype(np.float32)
LABELS = np.array([0, 1, 1, 0])
# A program of one device is quicker to compile.
ONE_DEVICE = {"devices": jax.devices()[:1]}


@jax.tree_util.register_dataclass
@dataclass
class Registered:
    """Plain JAX, with an activation that is no array."""

    first: Any
    second: Any
    scale: float

    def __call__(self, x):
        return self.second @ jnp.tanh(self.scale * (self.first @ x))


class WithStatistics(nnx.Module):
    """Dropout and running statistics, off after ``eval()``; over one sample, as NNX's layers take any leading axes."""

    def __init__(self, rngs):
        self.first, self.second = nnx.Linear(3, 4, rngs=rngs), nnx.Linear(4, 2, rngs=rngs)
        self.norm, self.dropout = nnx.BatchNorm(4, rngs=rngs), nnx.Dropout(0.5, rngs=rngs)

    def __call__(self, x):
        return self.second(self.dropout(jax.nn.softplus(self.norm(self.first(x)))))


LINEN = nn.Sequential([nn.Dense(4), nn.softplus, nn.Dense(2)])


HAIKU = hk.without_apply_rng(
    hk.transform(lambda xs: hk.nets.MLP([4, 2], activation=jax.nn.softplus)(xs))  # noqa: PLW0108 (made inside only)
)


def _one_of(params, x):
    return HAIKU.apply(params, x[None])[0]


def nnx_network(seed):
    module = WithStatistics(nnx.Rngs(seed))
    module.eval()
    return module


def registered(seed):
    rng = np.random.default_rng(seed)
    return Registered(jnp.asarray(rng.normal(size=(4, 3))), jnp.asarray(rng.normal(size=(2, 4))), 0.5)


# A network of every framework, by seed, as its users have it.
MAKERS = {
    "partial": lambda seed: Partial(jnp.dot, jax.random.normal(jax.random.key(seed), (2, 3))),
    "registered dataclass": registered,
    "its method": lambda seed: registered(seed).__call__,
    "equinox": lambda seed: eqx.nn.MLP(3, 2, 4, 1, activation=jax.nn.softplus, key=jax.random.key(seed)),
    "nnx": nnx_network,
    "bound linen": lambda seed: LINEN.bind(LINEN.init(jax.random.key(seed), XS[:1])),
    "linen by logits_fn": lambda seed: ja.models.logits_fn(LINEN, LINEN.init(jax.random.key(seed), XS[:1])),
    "functools.partial of linen": lambda seed: functools.partial(LINEN.apply, LINEN.init(jax.random.key(seed), XS[0])),
    "haiku": lambda seed: Partial(_one_of, HAIKU.init(jax.random.key(seed), XS[:1])),
}
