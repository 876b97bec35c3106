"""From Flax modules to the two functions that the rest of the library knows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.errors import InvalidRngError
from jax.core import Tracer
from jax.tree_util import Partial
from jaxtyping import PRNGKeyArray

from jaxattr.evaluation import Variables, frozen


# A dataclass and not a closure: two functions made of equal modules are equal, which is what jit
# compares when it looks for a compiled program.
@dataclass(frozen=True)
class _Batched:
    model: nn.Module

    def __call__(self, variables, xs, *, train=False, key=None) -> tuple[Any, dict[str, Any]]:
        if not train:
            return self.model.apply(variables, xs, train=False), {}
        # Every collection but the parameters is state that a forward pass may change.
        mutable = [name for name in variables if name != "params"]
        try:
            logits, updates = self.model.apply(
                variables,
                xs,
                train=True,
                mutable=mutable,
                rngs={} if key is None else {"dropout": key},
            )
        except InvalidRngError as error:
            raise ValueError(f"{type(self.model).__name__} draws random numbers in training; pass `key=`.") from error
        return logits, dict(updates)


def logits_fn(model: nn.Module, variables: Variables) -> Partial:
    """Turn a module and its variables into a classifier of ONE input, in evaluation mode.

    Running statistics are frozen and dropout is off. The result is callable and a pytree: given to
    a compiled function as an argument, it is compiled once per architecture, whatever the weights.

    Args:
      model: a module whose ``__call__(xs, train=False)`` takes a batch.
      variables: its variables, a dictionary with ``"params"``.

    Returns:
      ``Partial(apply, variables)``, ``(*shape) -> (classes,)``.

    Raises:
      ValueError: if ``variables`` has no ``"params"``.

    Example:
      >>> from jaxattr.models import MLP, init
      >>> model = MLP(num_classes=2, hidden=())
      >>> variables = init(model, jax.random.key(0), (3,))
      >>> classify = jax.jit(lambda logits_fn, x: logits_fn(x))
      >>> classify(logits_fn(model, variables), jnp.ones(3)).shape
      (2,)
    """
    if not isinstance(variables, Mapping) or "params" not in variables:
        given = list(variables) if isinstance(variables, Mapping) else type(variables).__name__
        raise ValueError(
            "`variables` must be a dictionary with 'params' (and 'batch_stats' where the network "
            f"has them), got {given}."
        )
    return frozen(apply_fn(model), variables)


def apply_fn(model: nn.Module) -> _Batched:
    """Turn a module into the function that training and evaluation know.

    It is ``apply_fn(variables, xs, *, train=False, key=None) -> (logits, updates)``, with a batch
    ``xs``. In training, ``updates`` holds the collections that the pass has changed
    (``{"batch_stats": ...}``); in evaluation it is empty. The key is for dropout; networks without
    it need none.

    Example:
      >>> from jaxattr.models import MLP, init
      >>> model = MLP(num_classes=2)
      >>> variables = init(model, jax.random.key(0), (3,))
      >>> logits, updates = apply_fn(model)(variables, jnp.ones((5, 3)), train=True)
      >>> logits.shape, updates
      ((5, 2), {})
    """
    return _Batched(model)


def init(model: nn.Module, key: PRNGKeyArray, input_shape: Sequence[int]) -> dict[str, Any]:
    """Draw initial variables for inputs of ``input_shape`` (of one sample, without the batch axis).

    They are a dictionary of arrays of the default float type, ``{"params": ..., "batch_stats":
    ...}``: weights of any other origin can be put in their place.

    Example:
      >>> from jaxattr.models import MLP
      >>> jax.tree.map(jnp.shape, init(MLP(num_classes=2, hidden=()), jax.random.key(0), (3,)))
      {'params': {'Dense_0': {'bias': (2,), 'kernel': (3, 2)}}}
    """
    example = jnp.zeros((1, *input_shape))
    draw = model.init
    if not isinstance(key, Tracer):
        # XLA's CPU backend optimizes every random draw at length, to run it once: 24 s for a ResNet
        # on two cores, 2 s without.
        options = {"xla_backend_optimization_level": 0} if jax.default_backend() == "cpu" else None
        draw = jax.jit(model.init, compiler_options=options)
    variables = draw(key, example)
    # Flax makes float32 parameters also when 64-bit mode is on.
    return jax.tree.map(lambda leaf: leaf.astype(example.dtype), dict(variables))


def is_smooth(model: nn.Module) -> bool:
    """Tell whether the logits are twice differentiable in the input: no ReLU, no max pooling.

    Raises:
      TypeError: if the module has no field ``beta``, so that nothing is known about it.

    Example:
      >>> from jaxattr.models import ConvNet
      >>> is_smooth(ConvNet()), is_smooth(ConvNet(beta=None)), is_smooth(ConvNet(pooling="max"))
      (True, False, False)
    """
    if not hasattr(model, "beta"):
        raise TypeError(
            f"nothing is known about {type(model).__name__}: only modules with a field `beta` "
            "(and `pooling`, where they pool) can be asked."
        )
    return model.beta is not None and getattr(model, "pooling", "average") != "max"
