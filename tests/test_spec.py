"""Methods know how they were built, and print as it would be written."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tables import METHODS

import jaxattr as ja

# The output `margin` and the objective of that name print alike.
NAMES = {
    **ja.attributions.REGISTRY,
    **ja.bounds.REGISTRY,
    **ja.attacks.REGISTRY,
    **ja.attacks.OBJECTIVES,
    **ja.attacks.DISSIMILARITIES,
    **{name: getattr(ja.bounds, name) for name in ("corrected", "smallest", "rank_guarantee", "label_constrained")},
    **{name: getattr(ja.attacks, name) for name in ("restarts", "worst_direction")},
    "explaining": ja.outputs.explaining,
    "margin": ja.outputs.margin,
    "L2": ja.L2,
    "LInf": ja.LInf,
}
SALIENCY, L2 = ja.attributions.saliency(), ja.L2(0.1, box=None)


@pytest.mark.parametrize("name", METHODS)
def test_what_is_printed_builds_the_same_again(name):
    row = METHODS[name]
    method = row.build(row.ball(0.1), (2, 3))
    printed = repr(method)
    assert printed.startswith(f"{method.spec.name}(")
    if "<" in printed:
        assert "array of shape" in printed
        return
    assert eval(printed, NAMES) is method


@pytest.mark.parametrize(
    ("method", "printed"),
    [
        (ja.attributions.integrated_gradients(), "integrated_gradients()"),
        (ja.attributions.integrated_gradients(50, "midpoint"), "integrated_gradients()"),
        (ja.attributions.integrated_gradients(7, rule="left"), "integrated_gradients(num_steps=7, rule='left')"),
        (ja.bounds.singular_value(ball=L2, attribute=SALIENCY), "singular_value(saliency(), L2(0.1, box=None))"),
        (
            ja.attacks.pgd(L2, random_start=False, num_steps=3),
            "pgd(L2(0.1, box=None), num_steps=3, random_start=False)",
        ),
        (ja.attacks.restarts(ja.attacks.pgd(L2), 5), "restarts(pgd(L2(0.1, box=None)), 5)"),
        (ja.outputs.explaining(SALIENCY, ja.outputs.margin), "explaining(saliency(), margin)"),
    ],
    ids=str,
)
def test_options_are_named_where_they_differ_from_their_defaults(method, printed):
    assert repr(method) == printed


def test_the_parts_of_a_description():
    spec = ja.attributions.integrated_gradients(7, baseline=[0.5, 1.0]).spec
    assert (spec.name, spec.required, spec.options) == (
        "integrated_gradients",
        (),
        {"num_steps": 7, "baseline": [0.5, 1.0]},
    )
    bound = ja.bounds.smallest(ja.bounds.singular_value(SALIENCY, L2), ja.bounds.singular_value(SALIENCY, L2))
    assert [inner.spec.name for inner in bound.spec.required] == ["singular_value"] * 2


@pytest.mark.parametrize("kind", [np.asarray, jnp.asarray])
def test_arrays_are_shown_by_type_and_shape(kind):
    attribute = ja.attributions.integrated_gradients(baseline=kind(np.zeros((2, 3), np.float32)))
    assert repr(attribute) == "integrated_gradients(baseline=<float32 array of shape (2, 3)>)"


def test_a_radius_that_is_traced_is_no_obstacle():
    def run(epsilon):
        bound = ja.bounds.singular_value(SALIENCY, ja.L2(epsilon), method="dense")
        return bound(lambda x: jnp.stack([x @ x, x[0]]), jnp.ones(3) / 2, 0).euclidean

    np.testing.assert_allclose(jax.jit(run)(0.1), 0.2, rtol=1e-5)


def test_a_method_of_ones_own_says_its_name_and_ball():
    method = ja.method.Method("mine", lambda *_: 0, L2)
    assert method.spec is None
    assert repr(method) == "<jaxattr method mine over L2(0.1, box=None)>"
    own = ja.Attribution("mine", lambda *_: 0)
    assert repr(own) == "Attribution('mine')"
