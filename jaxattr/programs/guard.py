"""Check before every bound that the network is twice differentiable in its input, and computes precisely enough.

The check inspects traced programs only (:func:`jaxattr.programs.kinks.kinks`): it costs time while a method is traced,
and none in the compiled program. Its findings are kept for as long as the function lives, by its identity, and for
callable pytrees by their structure and the shapes of their arrays; neither functions nor arrays are kept alive.
"""

import collections
import math
import weakref
from collections.abc import Callable, Sequence
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxattr import _checks
from jaxattr._values import Value
from jaxattr.programs.kinks import Examined, Kink, examine
from jaxattr.types import LogitsFn

Kinks = Literal["refuse", "allow"]

_LISTED = 5
_KEPT = 512
_known: collections.OrderedDict[Any, Examined] = collections.OrderedDict()


def check(attribute: Any, logits_fn: LogitsFn, x: Array, kinks: Kinks = "refuse", *, method: str) -> int:
    """Count the kinks of the explained output and of the attribution; ``kinks="refuse"`` raises where there are any.

    For an attribution with a gradient field the check inspects the explained output, ``attribute.output(logits_fn)``.
    For any other attribution it inspects the attribution itself, too, on a smooth network of the same shapes: that has
    kinks of its own if it takes absolute values or sorts, say.

    Args:
      attribute: ``(logits_fn, x, label) -> map``.
      logits_fn: classifier of one input.
      x: an input.
      kinks: ``refuse`` or ``allow``.
      method: name of the calling method, for the message.

    Returns:
      How many operations are not twice differentiable in the input; 0 where they are refused.

    Raises:
      ValueError: if there are any and they are refused: which, where, how many, and what to do; or if ``kinks`` is
        neither.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> import jaxattr as ja
      >>> network = lambda x: jax.nn.relu(x)
      >>> check(ja.attributions.saliency(), network, jnp.ones(3), "allow", method="mine")
      1
    """
    _checks.choice("kinks", kinks, get_args(Kinks))
    network, explained, of_map = ([found.kink for found in part.found] for part in _examined(attribute, logits_fn, x))
    if kinks == "refuse" and (explained or of_map):
        raise ValueError(_message(method, network, explained, of_map))
    return len(explained) + len(of_map)


def require_precision(attribute: Any, logits_fn: LogitsFn, x: Array, *, method: str) -> None:
    """Refuse a network, or an attribution, that computes in fewer bits than its input has.

    A bound states the rounding of its input's type. Slopes of bfloat16 are off by up to 0.4 %, and a bound made of them
    is above or below the truth by as much, whatever type the numbers have that come out.

    Args:
      attribute: ``(logits_fn, x, label) -> map``.
      logits_fn: classifier of one input.
      x: an input.
      method: name of the calling method, for the message.

    Raises:
      TypeError: if there is such a type: which, where, and what to do.

    Example:
      >>> import jax.numpy as jnp
      >>> import jaxattr as ja
      >>> half = lambda x: jnp.tanh(x.astype(jnp.bfloat16))
      >>> require_precision(ja.attributions.saliency(), half, jnp.ones(3), method="mine")
      Traceback (most recent call last):
      TypeError: `mine` needs a network that computes in the input's float32 or wider, but it computes in bfloat16 ...
    """
    narrowest = min(_examined(attribute, logits_fn, x), key=lambda part: part.bits)
    if narrowest.bits >= jnp.finfo(x.dtype).bits:
        return
    kind = x.dtype.name
    narrower = f" Or give the input in {narrowest.narrowest.split()[0]}." if narrowest.bits >= 32 else ""
    raise TypeError(
        f"`{method}` needs a network that computes in the input's {kind} or wider, but it computes in"
        f" {narrowest.narrowest}. What follows from slopes rounded to that type may be too small. Compute in {kind}:"
        f" `jax.tree.map(lambda w: w.astype(jnp.{kind}), variables)`, and of a Flax module the field"
        f" `dtype=jnp.{kind}`.{narrower}"
    )


def _examined(attribute: Any, logits_fn: LogitsFn, x: Array) -> tuple[Examined, Examined, Examined]:
    """Examine the network, the explained output, and the attribution itself."""
    output = getattr(attribute, "output", None)
    network = explained = _looked_up((logits_fn,), x, lambda: _of_function(logits_fn, x))
    if output is not None:
        explained = _looked_up((output, logits_fn), x, lambda: _of_function(output(logits_fn), x))
    of_map = Examined([], "", math.inf)
    if getattr(attribute, "field", None) is None:
        classes = _checks.num_classes(logits_fn, x)
        of_map = _looked_up((attribute, classes), x, lambda: _of_attribution(attribute, logits_fn, x, classes))
    return network, explained, of_map


def _of_function(fn: Callable[[Any], Any], x: Array) -> Examined:
    """Examine the program between x and the result; all arrays of a callable pytree share the findings."""
    leaves, tree = jax.tree.flatten(fn)
    if jax.tree_util.treedef_is_leaf(tree):
        program = jax.make_jaxpr(fn)(x)
        depends = [True]
    else:
        places = [i for i, leaf in enumerate(leaves) if _is_array(leaf)]

        def of_arrays(arrays, x):
            full = list(leaves)
            for i, array in zip(places, arrays, strict=True):
                full[i] = array
            return jax.tree.unflatten(tree, full)(x)

        program = jax.make_jaxpr(of_arrays)([leaves[i] for i in places], x)
        depends = [*[False] * len(places), True]
    return examine(program, depends)


def _of_attribution(attribute: Any, logits_fn: LogitsFn, x: Array, classes: int) -> Examined:
    """Examine the map of a smooth network, or of the network itself, where an attribution accepts no other."""

    def smooth_network(z):
        slopes = jnp.linspace(0.5, 1.0, classes).astype(z.dtype)
        return jnp.tanh(slopes * jnp.sum(z))

    try:
        program = jax.make_jaxpr(lambda z: attribute(smooth_network, z, 0))(x)
    except Exception:
        program = jax.make_jaxpr(lambda z: attribute(logits_fn, z, 0))(x)
    return examine(program, [True], added_constants=False)


def _message(method: str, network: Sequence[Kink], explained: Sequence[Kink], of_map: Sequence[Kink]) -> str:
    kinks = [*explained, *of_map]
    counts = collections.Counter(kink.operation for kink in kinks)
    counted = ", ".join(f"{count} x {operation}" for operation, count in counts.items())
    places = "".join(f"\n  {kink}" for kink in kinks[:_LISTED])
    more = f"\n  and {len(kinks) - _LISTED} more" if len(kinks) > _LISTED else ""
    who, cure = "the network is", "Replace it by its smooth twin, `ja.smooth(logits_fn, beta=10.0)`."
    if not network and explained:
        who = "the explained output is"
        cure = (
            "Explain a smooth output: `ja.outputs.log_odds` in place of `margin`, `ja.outputs.log_probability`, or the"
            " logit itself."
        )
    elif not explained:
        who = "the attribution is"
        cure = (
            "Leave that operation out of the attribution and apply it to its map, or explain another output"
            " (`ja.outputs.log_odds` in place of `margin`)."
        )
    operations = "operation" if len(kinks) == 1 else "operations"
    return (
        f"`{method}` needs two derivatives in the input, and {who} not smooth in {len(kinks)} {operations} ({counted}):"
        f"{places}{more}\nThe derivative that JAX computes does not see a gradient jump: what follows from it is too"
        f' small, even 0. {cure} If you know better, `kinks="allow"` computes with the derivatives that there are, and'
        " the result says how many kinks there were."
    )


# Keep findings


def _looked_up(parts: Sequence[Any], x: Array, look: Callable[[], Examined]) -> Examined:
    try:
        key = (*map(_identity, parts), x.shape, x.dtype)
        hash(key)
    except TypeError:
        return look()
    if key not in _known:
        _known[key] = look()
        while len(_known) > _KEPT:
            _known.popitem(last=False)
    return _known[key]


def _identity(value: Any) -> Any:
    """Return a key for a value: equal for equal values, without keeping a function or an array alive.

    Raises:
      TypeError: if a value has no key.
    """
    if _is_array(value):
        return np.shape(value), value.dtype
    if value is None or isinstance(value, (str, bytes, bool, int, float, complex, type, np.dtype)):
        # Add the type to the key, since 1, 1.0 and True are equal.
        return type(value), value
    if isinstance(value, (tuple, list)):
        return type(value), *map(_identity, value)
    if isinstance(value, dict):
        return dict, *((name, _identity(entry)) for name, entry in value.items())
    leaves, tree = jax.tree.flatten(value)
    # A method without arrays has no leaves, and is one object wherever it is built.
    if jax.tree_util.treedef_is_leaf(tree) or (isinstance(value, Value) and not leaves):
        return weakref.ref(value)
    return _structure(tree), *map(_identity, leaves)


def _structure(tree: Any) -> Any:
    data = tree.node_data()
    if data is None:
        return None
    kind, options = data
    return kind, _identity(options), *map(_structure, tree.children())


def _is_array(value: Any) -> bool:
    return isinstance(value, (jax.Array, np.ndarray, np.generic))
