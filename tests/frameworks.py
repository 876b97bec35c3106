"""The shared table of networks: one per framework and kind of layer, with the kinks that a reader of its code counts.

Each is a ``logits_fn`` of one input, as a user of that framework would write it. Weights are drawn at random.
"""

import collections
import functools
import pathlib
import tempfile
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import flax.linen as nn
import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import lax
from jax.tree_util import Partial
from torch_files import dictionary, in_zip, tensor

import jaxattr as ja

KEY = jax.random.key(0)
IMAGE, SEQUENCE, VECTOR = (6, 6, 2), (5, 4), (4,)


class Network(NamedTuple):
    """A network of the table.

    Attributes:
      build: makes its ``logits_fn``.
      shape: of its input.
      kinks: how many of each operation.
      where: a pattern of the place of every kink. The annotations of this library are checked in tests, by wrappers of
        tests/annotations.py, which are the innermost frames that are no library's.
    """

    build: Callable[[], Callable[[Any], Any]]
    shape: tuple[int, ...]
    kinks: dict[str, int]
    where: str = r"tests/frameworks\.py:"

    @property
    def framework(self) -> str:
        return self.build.__name__.partition("_")[0]


NETWORKS: dict[str, Network] = {}


def _row(shape, where=r"tests/frameworks\.py:", /, **kinks):
    def add(build):
        NETWORKS[build.__name__] = Network(functools.cache(build), shape, kinks, where)
        NETWORKS[build.__name__].build.__name__ = build.__name__
        return build

    return add


def count(kinks) -> dict[str, int]:
    """Operations of a list of kinks, with their numbers."""
    return dict(collections.Counter(kink.operation for kink in kinks))


def example(shape):
    """An input in [0, 1]."""
    return jnp.asarray(np.random.default_rng(0).uniform(size=shape), jnp.float32)


def drawn(init, shape):
    """Parameters of the shapes that a framework gives them, which its own ``init`` would compile; variances above 0."""
    rng, shapes = np.random.default_rng(0), jax.eval_shape(init, KEY, jnp.ones((1, *shape)))

    def draw(path, leaf):
        inputs = leaf.size // leaf.shape[-1] if leaf.shape else 1
        values = rng.normal(size=leaf.shape) / np.sqrt(inputs)
        return jnp.asarray(1 + values**2 if "batch_stats" in jax.tree_util.keystr(path) else values, leaf.dtype)

    return jax.tree_util.tree_map_with_path(draw, shapes)


def one(model, shape):
    """A linen module as a function of one input."""
    variables = drawn(model.init, shape)
    return Partial(lambda variables, x: model.apply(variables, x[None])[0], variables)


# Flax linen


class ConvNet(nn.Module):
    activation: Callable = nn.relu
    pool: Callable = nn.max_pool

    @nn.compact
    def __call__(self, x):
        for features in (2, 3):
            x = self.activation(nn.Conv(features, (3, 3))(x))
            x = self.pool(x, (2, 2), strides=(2, 2))
        return nn.Dense(3)(self.activation(nn.Dense(5)(x.reshape(x.shape[0], -1))))


@_row(IMAGE, relu=3, reduce_window_max=2)
def linen_relu_and_max_pool():
    return one(ConvNet(), IMAGE)


@_row(IMAGE)
def linen_gelu_and_average_pool():
    return one(ConvNet(nn.gelu, nn.avg_pool), IMAGE)


@_row(IMAGE)
def linen_exact_gelu():
    return one(ConvNet(functools.partial(nn.gelu, approximate=False), nn.avg_pool), IMAGE)


@_row(IMAGE, leaky_relu=3)
def linen_leaky_relu():
    return one(ConvNet(nn.leaky_relu, nn.avg_pool), IMAGE)


@_row(IMAGE, elu=3)
def linen_elu():
    return one(ConvNet(nn.elu, nn.avg_pool), IMAGE)


@_row(IMAGE, hard_silu=3)
def linen_hard_swish():
    return one(ConvNet(nn.hard_swish, nn.avg_pool), IMAGE)


class Normalized(nn.Module):
    norm: Callable

    @nn.compact
    def __call__(self, x):
        x = nn.silu(self.norm()(nn.Conv(4, (3, 3))(x)))
        x = nn.Dropout(0.5, deterministic=True)(x.mean(axis=(1, 2)))
        return nn.log_softmax(nn.Dense(3)(x))


for _name, _norm in {
    "layer_norm": nn.LayerNorm,
    "slow_layer_norm": functools.partial(nn.LayerNorm, use_fast_variance=False),
    "group_norm": functools.partial(nn.GroupNorm, num_groups=2),
    "instance_norm": nn.InstanceNorm,
    "rms_norm": nn.RMSNorm,
    "batch_norm": functools.partial(nn.BatchNorm, use_running_average=True),
}.items():

    def _build(norm=_norm):
        return one(Normalized(norm), IMAGE)

    _build.__name__ = f"linen_{_name}"
    _row(IMAGE)(_build)


class Encoder(nn.Module):
    activation: Callable = nn.gelu

    @nn.compact
    def __call__(self, x):
        mask = nn.make_causal_mask(jnp.ones(x.shape[:2]))
        y = nn.MultiHeadDotProductAttention(num_heads=2)(nn.LayerNorm()(x), mask=mask)
        x = x + y
        x = x + nn.Dense(4)(self.activation(nn.Dense(8)(nn.LayerNorm()(x))))
        position = nn.Embed(x.shape[1], 4)(jnp.arange(x.shape[1]))
        return nn.softmax(nn.Dense(3)((x + position).mean(1)))


@_row(SEQUENCE)
def linen_transformer():
    return one(Encoder(), SEQUENCE)


@_row(SEQUENCE, relu=1)
def linen_transformer_with_relu():
    return one(Encoder(nn.relu), SEQUENCE)


class Recurrent(nn.Module):
    cell: Callable

    @nn.compact
    def __call__(self, x):
        outputs = nn.Bidirectional(nn.RNN(self.cell(4)), nn.RNN(self.cell(4)))(x)
        return nn.Dense(3)(jnp.asarray(outputs)[:, -1])


@_row(SEQUENCE)
def linen_gru():
    return one(Recurrent(nn.GRUCell), SEQUENCE)


@_row(SEQUENCE)
def linen_lstm():
    return one(Recurrent(nn.OptimizedLSTMCell), SEQUENCE)


@_row(SEQUENCE, relu=2)
def linen_recurrent_relu():
    return one(Recurrent(functools.partial(nn.SimpleCell, activation_fn=nn.relu)), SEQUENCE)


@_row(VECTOR, relu6=1)
def linen_sequential():
    return one(nn.Sequential([nn.Dense(5), nn.relu6, nn.Dense(3)]), VECTOR)


@_row(VECTOR, relu=1)
def linen_checkpointed():
    return one(nn.remat(Head)(nn.relu), VECTOR)


@_row(VECTOR, select_n=1)
def linen_prelu():
    return one(Head(nn.PReLU()), VECTOR)


class Head(nn.Module):
    activation: Callable

    @nn.compact
    def __call__(self, x):
        return nn.Dense(3)(self.activation(nn.Dense(5)(x)))


# Flax NNX


class Nnx(nnx.Module):
    def __init__(self, activation, rngs):
        self.conv = nnx.Conv(2, 4, (3, 3), rngs=rngs)
        self.norm = nnx.BatchNorm(4, rngs=rngs)
        self.drop = nnx.Dropout(0.5, rngs=rngs)
        self.head = nnx.Linear(4, 3, rngs=rngs)
        self.activation = activation

    def __call__(self, x):
        x = self.activation(self.norm(self.conv(x)))
        x = nnx.max_pool(x, (2, 2), (2, 2)) if self.activation is nnx.relu else x
        return self.head(self.drop(x.mean(axis=(1, 2))))


def _nnx(activation):
    model = Nnx(activation, nnx.Rngs(0))
    model.eval()
    graph, state = nnx.split(model)
    return Partial(lambda state, x: nnx.merge(graph, state)(x[None])[0], state)


@_row(IMAGE, relu=1, reduce_window_max=1)
def nnx_relu_and_max_pool():
    return _nnx(nnx.relu)


@_row(IMAGE)
def nnx_smooth():
    return _nnx(nnx.softplus)


@_row(SEQUENCE)
def nnx_attention():
    model = nnx.MultiHeadAttention(num_heads=2, in_features=4, decode=False, rngs=nnx.Rngs(0))
    return lambda x: model(x[None])[0].mean(0)


# Equinox


class Equinox(eqx.Module):
    conv: eqx.nn.Conv2d
    norm: eqx.nn.GroupNorm
    pool: Any
    head: eqx.nn.MLP
    activation: Callable

    def __init__(self, activation, pool):
        first, second = jax.random.split(KEY)
        self.conv = eqx.nn.Conv2d(2, 4, 3, key=first)
        self.norm = eqx.nn.GroupNorm(2, 4)
        self.pool, self.activation = pool, activation
        self.head = eqx.nn.MLP(16, 3, 5, 1, activation=activation, key=second)

    def __call__(self, x):
        x = self.activation(self.norm(self.conv(x.transpose(2, 0, 1))))
        return self.head(self.pool(x).ravel())


@_row(IMAGE, relu=2, reduce_window_max=1)
def equinox_relu_and_max_pool():
    return Equinox(jax.nn.relu, eqx.nn.MaxPool2d(2, 2))


@_row(IMAGE)
def equinox_smooth():
    return Equinox(jax.nn.softplus, eqx.nn.AvgPool2d(2, 2))


class EquinoxRecurrent(eqx.Module):
    cell: eqx.nn.GRUCell
    attend: eqx.nn.MultiheadAttention
    norm: eqx.nn.LayerNorm
    head: eqx.nn.Linear

    def __init__(self):
        keys = jax.random.split(KEY, 3)
        self.cell = eqx.nn.GRUCell(4, 4, key=keys[0])
        self.attend = eqx.nn.MultiheadAttention(2, 4, key=keys[1])
        self.norm = eqx.nn.LayerNorm(4)
        self.head = eqx.nn.Linear(4, 3, key=keys[2])

    def __call__(self, x):
        x = jax.vmap(self.norm)(x + self.attend(x, x, x))
        state, _ = lax.scan(lambda state, entry: (self.cell(entry, state), None), jnp.zeros(4), x)
        return self.head(state)


@_row(SEQUENCE)
def equinox_gru_and_attention():
    return EquinoxRecurrent()


# Haiku


def _haiku(network, shape):
    transformed = hk.without_apply_rng(hk.transform(network))
    parameters = drawn(transformed.init, shape)
    return Partial(lambda parameters, x: transformed.apply(parameters, x[None])[0], parameters)


@_row(IMAGE, relu=2, reduce_window_max=1)
def haiku_relu_and_max_pool():
    def network(x):
        x = hk.MaxPool((2, 2, 1), (2, 2, 1), "VALID")(jax.nn.relu(hk.Conv2D(3, 3)(x)))
        return hk.nets.MLP([5, 3])(hk.Flatten()(x))

    return _haiku(network, IMAGE)


@_row(IMAGE)
def haiku_smooth():
    def network(x):
        x = hk.AvgPool((2, 2, 1), (2, 2, 1), "VALID")(jax.nn.softplus(hk.LayerNorm(-1, True, True)(hk.Conv2D(3, 3)(x))))
        return hk.nets.MLP([5, 3], activation=jnp.tanh)(hk.Flatten()(x))

    return _haiku(network, IMAGE)


@_row(SEQUENCE)
def haiku_gru():
    def network(x):
        core = hk.GRU(4)
        outputs, _ = hk.dynamic_unroll(core, x.transpose(1, 0, 2), core.initial_state(x.shape[0]))
        return hk.Linear(3)(outputs[-1])

    return _haiku(network, SEQUENCE)


# Plain JAX


def _weights(*shapes):
    rng = np.random.default_rng(1)
    return [jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in shapes]


def _plain(activation):
    first, second = _weights((4, 5), (5, 3))
    return lambda x: activation(x @ first) @ second


@_row(VECTOR, relu=1)
def jax_relu():
    return _plain(jax.nn.relu)


@_row(VECTOR, max=1)
def jax_maximum():
    return _plain(lambda z: jnp.maximum(z, 0))


@_row(VECTOR, select_n=1)
def jax_where_of_the_input():
    return _plain(lambda z: jnp.where(z > 0, z, 0.1 * z))


@_row(VECTOR, abs=1, clip=1, sign=1)
def jax_abs_clip_and_sign():
    return _plain(lambda z: jnp.abs(z) + jnp.clip(z, -1, 1) + jnp.sign(z))


@_row(VECTOR, gt=1)
def jax_mask():
    return _plain(lambda z: z * (z > 0))


@_row(VECTOR, round=1, stop_gradient=1)
def jax_straight_through():
    return _plain(lambda z: (z + lax.stop_gradient(jnp.round(z) - z)) ** 2)


@_row(VECTOR, convert_element_type=1)
def jax_quantized():
    return _plain(lambda z: (z * 255).astype(jnp.int8).astype(jnp.float32) / 255)


@_row(VECTOR, argmax=1)
def jax_gather_by_the_input():
    return _plain(lambda z: jnp.tanh(z) * jnp.arange(5.0)[jnp.argmax(z)])


@_row(VECTOR, sort=1, top_k=1)
def jax_sort():
    return _plain(lambda z: jnp.sort(z) + lax.top_k(z, 1)[0])


@_row(VECTOR, relu=1)
def jax_relu_in_scan():
    return _plain(lambda z: lax.scan(lambda c, _: (jax.nn.relu(c + 0.1), None), z, None, length=3)[0])


@_row(VECTOR, cond=1)
def jax_branch_by_the_input():
    return _plain(lambda z: lax.cond(z[0] > 0, jnp.sin, jnp.cos, z))


@_row(VECTOR, **{"while": 1})
def jax_loop_by_the_input():
    return _plain(lambda z: lax.while_loop(lambda v: jnp.sum(v**2) < 3, lambda v: 2 * v + 1, z))


@_row(VECTOR, reduce_max=1)
def jax_divided_by_its_maximum():
    return _plain(lambda z: z / jnp.max(z))


@_row(VECTOR)
def jax_softmax_by_hand():
    def softmax(z):
        e = jnp.exp(z - lax.stop_gradient(jnp.max(z)))
        return e / jnp.sum(e)

    return _plain(softmax)


@_row(VECTOR)
def jax_logsumexp_by_hand():
    return _plain(lambda z: z - (jnp.max(z) + jnp.log(jnp.sum(jnp.exp(z - jnp.max(z))))))


@_row(VECTOR)
def jax_activations():
    names = "softplus silu gelu sigmoid log_sigmoid mish softmax log_softmax squareplus tanh standardize".split()  # noqa: SIM905
    return _plain(lambda z: sum(getattr(jax.nn, name)(z) for name in names) + jnp.logaddexp(z, 1.0))


@_row(VECTOR)
def jax_choices_that_do_not_depend_on_the_input():
    def layer(z):
        mask = jnp.arange(5) > 2
        scale = jnp.maximum(jnp.arange(5.0), 1.0)
        return lax.fori_loop(0, 3, lambda _, v: jnp.where(mask, jnp.sin(v), v / scale), z)

    return _plain(layer)


@_row(VECTOR)
def jax_operations_that_never_switch():
    return _plain(
        lambda z: jnp.clip(jax.nn.sigmoid(z), 0, 1) + jnp.abs(z**2) + z / jnp.maximum(jnp.linalg.norm(z), 1e-6)
    )


@_row(SEQUENCE)
def jax_dot_product_attention():
    def network(x):
        heads = x[None, :, None]
        return jax.nn.dot_product_attention(heads, heads, heads, is_causal=True)[0, -1, 0]

    return network


# This library, with weights from a file of PyTorch


def _from_torch(beta):
    content = dictionary(**{"0.weight": tensor((3, 4), (4, 1)), "2.weight": tensor((2, 3), (3, 1))})
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder, "weights.pth")
        path.write_bytes(in_zip(content))
        state = ja.models.read_state_dict(path)
    params = {
        f"Dense_{i}": {"kernel": jnp.asarray(kernel).T, "bias": jnp.zeros(len(kernel))}
        for i, kernel in enumerate((state["0.weight"], state["2.weight"]))
    }
    return ja.models.logits_fn(ja.models.MLP(num_classes=2, hidden=(3,), beta=beta), {"params": params})


@_row(VECTOR, r"jaxattr|annotations\.py", relu=1)
def torch_relu():
    return _from_torch(None)


@_row(VECTOR)
def torch_smooth():
    return _from_torch(10.0)


def _ours(model, shape):
    # Drawing them would be compiled; what is looked at does not depend on them.
    shapes = jax.eval_shape(lambda key: ja.models.init(model, key, shape), KEY)
    return ja.models.logits_fn(model, jax.tree.map(lambda leaf: jnp.full(leaf.shape, 0.1, leaf.dtype), shapes))


@_row((8, 8, 1))
def jaxattr_small_cnn():
    return _ours(ja.models.SmallCNN(features=(2, 3), hidden=4), (8, 8, 1))


@_row((8, 8, 1))
def jaxattr_small_cnn_with_logsumexp():
    return _ours(ja.models.SmallCNN(features=(2, 3), hidden=4, pooling="logsumexp"), (8, 8, 1))


@_row((8, 8, 1), r"jaxattr|annotations\.py", relu=3, reduce_window_max=2)
def jaxattr_small_cnn_with_relu_and_max_pool():
    return _ours(ja.models.SmallCNN(features=(2, 3), hidden=4, beta=None, pooling="max"), (8, 8, 1))


@_row((28, 28, 1))
def jaxattr_conv_net():
    return _ours(ja.models.ConvNet(), (28, 28, 1))


@_row((8, 8, 3))
def jaxattr_resnet():
    return _ours(ja.models.ResNet18(width=2), (8, 8, 3))


_BLOCKS = ((1, 3, 1, 1, 2), (2, 3, 2, 2, 3))


@_row((8, 8, 3))
def jaxattr_efficientnet_lite0():
    return _ours(ja.models.EfficientNetLite0(num_classes=3, blocks=_BLOCKS, stem=2, head=4), (8, 8, 3))


@_row((8, 8, 3), r"jaxattr|annotations\.py", clip=7)
def jaxattr_efficientnet_lite0_with_relu6():
    return _ours(ja.models.EfficientNetLite0(num_classes=3, blocks=_BLOCKS, stem=2, head=4, beta=None), (8, 8, 3))
