"""Build the smooth twin of a function: the same program, with smooth operations in the place of those with kinks."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any, Literal, TypeAlias, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import jaxpr_as_fun
from jax.tree_util import Partial

from jaxattr import _checks, networks
from jaxattr._logits import predicted
from jaxattr.programs import interpreter, kinks
from jaxattr.programs._stand_ins import Smoother

Pooling: TypeAlias = Literal["logsumexp", "logmeanexp", "average"]
"""Replacements of a maximum over a window or along axes."""

POOLINGS: tuple[str, ...] = get_args(Pooling)

BETAS = (1.0, 1.5, 2.0, 3.0, 5.0, 7.0, 10.0, 15.0, 20.0, 30.0, 50.0, 70.0, 100.0, 150.0, 200.0, 300.0, 500.0)
"""The grid of ``beta="match"``."""

logger = logging.getLogger(__name__)


def smooth(
    fn: Callable[..., Any],
    x: Any = None,
    beta: float | Literal["match"] = 10.0,
    pooling: Pooling = "logsumexp",
    *,
    samples: Any = None,
    agreement: float = 0.98,
    betas: Sequence[float] = BETAS,
) -> Callable[..., Any]:
    r"""Build the smooth twin of a function: the same program with smooth operations where it has kinks.

    Bounds need two derivatives of a network, which ReLU and max-pooling do not have (:func:`jaxattr.kinks` lists them).
    With :math:`s(z) = \log(1 + e^{\beta z}) / \beta` and :math:`m(a, b) = \log(e^{\beta a} + e^{\beta b}) / \beta`:

    ============================================  ===================================================================
    operation                                     in its place
    ============================================  ===================================================================
    ``relu``, ``max(z, 0)``                       :math:`s(z)`
    ``relu6``, ``clip``, ``clamp``, ``hard_*``    :math:`l + s(z - l) - s(z - h)` between the ends l and h
    ``leaky_relu``, PReLU                         :math:`a z + (1 - a) s(z)`
    ``elu``, ``celu``, ``selu``                   :math:`s(z) + a (e^{-s(-z) / w} - 1)`
    ``max(a, b)``, ``min(a, b)``                  :math:`m(a, b)`, :math:`-m(-a, -b)`
    ``abs``                                       :math:`m(z, -z)`
    maxima along axes and of windows              :math:`\log(\sum_i e^{\beta z_i}) / \beta`, see ``pooling``
    ``cummax``, ``cummin``                        likewise
    ============================================  ===================================================================

    ``jnp.where`` is recognized as one of these: ``where(z > 0, z, slope * z)``, ``where(a > b, a, b)``. What
    is smooth already stays as it is. The twin's error is at most ``log(2) / beta`` per ReLU and ``log(n) / beta`` per
    window of n entries; its second derivatives grow with ``beta``, and bounds with them.

    **The twin** takes the arguments of ``fn``. A ``jax.tree_util.Partial`` stays one, of the same
    arrays, and every other network that holds its arrays apart (an Equinox or NNX module, a registered dataclass, a
    bound linen module) becomes a ``Partial`` with its arrays as leaves: weights stay arguments of compiled programs.
    The twin is traced when ``fn`` would be, and works under ``jit``, ``vmap``, ``grad`` and in loops. Operations that
    depend on weights alone are left as they are; of a function that takes its weights as an argument, that argument is
    an input like others.

    Args:
      fn: any JAX function. Differentiate the twin, not ``fn``: a derivative of ReLU is a step.
      x: an example of its one input, or ``jax.ShapeDtypeStruct``: what cannot be replaced is refused now, and not when
        the twin is first called.
      beta: sharpness; ``"match"`` chooses it by ``samples``, see :func:`smooth_match`.
      pooling: ``"logsumexp"``, which is above the maximum by ``log(n) / beta`` at most (all n entries equal);
        ``"logmeanexp"``, which is below it by as much at most (one entry far above the others); or ``"average"``,
        the mean, another function altogether.
      samples: with ``beta="match"``, inputs with a leading axis.
      agreement: with ``beta="match"``, the wanted share of decisions that stay, in (0, 1].
      betas: with ``beta="match"``, the grid.

    Returns:
      The twin.

    Raises:
      TypeError: if ``fn`` is not callable.
      ValueError: for an operation that has no smooth stand-in (sorting, rounding, a choice by comparison), with its
        name, file and line, when the twin is traced; for a ``beta`` or ``pooling`` that is not accepted; and as
        :func:`smooth_match`.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> import jaxattr as ja
      >>> network = lambda x: jax.nn.relu(x[:2]) - jnp.max(x)
      >>> twin = ja.smooth(network, jnp.zeros(3), beta=20.0)
      >>> [[round(float(value), 3) for value in f(jnp.array([1.0, 0.0, -1.0]))] for f in (network, twin)]
      [[0.0, -1.0], [0.0, -0.965]]
      >>> len(ja.kinks(network, jnp.zeros(3))), ja.kinks(twin, jnp.zeros(3))
      (2, [])
    """
    if beta == "match":
        if samples is None:
            raise ValueError(
                'beta="match" needs `samples`: inputs with a leading axis, of which the decisions are kept.'
            )
        twin = smooth_match(fn, samples, agreement=agreement, betas=betas, pooling=pooling).twin
    else:
        if samples is not None:
            raise ValueError(f'`samples` are for beta="match", but beta is {beta!r}; leave one of them out.')
        twin = _twin(fn, float(_checks.positive("beta", beta, 'give one, or "match" with `samples`')), pooling)
    if x is not None:
        jax.eval_shape(twin, x)
    return twin


@dataclass(frozen=True)
class SmoothMatch:
    """The result of :func:`smooth_match`.

    Attributes:
      twin: the smooth twin.
      beta: its sharpness.
      agreement: the share of samples that it classifies as the original does.
      table: ``(beta, agreement)`` of all that were tried.
    """

    twin: Callable[..., Any]
    beta: float
    agreement: float
    table: tuple[tuple[float, float], ...]


def smooth_match(
    fn: Callable[[Any], Any],
    samples: Any,
    *,
    agreement: float = 0.98,
    betas: Sequence[float] = BETAS,
    pooling: Pooling = "logsumexp",
) -> SmoothMatch:
    """Find the smallest sharpness at which the smooth twin of a network decides as the network does.

    Of all betas that keep enough decisions the smallest has the smallest second derivatives, and so the smallest
    bounds. The grid is tried upwards; all of it is one compilation. Labels are not needed. The result is logged, too
    (logger ``jaxattr``, level ``INFO``).

    Args:
      fn: a network of ONE input, ``(*shape) -> (classes,)``; the decision is the largest logit, or of a network of one
        logit its sign.
      samples: inputs with a leading axis.
      agreement: the wanted share of samples with the same decision, in (0, 1]. Where logits are not finite, there is
        none, and the sample counts as one that differs.
      betas: the grid, in any order.
      pooling: as in :func:`smooth`.

    Returns:
      The twin, its beta, the share of decisions kept, and the shares at smaller betas.

    Raises:
      ValueError: if no beta of the grid keeps enough, with the best one; for arguments that are not accepted.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> import jaxattr as ja
      >>> network = lambda x: jnp.stack([jax.nn.relu(x[0]), 0.1 + jax.nn.relu(x[1])])
      >>> match = ja.smooth_match(network, jax.random.uniform(jax.random.key(0), (200, 2)))
      >>> match.beta, match.agreement >= 0.98, [beta for beta, _ in match.table]
      (2.0, True, [1.0, 1.5, 2.0])
    """
    if not isinstance(agreement, Real) or not 0 < agreement <= 1:
        raise ValueError(f"`agreement` is {agreement!r}; give a share in (0, 1], such as 0.98.")
    grid = sorted({float(_checks.positive("beta", beta, 'give one, or "match" with `samples`')) for beta in betas})
    leaves = jax.tree.leaves(samples)
    if not grid or not leaves or not all(np.ndim(leaf) and len(leaf) for leaf in leaves):
        raise ValueError(
            f"`betas` and `samples` must have at least one entry, got {len(grid)} betas and samples of shape "
            f"{[np.shape(leaf) for leaf in leaves]}; samples have a leading axis."
        )
    samples = jax.tree.map(jnp.asarray, samples)
    one = jax.eval_shape(lambda xs: fn(jax.tree.map(lambda leaf: leaf[0], xs)), samples)
    if not isinstance(one, jax.ShapeDtypeStruct) or one.ndim > 1 or one.size == 0:
        raise ValueError(f"a network of one input must return its logits, of shape (classes,); `fn` returns {one}.")
    # Pass weights and beta as arguments: the grid takes one compilation, and no program holds the weights.
    arrays, again = _split(networks.as_pytree(fn))
    original = np.asarray(jax.jit(lambda arrays, xs: _decisions(again(arrays), xs))(arrays, samples))
    of_twin = jax.jit(lambda beta, arrays, xs: _decisions(_twin(again(arrays), beta, pooling), xs))
    table = []
    for beta in grid:
        same = np.asarray(of_twin(jnp.asarray(beta, one.dtype), arrays, samples)) == original
        kept = float(np.mean(same & (original >= 0)))
        table.append((beta, kept))
        if kept >= agreement:
            logger.info("beta=%g keeps %.1f %% of %d decisions", beta, 100 * kept, len(original))
            return SmoothMatch(_twin(fn, beta, pooling), beta, kept, tuple(table))
    best = max(table, key=lambda row: row[1])
    tried = ", ".join(f"{beta:g}: {share:.1%}" for beta, share in table)
    raise ValueError(
        f"no beta up to {grid[-1]:g} keeps {agreement:.1%} of {len(original)} decisions; best is beta={best[0]:g} with"
        f" {best[1]:.1%}. Give larger `betas`, or ask for less `agreement`. Tried: {tried}."
    )


def _decisions(network: Callable[[Any], Any], samples: Any) -> Any:
    def decide(x):
        logits = network(x)
        # The sign of a single logit decides.
        return predicted(jnp.stack([jnp.zeros_like(logits), logits]).ravel() if logits.size == 1 else logits)

    return jax.lax.map(decide, samples, batch_size=min(32, len(jax.tree.leaves(samples)[0])))


@dataclass(frozen=True)
class Twin:
    """The smooth twin of a function, built by :func:`smooth`; equal twins share one entry in the caches of ``jit``.

    Attributes:
      fn: the function; ``None`` if it is the first argument.
      beta: sharpness, a number.
      pooling: see :func:`smooth`.
      held: number of leading arguments that are weights and no inputs.
      held_names: names of keyword arguments that are weights.
    """

    fn: Callable[..., Any] | None
    beta: Any
    pooling: Pooling
    held: int = 0
    held_names: tuple[str, ...] = ()

    @property
    def __wrapped__(self) -> Callable[..., Any]:
        """Return the original function, whose signature is that of the twin."""
        if self.fn is None:
            raise AttributeError("__wrapped__")
        return self.fn

    @property
    def __name__(self) -> str:
        return getattr(self.fn, "__name__", "smooth")

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Evaluate the twin on the arguments of the function."""
        weights = args[: self.held], {name: kwargs[name] for name in self.held_names if name in kwargs}
        inputs = args[self.held :], {name: value for name, value in kwargs.items() if name not in weights[1]}
        of_weights, with_weights = _split(weights)
        of_inputs, with_inputs = _split(inputs, (float, complex))
        if not any(jnp.issubdtype(jnp.result_type(value), jnp.inexact) for value in of_inputs):
            raise ValueError(
                "the smooth twin needs an input of a floating-point type, to which the network is smooth, but got "
                f"{[str(jnp.result_type(value)) for value in of_inputs] or 'no arrays'}: convert it, or explain the "
                "function of what is looked up (embeddings)."
            )

        def flat(*values):
            first, second = with_weights(values[: len(of_weights)]), with_inputs(values[len(of_weights) :])
            call = (*first[0], *second[0])
            return (self.fn or _call)(*call, **first[1], **second[1])

        values = (*of_weights, *of_inputs)
        program, tree = interpreter.trace(flat, *values)
        depends = [False] * len(of_weights) + [True] * len(of_inputs)
        if found := kinks.find(program, depends):
            smoother = Smoother(self.beta, self.pooling, [each.path for each in found])
            program, _ = interpreter.trace(lambda *values: smoother(program, *values), *values)
            if left := kinks.find(program, depends):
                raise ValueError(_refusal(left, found))
        return jax.tree.unflatten(tree, jaxpr_as_fun(program)(*values))


def _call(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    return function(*args, **kwargs)


def _twin(fn: Callable[..., Any], beta: Any, pooling: Pooling) -> Callable[..., Any]:
    if not callable(fn):
        raise TypeError(f"`fn` must be a function, got {type(fn).__name__}.")
    if pooling not in POOLINGS:
        raise ValueError(f"`pooling` is {pooling!r}; accepted are {', '.join(map(repr, POOLINGS))}.")
    # Turn a function whose arrays are accessible, such as a bound linen module, into a pytree of them.
    fn = networks.as_pytree(fn)
    if isinstance(fn, Partial):
        twin = Twin(fn.func, beta, pooling, len(fn.args), tuple(fn.keywords))
        return Partial(twin, *fn.args, **fn.keywords)
    if networks.is_callable_pytree(fn):
        return Partial(Twin(None, beta, pooling, 1), fn)
    return Twin(fn, beta, pooling)


def _split(tree: Any, numbers: tuple[type, ...] = ()) -> tuple[list[Any], Callable[[Sequence[Any]], Any]]:
    """Split a tree into its arrays (and ``numbers``) and a function that rebuilds it from others."""
    leaves, structure = jax.tree.flatten(tree)
    # Keep Python's own numbers: they are lengths, switches such as `train=False`, and options of layers.
    places = [i for i, leaf in enumerate(leaves) if isinstance(leaf, (jax.Array, np.ndarray, np.generic, *numbers))]

    def again(values: Sequence[Any]) -> Any:
        filled = list(leaves)
        for i, value in zip(places, values, strict=True):
            filled[i] = value
        return jax.tree.unflatten(structure, filled)

    return [leaves[i] for i in places], again


_ADVICE = {
    "stop_gradient": "leave it out, or outside of the function: it makes the derivative another function's",
    **dict.fromkeys(
        ("select_n", "cond", "while", "eq", "ne", "lt", "le", "gt", "ge"),
        "a choice by comparison can jump: write it with jax.nn.relu, jax.nn.leaky_relu, jnp.maximum, jnp.clip, or as a "
        "mixture with weights by jax.nn.sigmoid",
    ),
    **dict.fromkeys(
        ("floor", "ceil", "round", "sign", "convert_element_type", "fix", "trunc", "rint", "heaviside"),
        "it is constant between jumps, so that there is nothing to explain behind it: take it out of the function",
    ),
    **dict.fromkeys(
        ("sort", "top_k", "argmax", "argmin", "median", "approx_top_k"),
        "an order jumps where two entries are equal: take it out of the function, or use soft weights (jax.nn.softmax)",
    ),
    "select_and_scatter_add": "it is the derivative of a max-pooling: differentiate the twin, not the function",
}


def _refusal(left: Sequence[kinks.Found], found: Sequence[kinks.Found]) -> str:
    # Report the places in the original function, which the twin's program may have lost.
    places, listed = [each.kink for each in found], []
    for kink in (each.kink for each in left):
        same = [each for each in places if (each.operation, each.shape) == (kink.operation, kink.shape)]
        listed.append(same[0] if same else kink)
        if same:
            places.remove(same[0])
    advice = {kink.operation: _ADVICE[kink.operation] for kink in listed if kink.operation in _ADVICE}
    return (
        f"there is no smooth stand-in for {len(left)} operation{'s' * (len(left) != 1)} between input and output:"
        + "".join(f"\n  {kink}" for kink in listed)
        + "".join(f"\n{name}: {text}." for name, text in advice.items())
        + "\nA derivative is smoothed by differentiating the twin, `jax.grad(ja.smooth(fn))`."
    )
