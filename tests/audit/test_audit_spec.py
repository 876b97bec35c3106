"""Methods by text, what is refused before anything is computed, and what the identity of results is made of."""

import dataclasses
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxattr as ja
from jaxattr.audit import spec
from jaxattr.audit.rows import SCHEMA
from jaxattr.audit.spec import Measures, identity, identity_hash
from jaxattr.audit.summary import reserved

SMALL = spec.with_top_k(Measures(l2=(0.05,), linf=(0.01, 0.02), top_k=8, top_k_map="pixel"))


def changed(**options):
    return dataclasses.replace(SMALL, **options)


def hash_of(measures, label="saliency", norm="linf"):
    return identity_hash(identity(measures, label, norm))


@ja.described
def noisy(key, *, sigma=0.1):
    """Explain the input with noise: the entry of a stranger."""
    return ja.Attribution("noisy", lambda _, x, __: x + sigma * jax.random.normal(key, x.shape, x.dtype))


# Names


def test_a_label_stands_before_its_call():
    assert spec.split_label(" ig20 = integrated_gradients(num_steps=20)") == (
        "ig20",
        "integrated_gradients(num_steps=20)",
    )
    assert spec.split_label("integrated_gradients(num_steps=20)") == (None, "integrated_gradients(num_steps=20)")
    given = changed(attributions=("saliency", "ig20=integrated_gradients(num_steps=20)", "integrated_gradients"))
    assert list(spec.attributions(given)) == ["saliency", "ig20", "integrated_gradients"]
    built = spec.attribution(given, "ig20")
    assert built.name == "ig20"
    x, readout = jnp.array([0.3, 0.7]), jnp.array([[1.0, 2.0], [0.5, -1.0]])
    expected = ja.attributions.integrated_gradients(num_steps=20)(lambda z: jnp.tanh(readout @ z), x, 0)
    np.testing.assert_array_equal(built(lambda z: jnp.tanh(readout @ z), x, 0), expected)


def test_what_restarts_has_no_name_of_its_own():
    found = spec.attacks(changed(attacks=("restarts(pgd, 5)", "ifia(num_steps=3)", "many=restarts(pgd, 7)")))
    assert {label: (str(call), count) for label, (call, count) in found.items()} == {
        "pgd": ("pgd", 5),
        "ifia": ("ifia(num_steps=3)", 1),
        "many": ("pgd", 7),
    }


def test_the_size_of_the_top_fills_attacks_and_metrics():
    texts = [str(call) for call, _ in spec.attacks(SMALL).values()] + [
        str(call) for call in spec.metrics(SMALL).values()
    ]
    assert "ifia(dissimilarity=top_k(8))" in texts
    assert "top_k_intersection(k=8, map='pixel')" in texts or "top_k_intersection(k=8)" in texts
    assert not any("{" in text for text in (*SMALL.attacks, *SMALL.metrics))
    with pytest.raises(ValueError, match="`top_k` and `top_k_map` are not given"):
        spec.with_top_k(Measures(top_k=3))


def test_attributions_are_added_where_there_is_none_of_a_label():
    added = spec.with_attributions(changed(attributions=("saliency=input_x_gradient",)), ["saliency", "saliency"])
    assert added.attributions == ("saliency=input_x_gradient",)
    assert spec.with_attributions(changed(attributions=("saliency",)), ["input_x_gradient"]).attributions == (
        "saliency",
        "input_x_gradient",
    )


def test_bounds_are_those_of_the_norm():
    assert list(spec.bounds(SMALL, "l2")) == ["singular_value"]
    assert list(spec.bounds(SMALL, "linf")) == ["norm_relaxation", "entrywise"]
    assert spec.main_bounds(SMALL, ["entrywise", "mine"]) == ("entrywise",)
    assert spec.main_bounds(SMALL, ["mine", "yours"]) == ("mine", "yours")


def test_noise_has_its_key_from_the_seed(monkeypatch):
    monkeypatch.setitem(ja.attributions.REGISTRY, "noisy", noisy)
    x = jnp.full((4,), 0.5)
    maps = [
        spec.attribution(changed(attributions=("noisy",), seed=seed), "noisy")(lambda z: z[:2], x, 0)
        for seed in (0, 0, 1)
    ]
    np.testing.assert_array_equal(maps[0], maps[1])
    assert (maps[0] != maps[2]).all()


# What is refused


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"attributions": ("saliancy",)}, r"`attributions`: .*there is no `saliancy` \(did you mean `saliency`\?\)"),
        (
            {"attributions": ("integrated_gradients(num_step=5)",)},
            r"no option `num_step` \(did you mean `num_steps`\?\)",
        ),
        ({"bounds": ("semidefinit",)}, r"`bounds`: .*did you mean `semidefinite`\?"),
        ({"bounds": ("semidefinite(within=True)",)}, r"did you mean `within_box`\?"),
        ({"attacks": ("restarts(pgdd, 5)",)}, r"`attacks`: .*did you mean `pgd`\?"),
        ({"attacks": ("pgd(num_step=3)",)}, r"did you mean `num_steps`\?"),
        ({"metrics": ("kendal_tau",)}, r"`metrics`: .*did you mean `kendall_tau`\?"),
        ({"metrics": ("kendall_tau(magnitude=True)",)}, r"did you mean `magnitudes`\?"),
        ({"attributions": ("saliency", "saliency")}, "two are called 'saliency'.*'saliency_2=saliency'"),
        ({"metrics": ("a=spearman", "a=kendall_tau")}, "two are called 'a'.*'a_2=kendall_tau'"),
        ({"attacks": ("pgd", "restarts(pgd, 2)")}, r"two are called 'pgd'.*'pgd_2=restarts\(pgd, 2\)'"),
        (
            {"attributions": ()},
            "`attributions` is empty; accepted are input_x_gradient, integrated_gradients, saliency",
        ),
        ({"attacks": ()}, "`attacks` is empty; accepted are"),
        ({"attributions": ("integrated_gradients(num_steps=0)",)}, "num_steps"),
        ({"attacks": ("ifia(num_steps=-1)",)}, "num_steps"),
        ({"attacks": ("restarts(pgd, 0)",)}, "pgd has 0 starts"),
        ({"bounds": ("entrywise",)}, "`bounds` has none for l2; accepted are entrywise, norm_relaxation"),
        ({"bounds": ("smallest=singular_value",)}, "'smallest' is the label of the smallest main bound"),
        ({"attacks": ("worst_direction=pgd",)}, "'worst_direction' is the label of the points that bounds name"),
        ({"attacks": ("euclidean=pgd",)}, "`attacks`: 'euclidean' is the name of a column already"),
        ({"attacks": ("strongest=pgd",)}, "`attacks`: 'strongest' is the name of a column already"),
        ({"metrics": ("degrees",)}, "`metrics`: 'degrees' is the name of a column already"),
        ({"l2": None, "linf": ()}, "there is no radius: give `--l2` or `--linf`"),
        ({"l2": (0.1, 0.1)}, "`l2` must be different, positive radii"),
        ({"linf": (float("inf"),)}, "`linf` must be different, positive radii"),
        ({"num_samples": 0}, "`num_samples` must be at least 1, got 0"),
        ({"workers": 0}, "`workers` must be at least 1, got 0"),
        ({"pictures": -1}, "`pictures` must be at least 0, got -1"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_is_computed(options, words):
    with pytest.raises(ValueError, match=words):
        spec.check(changed(**options), reserved())


def test_what_fits_is_accepted():
    spec.check(SMALL, reserved())
    spec.check(changed(num_samples=None, rank_samples=0, pictures=0), SCHEMA)


def test_a_bound_of_neither_norm_is_refused(monkeypatch):
    def picky(ball, attribute):
        raise TypeError("`ball` must be something else")

    monkeypatch.setitem(ja.bounds.REGISTRY, "picky", picky)
    with pytest.raises(ValueError, match=r"`bounds`: picky is of no norm here.*`ball` must be something else"):
        spec.check(changed(bounds=("singular_value", "picky")))


def test_an_attribution_that_is_not_there_lists_those_that_are():
    with pytest.raises(ValueError, match="the attribution is 'lime'; this audit has saliency, input_x_gradient"):
        spec.attribution(SMALL, "lime")


# Identity


def test_defaults_that_are_written_out_change_no_identity():
    given = changed(attributions=("integrated_gradients",), bounds=("singular_value", "entrywise"))
    written = dataclasses.replace(
        given,
        attributions=("integrated_gradients(num_steps=50, rule='midpoint')",),
        bounds=("singular_value(kinks='refuse')", "entrywise(kinks='refuse')"),
        attacks=(
            "restarts(pgd(num_steps=20, random_start=True), 5)",
            "restarts(ifia(num_steps=200, dissimilarity=top_k(8, 'pixel')), 5)",
            "ascent=restarts(num_restarts=5, attack=ifia(dissimilarity=euclidean(), num_steps=200))",
        ),
    )
    assert written.attacks != given.attacks
    for norm in ("l2", "linf"):
        assert hash_of(written, "integrated_gradients", norm) == hash_of(given, "integrated_gradients", norm)


@pytest.mark.parametrize(
    ("registry", "name"),
    [
        (ja.attributions.REGISTRY, "saliency"),
        (ja.bounds.REGISTRY, "norm_relaxation"),
        (ja.attacks.REGISTRY, "pgd"),
        (ja.metrics.REGISTRY, "spearman"),
    ],
)
def test_an_option_that_comes_later_changes_no_identity_unless_it_is_used(monkeypatch, registry, name):
    before = hash_of(SMALL)
    constructor = registry[name]
    signature = inspect.signature(constructor)
    more = inspect.Parameter("smoothing", inspect.Parameter.KEYWORD_ONLY, default=4)

    def later(*args, smoothing=4, **options):
        return constructor(*args, **options)

    later.__signature__ = signature.replace(parameters=[*signature.parameters.values(), more])
    monkeypatch.setitem(registry, name, later)
    spec.check(SMALL)
    assert hash_of(SMALL) == before
    used = {
        "saliency": {"attributions": ("saliency(smoothing=5)",)},
        "norm_relaxation": {"bounds": ("singular_value", "norm_relaxation(tolerance=0.0, smoothing=5)", "entrywise")},
        "pgd": {"attacks": ("restarts(pgd(smoothing=5), 5)", *SMALL.attacks[1:])},
        # Metrics are no part of it.
        "spearman": {"metrics": ("spearman(magnitudes=True, smoothing=5)",)},
    }
    assert (hash_of(changed(**used[name])) == before) == (name == "spearman")


@pytest.mark.parametrize(
    "options",
    [
        {"linf": (0.01,)},
        {"seed": 1},
        {"attacks": ("restarts(pgd, 6)", *SMALL.attacks[1:])},
        {"attacks": ("restarts(pgd(num_steps=21), 5)", *SMALL.attacks[1:])},
        {"attacks": ("renamed=restarts(pgd, 5)", *SMALL.attacks[1:])},
        {"attributions": ("saliency=input_x_gradient",)},
        {"bounds": ("singular_value", "norm_relaxation", "entrywise")},
        {"main_bounds": ("entrywise",)},
        {"max_dense_features": 3},
        {"rank_samples": 3},
        {"top_k": 9},
        {"dataset": "mnist"},
    ],
)
def test_what_changes_rows_changes_the_identity(options):
    assert hash_of(changed(**options)) != hash_of(SMALL)


def test_what_changes_no_row_of_a_cell_changes_no_identity(monkeypatch):
    same = changed(
        metrics=("spearman",), num_samples=3, batch_size=1, pictures=0, workers=7, kinks="allow", skip_damaged=True,
        attributions=("saliency", "input_x_gradient"), l2=(7.0,),
    )  # fmt: skip
    assert hash_of(same) == hash_of(SMALL)
    # Bounds of the other norm are those of another cell.
    others = changed(bounds=("singular_value(tolerance=0.1)", *SMALL.bounds[1:]))
    assert (hash_of(others), hash_of(others, norm="l2")) != (hash_of(SMALL), hash_of(SMALL, norm="l2"))
    assert hash_of(others) == hash_of(SMALL)
    before = hash_of(SMALL)
    monkeypatch.setattr(spec, "NUMERICS", spec.NUMERICS + 1)
    assert hash_of(SMALL) != before
