"""Methods are built from text: commands, configurations and records name them so."""

import jax
import jax.numpy as jnp
import pytest

import jaxattr as ja
from jaxattr import _build, defenses

SALIENCY, LINF, L2 = ja.attributions.saliency(), ja.LInf(0.1), ja.L2(0.1)
CONTEXT = {"attribute": SALIENCY, "ball": LINF}


@ja.described
def noisy(key, *, sigma=0.1):
    """Explain the input with noise; the entry of a stranger, with a key and an option."""
    return ja.Attribution("noisy", lambda _, x, __: x + sigma * jax.random.normal(key, x.shape, x.dtype))


@ja.described
def keyed(key=None, *, scale=1.0):
    return ja.Attribution("keyed", lambda _, x, __: scale * x if key is None else x)


# A registry of one's own: the library's, and two lines more.
REGISTRY = {**ja.attributions.REGISTRY, "noisy": noisy, "keyed": keyed}
ALL = {**_build.constructors(), **REGISTRY}

CANONICAL = {
    "saliency": "saliency",
    "saliency()": "saliency",
    " saliency ( ) ": "saliency",
    "integrated_gradients(num_steps=5, rule='gauss_legendre')": (
        "integrated_gradients(num_steps=5, rule='gauss_legendre')"
    ),
    "integrated_gradients(rule='left', num_steps=5)": "integrated_gradients(num_steps=5, rule='left')",
    "integrated_gradients(5, 'left')": "integrated_gradients(num_steps=5, rule='left')",
    "integrated_gradients(50, rule='midpoint', chunk=5)": "integrated_gradients",
    "integrated_gradients(baseline=0)": "integrated_gradients(baseline=0)",
    "integrated_gradients(baseline=[0.1, -.2, 3e-1], chunk=None)": (
        "integrated_gradients(baseline=[0.1, -0.2, 0.3], chunk=None)"
    ),
    "noisy(sigma=0.1)": "noisy",
    "ifia(num_steps=20, dissimilarity=top_k(100))": "ifia(dissimilarity=top_k(100), num_steps=20)",
    "ifia(dissimilarity=top_k(k=100))": "ifia(dissimilarity=top_k(100))",
    "restarts(pgd(num_steps=10), 5)": "restarts(pgd(num_steps=10), 5)",
    "restarts(num_restarts=5, attack=pgd)": "restarts(pgd(), 5)",
    "restarts(num_restarts=5)": "restarts(num_restarts=5)",
    "explaining(saliency(), margin)": "explaining(saliency(), margin)",
    "explaining(saliency, output=margin)": "explaining(saliency(), margin)",
    "worst_direction(bound=singular_value(num_steps=7))": "worst_direction(bound=singular_value(num_steps=7))",
    "smallest(norm_relaxation(), entrywise)": "smallest(norm_relaxation(), entrywise())",
    "corrected(singular_value)": "corrected(singular_value())",
    "pgd(LInf(8 / 255), objective=margin())": "pgd(LInf(0.03137254901960784), objective=margin())",
    "weighted_sum([(1.0, cross_entropy()), (0.5, deviation(dissimilarity=euclidean()))])": (
        "weighted_sum([(1.0, cross_entropy()), (0.5, deviation(dissimilarity=euclidean()))])"
    ),
    "rank_guarantee(k=(3,), values='signed')": "rank_guarantee(k=(3,), values='signed')",
}


@pytest.mark.parametrize("text", CANONICAL)
def test_equal_calls_have_one_text(text):
    call = ja.parse(ALL, text)
    assert str(call) == CANONICAL[text]
    again = ja.parse(ALL, str(call))
    assert again == call
    assert hash(again) == hash(call)
    assert str(again) == str(call)


# The calls that Python would make of a text, with the context filled in.
_IG, _A, _B = ja.attributions.integrated_gradients, ja.attacks, ja.bounds
BUILT = {
    "saliency()": lambda: SALIENCY,
    "integrated_gradients(5, 'left')": lambda: _IG(5, "left"),
    "integrated_gradients(50, rule='midpoint', chunk=5)": _IG,
    "integrated_gradients(baseline=[0.1, -.2, 3e-1], chunk=None)": lambda: _IG(baseline=[0.1, -0.2, 0.3], chunk=None),
    "ifia(num_steps=20, dissimilarity=top_k(100))": lambda: _A.ifia(
        LINF, SALIENCY, _A.dissimilarities.top_k(100), num_steps=20
    ),
    "restarts(num_restarts=5, attack=pgd)": lambda: _A.restarts(_A.pgd(LINF), 5),
    "explaining(saliency(), margin)": lambda: ja.outputs.explaining(SALIENCY, ja.outputs.margin),
    "smallest(norm_relaxation(), entrywise)": lambda: _B.smallest(
        _B.norm_relaxation(SALIENCY, LINF), _B.entrywise(SALIENCY, LINF)
    ),
    "corrected(singular_value(ball=L2(0.2)))": lambda: _B.corrected(_B.singular_value(SALIENCY, ja.L2(0.2)), SALIENCY),
    "pgd(LInf(8 / 255), objective=margin())": lambda: _A.pgd(ja.LInf(8 / 255), objective=_A.margin()),
    "weighted_sum([(1.0, cross_entropy()), (0.5, deviation(dissimilarity=euclidean()))])": lambda: _A.weighted_sum(
        [(1.0, _A.cross_entropy()), (0.5, _A.deviation(SALIENCY, _A.dissimilarities.euclidean()))]
    ),
    "rank_guarantee(k=(3,), values='signed')": lambda: _B.rank_guarantee(SALIENCY, LINF, k=(3,), values="signed"),
}


@pytest.mark.parametrize("text", BUILT)
def test_what_is_built_is_what_python_would_build(text):
    assert ja.build(ALL, text, **CONTEXT) is BUILT[text]()


def test_nested_calls_take_from_the_context_too():
    text = "worst_direction(bound=singular_value(num_steps=7))"
    found = ja.build(ja.attacks.REGISTRY, text, attribute=SALIENCY, ball=L2)
    assert found is ja.attacks.worst_direction(L2, SALIENCY, ja.bounds.singular_value(SALIENCY, L2, num_steps=7))
    found = ja.build(ALL, "restarts(pgd(L2(0.2)), 5)", **CONTEXT)
    assert found is ja.attacks.restarts(ja.attacks.pgd(ja.L2(0.2)), 5)
    found = ja.build(defenses.REGISTRY, "igr(trades(num_steps=2), integrated_gradients(10))", ball=LINF)
    expected = defenses.igr(defenses.trades(LINF, num_steps=2), ja.attributions.integrated_gradients(10))
    assert found is expected


def test_a_key_is_taken_from_the_context_whether_it_has_a_default_or_not():
    key = jax.random.key(3)
    assert ja.build(REGISTRY, "noisy(sigma=0.2)", key=key) is noisy(key, sigma=0.2)
    assert ja.build(REGISTRY, "keyed", key=key) is keyed(key)
    assert ja.build(REGISTRY, "keyed") is keyed()
    assert ja.build(REGISTRY, "saliency", key=key) is SALIENCY
    explained = ja.build({"explaining": ja.outputs.explaining, **REGISTRY}, "explaining(noisy(), log_odds)", key=key)
    assert explained is ja.outputs.explaining(noisy(key), ja.outputs.log_odds)
    call = ja.parse(REGISTRY, "noisy")
    assert (call.accepts("key"), call.accepts("sigma"), call.accepts("ball")) == (True, True, False)


def test_other_options_are_not_taken_from_the_context():
    found = ja.build(ja.attacks.REGISTRY, "ifia", **CONTEXT, num_steps=3)
    assert found is ja.attacks.ifia(LINF, SALIENCY)


def test_the_parts_of_a_call():
    call = ja.parse(ja.attacks.REGISTRY, "ifia(num_steps=20, dissimilarity=top_k(100))")
    assert (call.name, call.constructor) == ("ifia", ja.attacks.ifia)
    assert list(call.arguments) == ["dissimilarity", "num_steps"]
    inner = call.arguments["dissimilarity"]
    assert isinstance(inner, ja.Call)
    assert (inner.name, inner.arguments) == ("top_k", {"k": 100})
    assert repr(call) == "Call('ifia(dissimilarity=top_k(100), num_steps=20)')"
    assert call != "ifia"


def test_an_option_that_is_added_changes_no_text():
    def before(num_steps=5, *, rule="left"):
        return num_steps, rule

    def after(num_steps=5, weight=1.0, *, chunk=None, rule="left"):
        return num_steps, weight, chunk, rule

    for text in ("method", "method(num_steps=7)", "method(rule='right')"):
        assert str(ja.parse({"method": before}, text)) == str(ja.parse({"method": after}, text)) == text


METRICS = {
    "kendall_tau(nonzero_only=True)": "kendall_tau(nonzero_only=True)",
    "kendall_tau(nonzero_only=False)": "kendall_tau",
    "spearman": "spearman",
    "top_k_intersection(k=1)": "top_k_intersection(k=1)",
    "top_k_intersection(k=100)": "top_k_intersection",
}


@pytest.mark.parametrize("text", METRICS)
def test_functions_are_bound(text):
    a, b = jnp.array([1.0, 0.0, 3.0]), jnp.array([2.0, 0.0, 1.0])
    call = ja.parse(ja.metrics.REGISTRY, text, bind=True)
    assert str(call) == METRICS[text]
    metric = call.build()
    expected = {
        "kendall_tau(nonzero_only=True)": lambda: ja.metrics.kendall_tau(a, b, nonzero_only=True),
        "top_k_intersection(k=1)": lambda: ja.metrics.top_k_intersection(a, b, 1),
    }
    if text in expected:
        assert float(metric(a, b)) == float(expected[text]())
    elif "(" not in text:
        assert metric is ja.metrics.REGISTRY[text]


def test_a_metric_of_ones_own_is_one_line():
    def at_place(a, b, place=0):
        return a[place] - b[place]

    registry = {**ja.metrics.REGISTRY, "at_place": at_place}
    found = ja.build(registry, "at_place(place=1)", bind=True)
    assert float(found(jnp.array([1.0, 5.0]), jnp.array([1.0, 2.0]))) == 3.0
    assert ja.build(registry, "at_place", bind=True) is at_place


REFUSED = {
    "integrated_gradient": r"there is no `integrated_gradient` \(did you mean `integrated_gradients`\?\)\. Names are",
    "pgd": r"there is no `pgd`.*Names are `saliency`",
    "integrated_gradients(num_step=5)": r"no option `num_step` \(did you mean `num_steps`\?\).*accepts num_steps=50",
    "integrated_gradients(num_steps=5, num_steps=3)": "is given `num_steps` twice",
    "integrated_gradients(5, num_steps=3)": "is given `num_steps` twice",
    "integrated_gradients(": "is not a call such as.*never closed",
    "": "is not a call",
    "saliency; saliency": "is not a call",
    "saliency.x": "a call such as",
    "'saliency'": "a call such as",
    "(lambda: 1)()": "a call such as",
    "saliency(1)": "takes no values without a name: it accepts no options",
    "integrated_gradients(1, 'left', 0.0, 5, False, 3)": "`3` is not accepted.*takes 5 values without a name",
    "integrated_gradients(*[5])": "written out",
    "integrated_gradients(**{})": "written out",
    "integrated_gradients(baseline=zero)": "there is no `zero`",
    "integrated_gradients(baseline=zero())": "there is no `zero`",
    "integrated_gradients(num_steps=x.y)": "no number, string",
    "integrated_gradients(num_steps=1 / 0)": "division by zero",
    "integrated_gradients(num_steps=0)": r"`integrated_gradients\(num_steps=0\)`: `num_steps` must be at least 1",
    "integrated_gradients(rule='lef')": r"`integrated_gradients\(rule='lef'\)`: .*`rule` must be",
    "noisy": r"`noisy` lacks `key`.*`noisy` accepts key, sigma=0\.1",
}


@pytest.mark.parametrize("text", REFUSED)
def test_what_is_no_method_is_refused_with_what_is_accepted(text):
    with pytest.raises(ValueError, match=f"(?s){REFUSED[text]}"):
        ja.build(REGISTRY, text)


def test_other_errors():
    with pytest.raises(ValueError, match="named by text such as `saliency`, got Attribution"):
        ja.parse(REGISTRY, SALIENCY)
    with pytest.raises(ValueError, match=r"lacks `ball`, `attribute`.*`build` as `ball=`"):
        ja.build(ja.attacks.REGISTRY, "ifia")
    with pytest.raises(ValueError, match=r"`singular_value` lacks `ball`"):
        ja.build(ALL, "corrected(singular_value)", attribute=SALIENCY)
    with pytest.raises(TypeError, match=r"^`integrated_gradients\(num_steps=5\.0\)`: `num_steps` must be an integer"):
        ja.build(REGISTRY, "integrated_gradients(num_steps=5.0)")
    with pytest.raises(TypeError, match=r"^`ifia`: `ball` must be"):
        ja.build(ja.attacks.REGISTRY, "ifia", ball=3, attribute=SALIENCY)
    with pytest.raises(ValueError, match="takes no values without a name: it accepts k=100"):
        ja.parse(ja.metrics.REGISTRY, "top_k_intersection(10)", bind=True)
    with pytest.raises(ValueError, match="has no option `a`"):
        ja.parse(ja.metrics.REGISTRY, "kendall_tau(a=3)", bind=True)


def test_every_registry_entry_has_a_text_that_prints_as_it_is():
    for registry in (
        ja.attributions.REGISTRY,
        ja.bounds.REGISTRY,
        ja.attacks.REGISTRY,
        ja.attacks.OBJECTIVES,
        ja.attacks.DISSIMILARITIES,
        defenses.REGISTRY,
    ):
        for name in registry:
            assert str(ja.parse(registry, name)) == name
    for name in (*ja.metrics.REGISTRY, *ja.outputs.REGISTRY):
        registry = ja.metrics.REGISTRY if name in ja.metrics.REGISTRY else ja.outputs.REGISTRY
        assert ja.build(registry, name, bind=True) is registry[name]
