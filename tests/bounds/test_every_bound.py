"""A bound hides nothing: what contradicts it stays visible, what is not a number is none, kinks are counted."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial
from oracles import quadratic, symmetric

import jaxattr as ja

KEY = jax.random.key(0)
SALIENCY = ja.attributions.saliency()
L2, LINF = ja.L2(0.1), ja.LInf(0.1)
X = jnp.linspace(0.2, 0.8, 4)
LOGITS_FN = quadratic(symmetric(0, 4), np.ones(4), jnp.float32)


def rectified(x):
    """A network with a kink: its saliency is constant between them."""
    return jnp.stack([jnp.sum(jax.nn.relu(x - 0.5)) + x[0], jnp.sum(x) / 4])


def bounds(**options):
    """Every bound of a deviation, and what is made of them."""
    b = ja.bounds
    singular = b.singular_value(SALIENCY, L2, method="dense", **options)
    entrywise = b.entrywise(SALIENCY, LINF, **options)
    return {
        "singular_value": b.singular_value(SALIENCY, L2, num_steps=4, **options),
        "singular_value, dense": singular,
        "norm_relaxation": b.norm_relaxation(SALIENCY, LINF, num_steps=4, **options),
        "entrywise": entrywise,
        "semidefinite": b.semidefinite(SALIENCY, LINF, method="products", num_steps=4, rounds=2, **options),
        "semidefinite, dense": b.semidefinite(SALIENCY, LINF, method="dense", rounds=2, **options),
        "smallest": b.smallest(b.norm_relaxation(SALIENCY, LINF, method="dense", **options), entrywise),
        "corrected": b.corrected(singular, SALIENCY, **options),
        "label_constrained": b.label_constrained(SALIENCY, L2, method="dense", **options),
    }


NAMES = list(bounds())


@functools.cache
def compiled(name):
    return jax.jit(bounds()[name])


def inner(found):
    return found if isinstance(found, ja.bounds.DeviationBound) else found.bound


@pytest.mark.parametrize("name", NAMES)
def test_a_sample_that_is_not_a_number_has_no_bound_and_no_direction(name):
    run = compiled(name)
    found = run(LOGITS_FN, X.at[1].set(jnp.nan), 0, KEY)
    for result in {id(each): each for each in (inner(found), found) if hasattr(each, "euclidean")}.values():
        for field in ("euclidean", "cosine", "degrees"):
            assert np.isnan(getattr(result, field)), field
        assert bool(result.vacuous)
    assert np.isnan(inner(found).direction).all()
    assert np.isnan(inner(found).euclidean_attained)
    if name == "corrected":
        assert np.isnan([found.constant, found.constant_plus, found.remainder]).all()
    sound = inner(run(LOGITS_FN, X, 0, KEY))
    assert np.isfinite(sound.direction).all()
    assert 0 < float(sound.euclidean_attained) <= float(sound.euclidean)


@pytest.mark.parametrize("name", ["singular_value, dense", "entrywise", "corrected"])
def test_a_map_that_does_not_depend_on_the_sample_does_not_hide_that_it_is_not_a_number(name):
    found = compiled(name)(quadratic(np.zeros((4, 4)), np.ones(4), jnp.float32), X.at[1].set(jnp.nan), 0, KEY)
    assert all(np.isnan(inner(found).direction))
    assert bool(inner(found).vacuous)
    numbers = [found.euclidean, found.degrees, *([found.remainder] if name == "corrected" else [])]
    assert np.isnan(numbers).all()


@pytest.mark.parametrize("name", NAMES)
def test_kinks_are_refused(name):
    with pytest.raises(ValueError, match=r"needs two derivatives .* 1 operation \(1 x relu"):
        jax.eval_shape(lambda x: bounds()[name](rectified, x, 0, KEY), X)


@pytest.mark.parametrize("name", ["singular_value, dense", "entrywise", "smallest", "corrected", "label_constrained"])
def test_kinks_that_are_allowed_are_counted(name):
    allowed = bounds(kinks="allow")[name]
    found = inner(jax.jit(lambda x: allowed(rectified, x, 0, KEY))(X))
    assert found.kinks.dtype == jnp.int32
    assert int(found.kinks) == 1
    # The slope between kinks is zero, and says nothing of any radius.
    if found.two_sided:
        assert float(found.slope) == 0
        assert np.isnan(ja.bounds.largest_epsilon(found, euclidean=0.1))


def test_kinks_of_composed_methods_and_of_ranks():
    with pytest.raises(ValueError, match="`rank_guarantee` needs two derivatives"):
        jax.eval_shape(lambda x: ja.bounds.rank_guarantee(SALIENCY, L2)(rectified, x, 0), X)
    allowed = ja.bounds.rank_guarantee(SALIENCY, L2, kinks="allow")
    found = jax.jit(lambda x: allowed(rectified, x, 0))(X)
    assert int(found.kinks) == 1
    # Allowed by the bound alone, the rest still refuses.
    base = ja.bounds.singular_value(SALIENCY, L2, kinks="allow")
    with pytest.raises(ValueError, match="`corrected` needs two derivatives"):
        jax.eval_shape(lambda x: ja.bounds.corrected(base, SALIENCY)(rectified, x, 0, KEY), X)
    with pytest.raises(ValueError, match="`label_constrained` needs two derivatives"):
        jax.eval_shape(lambda x: ja.bounds.label_constrained(SALIENCY, L2, base=base)(rectified, x, 0, KEY), X)
    for constructor in (ja.bounds.rank_guarantee, ja.bounds.label_constrained):
        with pytest.raises(ValueError, match="`kinks` must be one of 'refuse', 'allow'"):
            constructor(SALIENCY, L2, kinks="never")(LOGITS_FN, X, 0, KEY)


def test_evidence_against_a_bound_is_not_clipped():
    found = ja.bounds.DeviationBound.from_slope(
        "mine", L2, sample=X, value=X, direction=X, slope=1.0, attained_slope=1.5, confidence=1.0, products=1
    )
    assert float(found.euclidean) == pytest.approx(0.1)
    assert float(found.euclidean_attained) == pytest.approx(0.15)

    def low(*arguments):
        return dataclasses.replace(base(*arguments), euclidean=jnp.float32(0.01), slope=jnp.float32(0.1))

    base = ja.bounds.entrywise(SALIENCY, LINF)
    smallest = ja.bounds.smallest(low, base)
    both, plain = jax.jit(lambda x: (smallest(LOGITS_FN, x, 0, KEY), base(LOGITS_FN, x, 0, KEY)))(X)
    assert float(both.euclidean) == pytest.approx(0.01)
    assert float(both.euclidean_attained) == pytest.approx(float(plain.euclidean_attained), rel=1e-5)
    assert float(both.euclidean_attained) > float(both.euclidean)


def test_what_needs_no_key_needs_none():
    dense = ja.bounds.singular_value(SALIENCY, L2, method="dense")
    for method in (
        ja.bounds.rank_guarantee(SALIENCY, L2),
        ja.bounds.corrected(dense, SALIENCY),
        ja.bounds.smallest(dense, dense),
    ):
        assert not method.needs_key
        with_key, without = jax.jit(lambda x, m=method: (m(LOGITS_FN, x, 0, KEY), m(LOGITS_FN, x, 0)))(X)
        jax.tree.map(np.testing.assert_array_equal, with_key, without)
    assert ja.bounds.smallest(dense, ja.bounds.singular_value(SALIENCY, L2)).needs_key
    with pytest.raises(TypeError, match="`label_constrained` draws random numbers and needs a key"):
        jax.eval_shape(lambda x: ja.bounds.label_constrained(SALIENCY, L2)(LOGITS_FN, x, 0), X)


def test_arguments_in_the_wrong_place_are_named():
    bound = ja.bounds.singular_value(SALIENCY, L2)
    with pytest.raises(TypeError, match=r"the other way round: write `corrected\(singular_value\(...\), attribute\)"):
        ja.bounds.corrected(SALIENCY, bound)
    with pytest.raises(TypeError, match=r"`attribute` must be .* write `saliency\(\)`"):
        ja.bounds.corrected(bound, ja.attributions.saliency)
    with pytest.raises(TypeError, match=r"`bound` must be .* write `singular_value\(...\)`"):
        ja.bounds.corrected(ja.bounds.singular_value, SALIENCY)
    with pytest.raises(TypeError, match=r"`bounds\[1\]` must be a bound .* got the attribution"):
        ja.bounds.smallest(bound, SALIENCY)
    with pytest.raises(TypeError, match=r"`base` must be a bound .* got the attribution"):
        ja.bounds.label_constrained(SALIENCY, L2, base=SALIENCY)
    for constructor in (ja.bounds.rank_guarantee, ja.bounds.label_constrained):
        with pytest.raises(TypeError, match=r"`attribute` must be .* write `saliency\(\)`"):
            constructor(ja.attributions.saliency, L2)
    attack = ja.attacks.pgd(L2, num_steps=1)
    for method, argument in (
        (ja.bounds.corrected(attack, SALIENCY), "`bound` of `corrected`"),
        (ja.bounds.smallest(bound, attack), r"`bounds\[1\]` of `smallest`"),
        (ja.bounds.label_constrained(SALIENCY, L2, base=attack), "`base` of `label_constrained`"),
    ):
        with pytest.raises(TypeError, match=rf"{argument} must return a DeviationBound.* returned AttackResult"):
            jax.eval_shape(lambda x, method=method: method(LOGITS_FN, x, 0, KEY), X)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_sixteen_bits(dtype):
    """Of an input they become 32; bounds refuse a network of them, whose margins are not rounded once more."""

    def narrow(x):
        return LOGITS_FN(x.astype(jnp.float32)).astype(dtype)

    region_of = jax.jit(lambda logits_fn, x: ja.bounds.label_region(logits_fn, x, 0))
    reference = region_of(LOGITS_FN, X)
    for logits_fn, x in ((LOGITS_FN, X.astype(dtype)), (Partial(narrow), X)):
        region = region_of(logits_fn, x)
        assert region.normals.dtype == region.margins.dtype == jnp.float32
        np.testing.assert_allclose(region.margins, reference.margins, rtol=0.05)
    constrained = ja.bounds.label_constrained(SALIENCY, L2, method="products", num_steps=3)
    ranks = ja.bounds.rank_guarantee(SALIENCY, L2)
    found = jax.eval_shape(lambda z: constrained(LOGITS_FN, z, 0, KEY), X.astype(dtype))
    assert found.bound.euclidean.dtype == jnp.float32
    assert jax.eval_shape(lambda z: ranks(LOGITS_FN, z, 0), X.astype(dtype)).kendall_tau.dtype == jnp.float32
    for method in (constrained, ranks):
        with pytest.raises(TypeError, match=f"computes in {jnp.dtype(dtype).name} at .*test_every_bound.py:.*narrow"):
            jax.eval_shape(lambda z, method=method: method(narrow, z, 0, KEY), X)


def test_types_narrower_than_the_input_are_found_wherever_they_are():
    """Inside of a loop, in an attribution of one's own, and in a network of float32 that is given float64."""

    def looped(x):
        return jax.lax.scan(lambda z, _: (jnp.tanh(z.astype(jnp.bfloat16)).astype(z.dtype), None), x, None, 3)[0]

    def half(logits_fn, x, label):
        return jax.grad(lambda z: logits_fn(z)[label])(x).astype(jnp.float16)

    for attribute, network, dtype in ((SALIENCY, looped, "bfloat16"), (half, LOGITS_FN, "float16")):
        with pytest.raises(TypeError, match=f"computes in {dtype} at .*test_every_bound"):
            ja.attribution_jacobian(attribute, network, X, 0)
    with jax.enable_x64(True):
        wide = X.astype(jnp.float64)
        with pytest.raises(
            TypeError, match=r"float64 or wider, but it computes in float32.*Or give the input in float32"
        ):
            ja.attribution_jacobian(SALIENCY, lambda x: LOGITS_FN(x.astype(jnp.float32)), wide, 0)


def test_types_of_what_does_not_depend_on_the_input_do_not_matter():
    """Weights that are stored in 16 bits, and an integer that the network decides."""
    weights = jnp.eye(len(X), dtype=jnp.bfloat16) * 0.5

    def network(x):
        return jnp.tanh(weights.astype(jnp.float32) @ x) + 0 * jnp.argmax(x)

    assert ja.attribution_jacobian(SALIENCY, network, X, 0).kinks == 0


@pytest.mark.parametrize("method", ["products", "dense"])
def test_a_network_of_wider_numbers_than_its_input(method):
    with jax.enable_x64(True):
        wide = quadratic(symmetric(0, 4), np.ones(4), jnp.float64)
        bound = ja.bounds.label_constrained(SALIENCY, L2, method=method, num_steps=3)
        found = jax.eval_shape(lambda x: bound(wide, x, 0, KEY), X)
        assert found.bound.euclidean.dtype == jnp.float32
        ranks = jax.eval_shape(lambda x: ja.bounds.rank_guarantee(SALIENCY, L2)(wide, x, 0), X)
        assert ranks.kendall_tau.dtype == jnp.float32
