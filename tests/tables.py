"""The three shared tables: methods, models, properties (the last are the tests of ``test_properties.py``).

A new method is a new row of METHODS. Whatever takes a ball takes it from the row, so that one test runs over radii;
whatever depends on the input's shape (weights of a target) gets it.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

import jaxattr as ja

L2, LInf = ja.L2, ja.LInf
SHAPE = (2, 3)
CLASSES = 3
STEPS = 3


class Row(NamedTuple):
    """A method.

    Attributes:
      kind: ``attribution``, ``bound`` or ``attack``.
      entry: the registry's name of it, ``None`` for wrappers.
      ball: the class of its threat model (unused by attributions).
      build: ``(ball, shape) -> method``.
      random: whether the result depends on the key beyond rounding.
    """

    kind: str
    entry: str | None
    ball: type[ja.balls.Ball]
    build: Callable[..., Any]
    random: bool = False

    def __call__(self, epsilon, shape=SHAPE, box=(0.0, 1.0)):
        """The method, as ``(logits_fn, x, label, key) -> result`` whatever its kind."""
        method = self.build(self.ball(epsilon, box=box), shape)
        if self.kind == "attribution":
            return lambda logits_fn, x, label, _: method(logits_fn, x, label)
        return method


def _ig(**options):
    return ja.attributions.integrated_gradients(**{"num_steps": 3, "chunk": 2, **options})


_saliency = ja.attributions.saliency()


def _ifia(dissimilarity):
    return lambda ball, shape: ja.attacks.ifia(ball, _ig(), dissimilarity(shape), num_steps=STEPS)


def target(shape):
    return jnp.linspace(0, 1, int(np.prod(shape[:2]))).reshape(shape[:2])


# Wrappers and variants have dense Jacobians, which are quick to compile; the rows of the registry have products.
def _corrected(ball, _):
    return ja.bounds.corrected(ja.bounds.singular_value(_saliency, ball, method="dense"), _saliency)


def _both(ball, _):
    return ja.bounds.smallest(
        ja.bounds.norm_relaxation(_saliency, ball, method="dense"),
        ja.bounds.entrywise(_saliency, ball, corner_starts=2),
    )


def _worst_direction(ball, _):
    if isinstance(ball, L2):
        return ja.attacks.worst_direction(ball, _ig(), ja.bounds.singular_value(_ig(), ball, method="dense"))
    return ja.attacks.worst_direction(ball, _saliency, ja.bounds.norm_relaxation(_saliency, ball, num_steps=5))


def _attributions():
    constructors = {
        "saliency": lambda: _saliency,
        "input_x_gradient": ja.attributions.input_x_gradient,
        "integrated_gradients": _ig,
    }
    for name, constructor in constructors.items():
        yield name, Row("attribution", name, L2, lambda *_, c=constructor: c())
    wrapped = ja.outputs.explaining(_ig(rule="trapezoid", baseline=0.3), ja.outputs.margin)
    yield "integrated_gradients_of_margin", Row("attribution", None, L2, lambda *_: wrapped)


def _bounds():
    b = ja.bounds
    yield (
        "singular_value",
        Row("bound", "singular_value", L2, lambda ball, _: b.singular_value(_saliency, ball, num_steps=5)),
    )
    yield (
        "singular_value_dense",
        Row("bound", None, L2, lambda ball, _: b.singular_value(_ig(), ball, method="dense", chunk=4)),
    )
    yield (
        "norm_relaxation",
        Row("bound", "norm_relaxation", LInf, lambda ball, _: b.norm_relaxation(_ig(), ball, num_steps=5)),
    )
    yield "entrywise", Row("bound", "entrywise", LInf, lambda ball, _: b.entrywise(_ig(), ball, chunk=None))
    yield (
        "semidefinite",
        Row(
            "bound",
            "semidefinite",
            LInf,
            lambda ball, _: b.semidefinite(_saliency, ball, method="products", rounds=3, num_steps=5),
        ),
    )
    yield (
        "semidefinite_dense_in_box",
        Row(
            "bound",
            None,
            LInf,
            lambda ball, _: b.semidefinite(_ig(), ball, method="dense", rounds=10, within_box=True),
        ),
    )
    yield (
        "semidefinite_cycles",
        Row(
            "bound",
            None,
            LInf,
            lambda ball, _: b.semidefinite(
                _saliency, ball, method="products", rounds=2, num_steps=4, cycles=2, tolerance=0.01
            ),
        ),
    )
    yield (
        "norm_relaxation_in_box",
        Row("bound", None, LInf, lambda ball, _: b.norm_relaxation(_ig(), ball, method="dense", within_box=True)),
    )
    yield "smallest", Row("bound", None, LInf, _both)
    yield "corrected", Row("bound", None, L2, _corrected)


def _attacks():
    a = ja.attacks
    for ball in (L2, LInf):
        yield (
            f"pgd_{ball.name}",
            Row("attack", "pgd", ball, lambda ball, _: a.pgd(ball, num_steps=STEPS, step_size=0.03), random=True),
        )
        yield f"worst_direction_{ball.name}", Row("attack", "worst_direction", ball, _worst_direction)
    yield (
        "pgd_deviation_best",
        Row(
            "attack",
            None,
            L2,
            lambda ball, _: a.pgd(
                ball, num_steps=STEPS, objective=a.deviation(_saliency, a.dissimilarities.euclidean()), keep="best"
            ),
            random=True,
        ),
    )
    yield (
        "restarts",
        Row(
            "attack",
            None,
            LInf,
            lambda ball, _: a.restarts(a.pgd(ball, num_steps=2, step_size=0.03), 2),
            random=True,
        ),
    )
    dissimilarities = {
        "top_k": lambda _: a.dissimilarities.top_k(2),
        "mass_center": lambda _: a.dissimilarities.mass_center(),
        "targeted": lambda shape: a.dissimilarities.targeted(target(shape)),
        "euclidean": lambda _: a.dissimilarities.euclidean(),
        "cosine": lambda _: a.dissimilarities.cosine(),
        "pearson": lambda _: a.dissimilarities.pearson(),
    }
    for name, dissimilarity in dissimilarities.items():
        for ball in (L2, LInf) if name == "euclidean" else (LInf,):
            row = Row("attack", "ifia", ball, _ifia(dissimilarity), random=name not in ("top_k", "targeted"))
            yield f"ifia_{name}" + ("_l2" if ball is L2 else ""), row


METHODS: dict[str, Row] = dict([*_attributions(), *_bounds(), *_attacks()])


# One row of every registry entry, and the wrappers: for what is too slow to be asked of every variant.
REPRESENTATIVES = (
    *dict.fromkeys(
        next(name for name, row in METHODS.items() if row.entry == entry)
        for entry in [row.entry for row in METHODS.values() if row.entry]
    ),
    "singular_value_dense",
    "smallest",
    "corrected",
    "restarts",
)


def names(*kinds: str) -> list[str]:
    """Rows of some kinds (all, without any)."""
    return [name for name, row in METHODS.items() if not kinds or row.kind in kinds]


class Model(NamedTuple):
    """A tiny classifier with samples.

    Attributes:
      logits_fn: with its weights in a Partial.
      other: the same with other weights.
      xs: inputs in the box, (n, *shape); the second one has entries at both of its ends.
      labels: predicted classes.
    """

    logits_fn: Partial
    other: Partial
    xs: jax.Array
    labels: jax.Array

    @property
    def shape(self):
        return self.xs.shape[1:]


def logits(weights, x):
    """V softplus(W x + a) + x^T Q x / 2 + L x + c: all plain models, so that one program serves all of them."""
    x = x.ravel()
    hidden = jax.nn.softplus(4 * (weights["W"] @ x + weights["a"])) / 4
    return weights["V"] @ hidden + weights["Q"] @ x @ x / 2 + weights["L"] @ x + weights["c"]


_SIZE = int(np.prod(SHAPE))
_SHAPES = {
    "W": (5, _SIZE),
    "a": (5,),
    "V": (CLASSES, 5),
    "Q": (CLASSES, _SIZE, _SIZE),
    "L": (CLASSES, _SIZE),
    "c": (CLASSES,),
}
# Which weights are not zero. Attributions are linear in x for a quadratic model, so that every bound is exact;
# constant for a linear one, so that J is zero; and a saturated network is flat to the last bit.
_PARTS = {"quadratic": ("Q", "c"), "linear": ("L", "c"), "softplus": ("W", "a", "V"), "saturated": ("W", "c")}
MODELS = (*_PARTS, "small_cnn")


def _draw(rng, parts):
    drawn = {name: rng.normal(size=shape) for name, shape in _SHAPES.items()}
    return {name: jnp.asarray(values * (name in parts), jnp.float32) for name, values in drawn.items()}


@functools.cache
def model(name: str, num_samples: int = 5) -> Model:
    """A row of the table of models."""
    rng = np.random.default_rng(3)
    if name == "small_cnn":
        network = ja.models.SmallCNN(num_classes=CLASSES, features=(2, 3), hidden=4)
        shape = (8, 8, 1)
        # Initialized without being compiled.
        like = jax.eval_shape(lambda key: ja.models.init(network, key, shape), jax.random.key(0))
        first, second = (
            ja.models.logits_fn(
                network, jax.tree.map(lambda leaf: jnp.asarray(rng.normal(size=leaf.shape) / 2, leaf.dtype), like)
            )
            for _ in range(2)
        )
    else:
        shape = SHAPE
        first, second = (Partial(logits, _draw(rng, _PARTS[name])) for _ in range(2))
    xs = rng.uniform(0.1, 0.9, size=(num_samples, *shape)).astype(np.float32)
    xs[1].flat[0], xs[1].flat[1] = 0.0, 1.0
    labels = jax.jit(lambda first, xs: jnp.argmax(jax.vmap(first)(xs), axis=1))(first, xs)
    return Model(first, second, jnp.asarray(xs), labels)


def cast(tree, dtype):
    """The tree with its floating-point leaves in another precision."""
    return jax.tree.map(lambda leaf: leaf.astype(dtype) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf, tree)


def tolerance(dtype: Any = jnp.float32, factor: float = 200.0) -> dict[str, float]:
    """Tolerances of some hundred units in the last place, for values of the order of 1."""
    eps = float(jnp.finfo(dtype).eps)
    return {"rtol": factor * eps, "atol": factor * eps}


def assert_trees_close(actual, expected, **options):
    """Every leaf, with its name where it differs; integers and flags exactly, directions up to their sign."""
    options = options or tolerance()
    flat, treedef = jax.tree_util.tree_flatten_with_path(actual)
    other, other_def = jax.tree_util.tree_flatten(expected)
    assert treedef == other_def
    for (path, found), reference in zip(flat, other, strict=True):
        name = jax.tree_util.keystr(path)
        a, b = np.asarray(found), np.asarray(reference)
        assert a.shape == b.shape, name
        assert a.dtype == b.dtype, name
        if name.endswith(".direction"):
            # Which of the two maximizers of ||J d|| an eigensolver returns is up to rounding.
            a, b = np.abs(a), np.abs(b)
        if np.issubdtype(a.dtype, np.floating):
            np.testing.assert_allclose(a, b, **options, err_msg=name)
        else:
            np.testing.assert_array_equal(a, b, err_msg=name)
