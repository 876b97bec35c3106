"""Turn Flax modules into the two functions that the rest of the library takes."""

import dataclasses
import functools
import inspect
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

from jaxattr.apply_fn import Variables, as_classifier

# Modules use one of these names for the switch between training and evaluation; the value is that of training.
_SWITCHES = {
    "train": True,
    "training": True,
    "is_training": True,
    "deterministic": False,
    "use_running_average": False,
}


def _switches(model: nn.Module, train: bool) -> tuple[nn.Module, dict[str, Any]]:
    """Return the module and the keyword arguments of a pass, with the switch set where the module has it."""
    values = {name: value is train for name, value in _SWITCHES.items()}
    parameters = inspect.signature(type(model).__call__).parameters
    keywords = {name: value for name, value in values.items() if name in parameters}
    fields = {field.name for field in dataclasses.fields(model)} & set(values)
    if keywords or not fields:
        return model, keywords
    # Set the switch in a field where the call has none.
    chosen: dict[str, Any] = {name: values[name] for name in fields}
    return model.clone(**chosen), {}


# A dataclass makes functions of equal modules equal, as a closure does not: jit compares them to find a compiled
# program.
@dataclass(frozen=True)
class _Batched:
    model: nn.Module

    def __hash__(self) -> int:
        try:
            return hash(self.model)
        # Modules with lists in their fields, such as `nn.Sequential`, have no hash; equality decides.
        except TypeError:
            return hash(type(self.model))

    def __call__(self, variables, xs, *, train=False, key=None) -> tuple[Any, dict[str, Any]]:
        model, switches = _switches(self.model, train)
        if not train:
            return model.apply(variables, xs, **switches), {}
        # Every collection but the parameters is state that a forward pass may change.
        mutable = [name for name in variables if name != "params"]
        try:
            logits, updates = model.apply(
                variables,
                xs,
                mutable=mutable,
                rngs={} if key is None else {"dropout": key},
                **switches,
            )
        except InvalidRngError as error:
            raise ValueError(f"{type(self.model).__name__} draws random numbers in training; pass `key=`.") from error
        return logits, dict(updates)


def logits_fn(model: nn.Module, variables: Variables) -> Partial:
    """Turn a module and its variables into a classifier of ONE input, in evaluation mode.

    Running statistics are frozen and dropout is off. The result is callable and a pytree: given to
    a compiled function as an argument, it is compiled once per architecture, whatever the weights.

    Args:
      model: a module that takes a batch. Its switch to training may be an argument of its call or one of its
        fields, ``train``, ``training``, ``is_training``, ``deterministic`` or ``use_running_average``; or it has none.
      variables: its variables, a dictionary with ``"params"``.

    Returns:
      ``Partial(apply, variables)``, ``(*shape) -> (classes,)``.

    Raises:
      TypeError: if ``model`` is no linen module.
      ValueError: if ``variables`` has no ``"params"``.

    Example:
      >>> from jaxattr.models import MLP, init
      >>> model = MLP(num_classes=2, hidden=())
      >>> variables = init(model, jax.random.key(0), (3,))
      >>> classify = jax.jit(lambda logits_fn, x: logits_fn(x))
      >>> classify(logits_fn(model, variables), jnp.ones(3)).shape
      (2,)
    """
    _require_linen(model)
    if not isinstance(variables, Mapping) or "params" not in variables:
        given = list(variables) if isinstance(variables, Mapping) else type(variables).__name__
        raise ValueError(
            "`variables` must be a dictionary with 'params' (and 'batch_stats' where the network "
            f"has them), got {given}."
        )
    return as_classifier(apply_fn(model), variables)


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
    return _Batched(_require_linen(model))


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
    model, switches = _switches(_require_linen(model), train=False)
    draw = functools.partial(model.init, **switches)
    if not isinstance(key, Tracer):
        # XLA's CPU backend optimizes every random draw at length, to run it once: 24 s for a ResNet on two cores, 2 s
        # without.
        options = {"xla_backend_optimization_level": 0} if jax.default_backend() == "cpu" else None
        draw = jax.jit(draw, compiler_options=options)
    variables = draw(key, example)
    # Flax makes float32 parameters also when 64-bit mode is on.
    return jax.tree.map(lambda leaf: leaf.astype(example.dtype), dict(variables))


def _require_linen(model: Any) -> nn.Module:
    """Return ``model`` if it is a linen module that holds no variables."""
    if isinstance(model, nn.Module) and model.scope is None:
        return model
    if isinstance(model, nn.Module):
        given = f"{type(model).__name__} bound to its variables, which is a function already: it goes wherever one does"
    elif isinstance(model, type) and issubclass(model, nn.Module):
        given = f"the class {model.__name__}; build one, `{model.__name__}(...)`"
    else:
        given = (
            f"{type(model).__name__}. A network of another framework needs no adapter: an NNX module after `eval()`, an"
            " Equinox module, `jax.tree_util.Partial(apply, weights)` of one input are taken as they are"
        )
    raise TypeError(f"`model` must be a Flax linen module without variables, got {given}.")
