"""Wrong usage: the exception says what was given, what is accepted, and what to do.

Inside compiled code, where values are not known, nothing raises: failure is data in the result.
"""

import functools

import equinox as eqx
import flax.linen as nn
import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tables
from flax import nnx
from jax.tree_util import Partial
from tables import METHODS, model

import jaxattr as ja
from jaxattr import _fingerprint

KEY = jax.random.key(0)
XS = np.full((3, *tables.SHAPE), 0.5, np.float32)
SALIENCY = ja.attributions.saliency()
EVERY = (
    "saliency",
    "integrated_gradients",
    "singular_value",
    "entrywise",
    "semidefinite",
    "pgd_l2",
    "ifia_top_k",
    "worst_direction_linf",
)
every = pytest.mark.parametrize("name", EVERY)
with_ball = pytest.mark.parametrize("name", EVERY[2:])


def call(name, logits_fn=None, x=None, label=0, key=KEY):
    m = model("softplus")
    logits_fn, x = m.logits_fn if logits_fn is None else logits_fn, m.xs[0] if x is None else x
    return METHODS[name](0.1, tables.SHAPE)(logits_fn, x, label, key)


# The sample and the label of any method


@every
@pytest.mark.parametrize("label", [3, -1, 1000])
def test_label_out_of_range(name, label):
    with pytest.raises(ValueError, match=rf"`label` must be between 0 and 2 \(3 logits\), got {label}"):
        call(name, label=label)


@every
@pytest.mark.parametrize("label", [np.array([0, 1]), jnp.zeros((1,), int)], ids=["two", "one"])
def test_labels_of_many_samples(name, label):
    with pytest.raises(ValueError, match=r"`label` .* one sample, got shape \(\d,\).*over_samples"):
        call(name, label=label)


@every
@pytest.mark.parametrize("label", [1.0, "1", None, np.float32(1)])
def test_label_that_is_no_integer(name, label):
    with pytest.raises(TypeError, match="`label` must be an integer class index, got dtype"):
        call(name, label=label)


@every
@pytest.mark.parametrize(
    ("dtype", "cure"),
    [("uint8", "/ 255"), ("int32", "/ 255.*tokens by their embedding"), ("bool", "/ 255"), ("complex64", "x.imag")],
)
def test_inputs_that_are_no_real_numbers(name, dtype, cure):
    x = np.ones(tables.SHAPE, dtype)
    with pytest.raises(TypeError, match=rf"`x` must be .* floating-point numbers, got dtype {dtype}.*{cure}"):
        call(name, x=x)


@every
def test_no_features(name):
    with pytest.raises(ValueError, match=r"`x` must hold at least one feature, got shape \(0, 3\)"):
        call(name, x=jnp.zeros((0, 3)))


# The model


@every
def test_no_function(name):
    with pytest.raises(TypeError, match=r"`logits_fn` must be callable on one input, got dict.*Partial"):
        call(name, logits_fn={"params": 1})


@every
def test_a_model_of_batches(name):
    with pytest.raises(ValueError, match=r"ONE input of shape \(2, 3\).* \(classes,\).*returned \(1, 4\).*x\[None\]"):
        call(name, logits_fn=lambda x: jnp.ones((1, 4)) * jnp.sum(x))


@every
def test_a_model_that_returns_no_array(name):
    with pytest.raises(ValueError, match=r"`logits_fn` must map ONE input .* returned tuple"):
        call(name, logits_fn=lambda x: (jnp.ravel(x), {}))


@every
def test_a_model_that_returns_one_number(name):
    with pytest.raises(ValueError, match=r"`logits_fn` must map ONE input .* returned \(\)"):
        call(name, logits_fn=jnp.sum)


def network():
    module = ja.models.SmallCNN(num_classes=3, features=(2, 2), hidden=3)
    return module, ja.models.init(module, KEY, (8, 8, 1))


IMAGE = jnp.full((8, 8, 1), 0.5)


def test_a_flax_module_in_place_of_a_function():
    """A module is callable, so that only the call shows that it has no variables."""
    module, _ = network()
    with pytest.raises((TypeError, ValueError), match=r"`logits_fn`.*ONE input.*Partial|`logits_fn`.*Flax module"):
        SALIENCY(module, IMAGE, 0)


def test_a_batch_in_place_of_a_sample():
    """The network's own complaint is about a shape that the user never passed; it has to be put in words."""
    module, variables = network()
    with pytest.raises(ValueError, match=r"ONE input of shape \(5, 8, 8, 1\)"):
        SALIENCY(lambda x: module.apply(variables, x), jnp.stack([IMAGE] * 5), 0)
    with pytest.raises((TypeError, ValueError), match=r"`logits_fn`.*\(5, 8, 8, 1\)"):
        SALIENCY(ja.models.logits_fn(module, variables), jnp.stack([IMAGE] * 5), 0)


@pytest.mark.parametrize("shape", [(), (3,), (1, 2, 3)])
def test_an_attribution_of_another_shape(shape):
    def attribute(logits_fn, x, label):
        return jnp.ones(shape) * jnp.sum(x**2)

    m = model("softplus")
    l2, linf = ja.L2(0.1), ja.LInf(0.1)
    methods = {
        "jacobian": lambda *arguments: ja.attribution_jacobian(attribute, *arguments[:3]).value,
        "singular_value": ja.bounds.singular_value(attribute, l2),
        "norm_relaxation": ja.bounds.norm_relaxation(attribute, linf),
        "entrywise": ja.bounds.entrywise(attribute, linf),
        "ifia": ja.attacks.ifia(linf, attribute, ja.attacks.dissimilarities.euclidean(), num_steps=1),
    }
    for method in methods.values():
        with pytest.raises(ValueError, match=r"the attribution must have the shape of its input \(2, 3\)"):
            jax.eval_shape(method, m.logits_fn, m.xs[0], m.labels[0], KEY)


def test_a_corrected_bound_of_another_attribution():
    """It would be compared with a bound of something else."""

    def attribute(logits_fn, x, label):
        return jnp.sum(x) * jnp.ones(3)

    bound = ja.bounds.corrected(METHODS["singular_value"](0.1), attribute)
    m = model("softplus")
    with pytest.raises(ValueError, match="the attribution must have the shape of its input"):
        jax.eval_shape(bound, m.logits_fn, m.xs[0], m.labels[0], KEY)


@pytest.mark.parametrize("name", ["singular_value", "corrected", "pgd_l2", "worst_direction_linf"])
def test_lists_and_numpy_arrays_are_samples_too(name):
    """The same program, with the same numbers in it. float64 becomes float32, silently: JAX's own rule."""

    def traced_with(x, label):
        return _fingerprint.program(lambda key: call(name, x=x, label=label, key=key), KEY)

    x = np.asarray(model("softplus").xs[0], np.float64)
    expected = traced_with(jnp.asarray(x), np.int32(0))
    for given in (x, x.tolist()):
        assert traced_with(given, np.int64(0)) == expected
    assert traced_with(x + 1e-3, np.int64(0)) != expected


def linear(x):
    return jnp.stack([jnp.sum(x), 0.0])


@pytest.mark.parametrize(
    ("logits_fn", "message"),
    [
        (
            lambda weights, x: weights @ x,
            r"ONE input, but `<lambda>` takes \(weights, x\).*Partial\(apply, var",
        ),
        (lambda x: jnp.zeros(2) @ x.reshape(7), "failed on ONE input.*TypeError.*check that `logits_fn"),
        (lambda x: jnp.asarray([float(x[0, 0]), 0.0]), "JAX can trace"),
        (lambda x: x[0] if x[0, 0] > 0 else x[1], "JAX can trace"),
        (lambda xs: jnp.einsum("nij->ni", xs), r"failed on ONE input.*takes a batch.*f\(x\[None\]\)\[0\]"),
        (SALIENCY, r"got the method saliency\(\)\. The method goes first: `over_samples\(method, logits_fn\)`"),
        (ja.models.MLP, "the class MLP: build one"),
        (ja.attributions.saliency, "the constructor `saliency`, whose parentheses are missing"),
        (tables, "`logits_fn` must be callable on one input, got module"),
    ],
)
def test_networks_that_are_none_and_what_to_do(logits_fn, message):
    with pytest.raises((TypeError, ValueError), match=message):
        SALIENCY(logits_fn, jnp.ones(tables.SHAPE), 0)


def test_a_batch_where_one_sample_is_meant():
    with pytest.raises(ValueError, match=r"ONE input of shape \(5, 3\).*takes one of the 5 rows.*over_samples"):
        SALIENCY(lambda x: jnp.ones((2, 3)) @ x.reshape(3), jnp.ones((5, 3)), 0)


def test_networks_of_other_frameworks_in_training_mode():
    for network in (
        eqx.nn.Sequential([eqx.nn.Linear(3, 2, key=KEY), eqx.nn.Dropout(0.5)]),
        nnx.Sequential(nnx.Linear(3, 2, rngs=nnx.Rngs(0)), nnx.BatchNorm(2, rngs=nnx.Rngs(0))),
        nn.BatchNorm(use_running_average=False).bind(nn.BatchNorm(False).init(KEY, jnp.ones(2))),
    ):
        with pytest.raises(ValueError, match=r"in training mode.*`model.eval\(\)` for NNX.*inference_mode"):
            SALIENCY(network, jnp.ones(2 if isinstance(network, nn.Module) else 3), 0)


def test_a_pair_of_init_and_apply():
    network = hk.transform(lambda xs: hk.Linear(2)(xs))  # noqa: PLW0108 (made inside only)
    with pytest.raises(TypeError, match=r"callable on one input, got Transformed.*Haiku.*network.apply\(params, None"):
        SALIENCY(network, jnp.ones(3), 0)


# Methods where others are meant


NO_ATTRIBUTION = [
    ("saliency", r"got str: 'saliency'.*built by `jaxattr.attributions.saliency\(\)`"),
    ("gradcam", "got str: 'gradcam'.*Known names are saliency"),
    (ja.attributions.saliency, r"the constructor `saliency`, whose parentheses are missing: write `saliency\(\)`"),
    (ja.bounds.singular_value, r"the constructor `singular_value`, whose .*write `singular_value\(...\)`"),
    (ja.attacks.pgd(ja.L2(0.1)), "which is a bound or an attack"),
    (np.ones(3), r"got an array of shape \(3,\)"),
    (None, "got NoneType"),
    (ja.L2(0.1), r"got L2\(0.1"),
    (linear, r"`linear` takes \(x\).*looks like a network"),
    (lambda: None, r"`<lambda>` takes \(\)"),
    (ja.attributions.saliency().__class__, "the class Attribution"),
]


@pytest.mark.parametrize(("given", "message"), NO_ATTRIBUTION)
def test_what_is_no_attribution(given, message):
    """Said where it is given, long before anything is compiled."""
    l2, linf = ja.L2(0.1), ja.LInf(0.1)
    for make in (
        lambda: ja.bounds.singular_value(given, l2),
        lambda: ja.bounds.norm_relaxation(given, linf),
        lambda: ja.bounds.entrywise(given, linf),
        lambda: ja.bounds.semidefinite(given, linf),
        lambda: ja.attacks.ifia(linf, given),
        lambda: ja.outputs.explaining(given, ja.outputs.probability),
        lambda: ja.attribution_jacobian(given, linear, jnp.ones(3), 0),
    ):
        with pytest.raises(TypeError, match=rf"(?s)`attribute` must be an attribution .*{message}"):
            make()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("pgd", r"got str: 'pgd'.*built by `jaxattr.attacks.pgd\(ball, ...\)`"),
        (ja.attacks.pgd, "the constructor `pgd`"),
        (linear, r"`linear` takes \(x\).*looks like a network: the method goes first"),
        (ja.models.MLP(), "the network MLP. The method goes first"),
        (jnp.ones(3), "got an array"),
    ],
)
def test_what_is_no_method(given, message):
    with pytest.raises(TypeError, match=rf"`method` must be an attribution, a bound or an attack.*{message}"):
        ja.over_samples(given, linear)


@pytest.mark.parametrize(
    ("given", "message"), [("entrywise", "built by `jaxattr.bounds.entrywise"), (SALIENCY, "built")]
)
def test_what_is_no_bound(given, message):
    for make in (
        lambda: ja.bounds.smallest(given),
        lambda: ja.bounds.corrected(given, SALIENCY),
        lambda: ja.attacks.worst_direction(ja.L2(0.1), SALIENCY, given),
    ):
        with pytest.raises(TypeError, match=rf"must be a bound .*{message}"):
            make()


def test_a_network_and_a_method_that_are_swapped():
    with pytest.raises(TypeError, match=r"The method goes first: `over_samples\(method, logits_fn\)`"):
        ja.over_samples(SALIENCY, SALIENCY)


@pytest.mark.parametrize(
    ("key", "error", "message"),
    [
        (0, TypeError, r"must be a random key, `jax.random.key\(0\)`, got int"),
        (jnp.zeros(2), TypeError, "must be a random key"),
        (jax.random.split(KEY, 3), ValueError, r"must be ONE random key, got an array of shape \(3,\).*over_samples"),
    ],
)
def test_keys_that_are_none(key, error, message):
    method = METHODS["pgd_l2"](0.1)
    for make in (lambda: lifted(method)(XS, [0, 1, 2], key), lambda: call("pgd_l2", key=key)):
        with pytest.raises(error, match=message):
            make()


def plain(logits_fn, x, label):
    return x * 2


def with_key(logits_fn, x, label, key):
    return x + jax.random.uniform(key)


def with_optional_key(logits_fn, x, label, key=None):
    return x if key is None else x + jax.random.uniform(key)


def with_keyword(logits_fn, x, label, *, key):
    return x + jax.random.uniform(key)


def test_plain_functions_of_three_and_four_arguments():
    """What they take is in their signatures."""
    labels = [0, 1, 2]
    np.testing.assert_array_equal(lifted(plain)(XS, labels), XS * 2)
    np.testing.assert_array_equal(lifted(plain)(XS, labels, KEY), XS * 2)
    np.testing.assert_array_equal(lifted(with_optional_key)(XS, labels), XS)
    drawn = lifted(with_key)(XS, labels, KEY)
    assert np.all(drawn > XS)
    for same in (with_optional_key, with_keyword):
        np.testing.assert_array_equal(lifted(same)(XS, labels, KEY), drawn)
    for method in (with_key, with_keyword):
        with pytest.raises(TypeError, match=rf"`{method.__name__}` draws random numbers and needs a key"):
            lifted(method)(XS, labels)


@pytest.mark.parametrize(
    ("arrays", "error", "message"),
    [
        ((), ValueError, "got shapes of no array"),
        ((XS, XS[:2]), ValueError, r"same n of at least 1; got shapes \(3, 2, 3\), \(2, 2, 3\)"),
        ((XS[:0],), ValueError, r"got shapes \(0, 2, 3\)"),
        ((1.0,), ValueError, r"got shapes \(\)"),
        ((jax.random.split(KEY, 3),), TypeError, "argument 0 holds random keys.*key_data"),
        ((["a", "b"],), TypeError, "argument 0 must hold arrays of numbers, got str"),
    ],
)
def test_arrays_of_map_samples(arrays, error, message):
    with pytest.raises(error, match=message):
        ja.map_samples(lambda *arrays: arrays)(*arrays)


def test_map_samples_of_no_function():
    with pytest.raises(TypeError, match=r"`function` must be a function of the arrays of one sample.*got str"):
        ja.map_samples("kendall_tau")


# The ball


@pytest.mark.parametrize("ball", [ja.L2, ja.LInf])
@pytest.mark.parametrize("epsilon", [-0.1, float("nan"), float("inf"), np.float32(-1)])
def test_radius_out_of_range(ball, epsilon):
    with pytest.raises(ValueError, match="`epsilon` must be a finite number of at least 0, got"):
        ball(epsilon)


@pytest.mark.parametrize("ball", [ja.L2, ja.LInf])
@pytest.mark.parametrize("epsilon", ["0.1", None, 1j, {}])
def test_radius_that_is_no_number(ball, epsilon):
    with pytest.raises((TypeError, ValueError), match="`epsilon` must be"):
        ball(epsilon)


def test_several_radii():
    with pytest.raises(ValueError, match=r"`epsilon` must be a single number, got shape \(2,\).*jax.vmap.*LInf"):
        ja.LInf(jnp.array([0.1, 0.2]))


@pytest.mark.parametrize("box", [(1, 0), 1.0, (0.0, 1.0, 2.0), (np.zeros(2), np.array([1.0, -1.0]))])
def test_an_empty_box(box):
    with pytest.raises(ValueError, match=r"`box` must be \(lower, upper\)"):
        ja.L2(0.1, box=box)


@with_ball
@pytest.mark.parametrize("value", [1.5, -0.5, 255.0])
def test_x_outside_of_the_box(name, value):
    m = model("softplus")
    x = m.xs[0].at[0, 0].set(value)
    with pytest.raises(ValueError, match=r"`x` must lie in the box .*\(0.0, 1.0\).* range from .* to .*`box=None`"):
        call(name, x=x)


@pytest.mark.parametrize("box", [(0.0, np.ones(tables.SHAPE)), (np.zeros(3), np.ones(3)), (0.0, np.inf)])
def test_limits_per_feature_and_one_sided_boxes(box):
    """Limits broadcast against the input, and both are checked."""
    ball = ja.LInf(0.1, box=box)
    m = model("softplus")
    ball.check_input(m.xs[0])
    with pytest.raises(ValueError, match="`x` must lie in the box"):
        ball.check_input(m.xs[0] - 2)


def test_limits_of_another_shape_than_the_input():
    ball = ja.LInf(0.1, box=(np.zeros(5), np.ones(5)))
    with pytest.raises(ValueError, match=r"`box`.*\(5,\).*\(2, 3\)"):
        ball.check_input(model("softplus").xs[0])


@pytest.mark.parametrize("ball", [0.1, None, "l2"])
def test_a_number_in_place_of_a_ball(ball):
    with pytest.raises(TypeError, match=r"L2|LInf|`ball`"):
        ja.bounds.singular_value(SALIENCY, ball)
    for make in (ja.attacks.pgd, lambda ball: ja.attacks.ifia(ball, SALIENCY)):
        with pytest.raises(TypeError, match=r"`ball` must be"):
            make(ball)


def test_a_ball_of_the_other_norm():
    with pytest.raises(TypeError, match=r"`singular_value` bounds perturbations of L2, got LInf.*`norm_relaxation`"):
        ja.bounds.singular_value(SALIENCY, ja.LInf(0.1))
    for bound in (ja.bounds.norm_relaxation, ja.bounds.entrywise):
        with pytest.raises(TypeError, match=r"perturbations of LInf, got L2. For L2: `singular_value`"):
            bound(SALIENCY, ja.L2(0.1))


# Options


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ja.attributions.integrated_gradients(rule="simpson"), "`rule` must be one of 'left'.*got 'simpson'"),
        (lambda: ja.attributions.integrated_gradients(num_steps=0), "`num_steps` must be at least 1, got 0"),
        (lambda: ja.attributions.integrated_gradients(chunk=0), "`chunk` must be at least 1, got 0"),
        (
            lambda: ja.attributions.completeness_gap(SALIENCY),
            "must be complete against a baseline.*integrated_gradients",
        ),
        (lambda: ja.bounds.singular_value(SALIENCY, ja.L2(0.1), method="svd"), "`method` .* 'lanczos', 'dense'; got"),
        (lambda: ja.bounds.singular_value(SALIENCY, ja.L2(0.1), confidence=1.0), "`confidence` .* between 0 and 1"),
        (lambda: ja.bounds.singular_value(SALIENCY, ja.L2(0.1), num_steps=0), "`num_steps` must be at least 1, got 0"),
        (lambda: ja.bounds.norm_relaxation(SALIENCY, ja.LInf(0.1), corner_steps=0), "`corner_steps` must be at least"),
        (lambda: ja.bounds.entrywise(SALIENCY, ja.LInf(0.1), chunk=-1), "`chunk` must be at least 1, got -1"),
        (ja.bounds.smallest, "`smallest` needs at least one bound"),
        (lambda: ja.attacks.pgd(ja.L2(0.1), keep="first"), "`keep` must be one of 'last'.*got 'first'"),
        (lambda: ja.attacks.pgd(ja.L2(0.1), num_steps=0), "`num_steps` must be at least 1, got 0"),
        (lambda: ja.attacks.pgd(ja.L2(0.1), step_size=-0.1), "`step_size` must be a finite number above 0, got -0.1"),
        (lambda: ja.attacks.ifia(ja.L2(0.1), SALIENCY, step_size=0.0), "`step_size` must be .* above 0, got 0.0"),
        (lambda: ja.over_samples(SALIENCY, jnp.sum, batch_size=0), "`batch_size` must be at least 1, got 0"),
        (lambda: ja.over_samples(SALIENCY, jnp.sum, memory=0), "`memory` must be a finite number above 0, got 0"),
    ],
)
def test_options_out_of_range(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("value", [2.5, "3", None, True])
@pytest.mark.parametrize(
    "make",
    [
        ja.attributions.integrated_gradients,
        lambda n: ja.bounds.singular_value(SALIENCY, ja.L2(0.1), num_steps=n),
        lambda n: ja.attacks.pgd(ja.L2(0.1), num_steps=n),
        lambda n: ja.attacks.ifia(ja.L2(0.1), SALIENCY, num_steps=n),
    ],
    ids=["integrated_gradients", "singular_value", "pgd", "ifia"],
)
def test_a_number_of_steps_that_is_no_integer(make, value):
    with pytest.raises(TypeError, match="`num_steps` must be an integer of at least 1, got"):
        make(value)


@pytest.mark.parametrize("dissimilarity", ["top_k", ja.attacks.dissimilarities.euclidean], ids=["name", "uncalled"])
def test_a_dissimilarity_that_is_none(dissimilarity):
    with pytest.raises(TypeError, match=r"`dissimilarity` must be"):
        ja.attacks.ifia(ja.L2(0.1), SALIENCY, dissimilarity)


def test_a_baseline_of_another_shape():
    attribute = ja.attributions.integrated_gradients(baseline=np.zeros(5))
    with pytest.raises(
        ValueError, match=r"`baseline` .* broadcasts to .* shape \(2, 3\).* channel, \(3,\); got shape \(5,\)"
    ):
        attribute(model("softplus").logits_fn, model("softplus").xs[0], 0)


def test_a_label_constraint_of_one_class():
    with pytest.raises(ValueError, match="needs at least 2 classes, but `logits_fn` has 1"):
        ja.bounds.label_constraint(lambda x: jnp.sum(x)[None], jnp.ones(3), 0)


# Many samples


def lifted(method=SALIENCY, **options):
    return ja.over_samples(method, model("softplus").logits_fn, **options)


@pytest.mark.parametrize(
    ("xs", "labels", "error", "message"),
    [
        (XS, [0, 1], ValueError, r"one entry per sample.*got shapes \(3, 2, 3\) and \(2,\)"),
        (XS, [[0], [1], [2]], ValueError, r"one entry per sample.*got shapes \(3, 2, 3\) and \(3, 1\)"),
        (XS, 0, ValueError, r"one entry per sample.*and \(\)"),
        (XS[:0], np.zeros(0, int), ValueError, r"one entry per sample.*got shapes \(0, 2, 3\) and \(0,\)"),
        (XS, [0.0, 1.0, 2.0], TypeError, "`labels` must be integer class indices, got dtype float64"),
        ((XS * 255).astype("uint8"), [0, 1, 2], TypeError, r"floating-point numbers, got dtype uint8.*/ 255"),
        (XS, [0, 1, 3], ValueError, r"between 0 and 2.*got 3"),
        (XS, [0, -1, 2], ValueError, r"between 0 and 2.*got -1"),
        (XS, [0, 1, 2**32], ValueError, r"between 0 and 2.*got 4294967296"),
    ],
)
def test_samples_and_labels_of_over_samples(xs, labels, error, message):
    with pytest.raises(error, match=message):
        lifted()(xs, labels)


@pytest.mark.parametrize("name", ["singular_value", "pgd_l2"])
def test_over_samples_of_inputs_outside_of_the_box_raises_or_flags(name):
    """The compiled program does not know the values; what it returns must not look like a result."""
    method = METHODS[name](0.1)
    try:
        result = lifted(method)(XS + 2, [0, 1, 2], KEY)
    except ValueError as error:
        assert "must lie in the box" in str(error)  # noqa: PT017
        return
    flags = result.label_kept if hasattr(result, "label_kept") else np.isfinite(result.euclidean)
    assert not np.any(flags)


def test_over_samples_of_a_model_that_is_none():
    with pytest.raises(TypeError, match="`logits_fn` must be callable"):
        ja.over_samples(SALIENCY, None)(XS, [0, 1, 2])


def test_over_samples_with_and_without_a_key():
    with pytest.raises(TypeError, match="`pgd` draws random numbers and needs a key"):
        lifted(METHODS["pgd_l2"](0.1))(XS, [0, 1, 2])
    np.testing.assert_array_equal(lifted()(XS, [0, 1, 2], KEY), lifted()(XS, [0, 1, 2]))


@pytest.mark.parametrize("start", [-1, 4, 1.5])
def test_start_outside_of_the_samples(start):
    with pytest.raises((TypeError, ValueError), match="`start` must be"):
        list(lifted(batch_size=8).batches(XS, [0, 1, 2], start=start))


# Inside of compiled code


@pytest.mark.parametrize("label", [3, 1000, -1])
@pytest.mark.parametrize("name", ["saliency", "integrated_gradients", "singular_value", "entrywise", "pgd_l2"])
def test_a_traced_label_out_of_range_does_not_raise_and_is_no_silent_number(name, label):
    m = model("softplus")
    result = traced(name)(m.logits_fn, m.xs[0], label)
    if METHODS[name].kind == "attack":
        assert not bool(result.label_kept) or np.isnan(float(result.objective))
    else:
        value = result if METHODS[name].kind == "attribution" else result.euclidean
        assert np.all(np.isnan(value))


@functools.cache
def traced(name):
    return jax.jit(lambda logits_fn, x, label: METHODS[name](0.1)(logits_fn, x, label, KEY))


@pytest.mark.parametrize("name", ["singular_value", "entrywise", "pgd_l2"])
def test_a_traced_input_outside_of_the_box_does_not_raise(name):
    m = model("softplus")
    result = traced(name)(m.logits_fn, m.xs[0] + 2, 0)
    if name == "pgd_l2":
        assert float(result.distance) > 0.1
        assert not bool(result.label_kept)


def test_a_traced_negative_radius_does_not_raise():
    m = model("softplus")
    result = jax.jit(lambda e: METHODS["singular_value"](e)(m.logits_fn, m.xs[0], 0, KEY))(-0.1)
    assert not float(result.euclidean) >= 0


@pytest.mark.parametrize("name", ["singular_value", "singular_value_dense", "norm_relaxation", "entrywise", "smallest"])
def test_bounds_of_a_sample_with_a_nan_are_nan_and_vacuous(name):
    m = model("softplus")
    result = traced(name)(m.logits_fn, m.xs[0].at[0, 1].set(np.nan), 0)
    assert np.isnan(float(result.euclidean))
    assert np.isnan(float(result.degrees))
    assert bool(result.vacuous)


def test_a_partial_is_needed_for_nothing_but_speed():
    m = model("softplus")
    closed = SALIENCY(lambda x: m.logits_fn(x) + 0, m.xs[0], 0)
    np.testing.assert_allclose(closed, SALIENCY(Partial(m.logits_fn), m.xs[0], 0), rtol=1e-6)
