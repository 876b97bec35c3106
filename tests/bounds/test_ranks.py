"""Guaranteed ranks against the pair test in float64, against worst perturbations, and against thousands of attacks."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from jax.tree_util import Partial
from oracles import affine, network, quadratic, symmetric

import jaxattr as ja

SIZE, K = 10, 4
KEY = jax.random.key(0)
SALIENCY = ja.attributions.saliency()
IG = ja.attributions.integrated_gradients(4, chunk=None)
BALLS = {"l2": (ja.L2, False), "linf": (ja.LInf, False), "box": (ja.LInf, True)}
every_ball = pytest.mark.parametrize("norm", list(BALLS))
every_view = pytest.mark.parametrize("values", ["absolute", "signed"])
# Two black pixels, one white: integrated gradients are 0 at black ones, and the box cuts at all three.
X = np.array([0.1, 0.9, 0.4, 0.0, 1.0, 0.3, 0.7, 0.0, 0.55, 0.2], np.float32)
GRAY = np.full(SIZE, 0.5, np.float32)
# Quicker to compile.
jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


def build(norm, values, attribute=SALIENCY, k=K, epsilon=0.1, box=(0.0, 1.0), **options):
    ball, within_box = BALLS[norm]
    return ja.bounds.rank_guarantee(
        attribute, ball(epsilon, box=box), k=k, values=values, within_box=within_box, **options
    )


@functools.cache
def program(norm, values, attribute=SALIENCY):
    """Compiled once for all models, samples and radii."""
    run = jit(lambda f, x, epsilon: build(norm, values, attribute, epsilon=epsilon)(f, x, 0, KEY))
    return lambda f, x, epsilon: jax.tree.map(np.asarray, run(f, jnp.asarray(x), jnp.asarray(epsilon, x.dtype)))


def view(g, values):
    return np.abs(g) if values == "absolute" else np.asarray(g)


def limits(norm, x, epsilon):
    low, high = np.full(x.size, -epsilon), np.full(x.size, epsilon)
    return (np.maximum(low, -x), np.minimum(high, 1 - x)) if norm == "box" else (low, high)


def worst_delta(norm, x, epsilon, v):
    """The perturbation that lowers <v, delta> most."""
    if norm == "l2":
        size = np.linalg.norm(v)
        return -epsilon * v / size if size > 0 else 0 * v
    low, high = limits(norm, x, epsilon)
    return np.where(v > 0, low, np.where(v < 0, high, 0))


def pair_tests(g, J, values):
    """``(i, j, gap, v)``: i stays above j exactly if ``gap + <v, delta>`` stays above 0 in all of its tests."""
    ranked = view(g, values)
    for i, j in np.argwhere(ranked[:, None] > ranked):
        if values == "signed":
            yield i, j, g[i] - g[j], J[i] - J[j]
        else:
            for b in (1, -1):
                yield i, j, abs(g[i]) - b * g[j], np.sign(g[i]) * J[i] - b * J[j]


def reference(norm, values, x, g, J, epsilon):
    """Everything in plain loops and float64."""
    ranked = view(g, values)
    still = ranked[~np.any(J, axis=1)]
    # Pairs that may be untied after: all but those that are equal and do not move.
    pairs = SIZE * (SIZE - 1) / 2 - np.sum(np.triu(still[:, None] == still, 1))
    fixed = ranked[:, None] > ranked
    untied = int(fixed.sum())
    for i, j, gap, v in pair_tests(g, J, values):
        fixed[i, j] &= gap + v @ worst_delta(norm, x, epsilon, v) > 0
    kept = int(fixed.sum())
    low = 2 * kept - untied
    top = np.argsort(-ranked, kind="stable")[:K]
    outside = np.setdiff1d(np.arange(SIZE), top)
    safe = {int(i) for i in top if SIZE - 1 - fixed[i].sum() <= K - 1}
    threats = sum(not fixed[top, o].all() for o in outside)
    return {
        "kendall_tau": low / np.sqrt(untied * pairs) if low >= 0 else low / untied,
        "fixed_pairs": kept / untied,
        "guaranteed": safe,
        "least": max(len(safe), K - threats) / K,
    }


def instance(seed, kind="plain"):
    """``(A, b)`` of a quadratic; its saliency ``A x + b`` is linear, so that the guarantee is exact."""
    A, b = symmetric(seed, SIZE), 3 * np.random.default_rng(seed + 100).normal(size=SIZE)
    if kind == "ties":
        # Features 0 and 1 are equal and move alike, 5 and 6 are zero and do not move.
        A[1] = A[0]
        A[:, 1] = A[:, 0]
        A[1, 1], b[1] = A[0, 0], b[0]
        A[[5, 6]], A[:, [5, 6]], b[[5, 6]] = 0, 0, 0
    return A, b


def embedded(J, g, others=(90, -80, 70, 60, 0.01, -0.02, 0.03, 0.04)):
    """A quadratic whose saliency at GRAY is g, in the first features, with Jacobian J; the others do not move."""
    A, n = np.zeros((SIZE, SIZE)), len(g)
    A[:n, :n] = J
    return quadratic(A, np.concatenate([g, others[: SIZE - n]]) - A @ GRAY)


def tau_b(before, afters):
    """Kendall's tau-b of one map with many."""
    order, orders = np.sign(before[:, None] - before), np.sign(afters[:, :, None] - afters[:, None, :])
    untied = np.sqrt(np.abs(order).sum() * np.abs(orders).sum((1, 2)))
    return (order * orders).sum((1, 2)) / np.where(untied > 0, untied, np.nan)


def assert_holds(found, before, afters, values):
    """The guarantee against many maps: tau-b, and a stable sort."""
    before, afters = view(before, values), view(afters, values)
    tau = tau_b(before, afters)
    assert tau[0] == pytest.approx(scipy.stats.kendalltau(before, afters[0]).statistic, nan_ok=True)
    assert not np.any(tau < float(found.kendall_tau) - 1e-6)
    top = np.argsort(-before, kind="stable")[:K]
    now = np.argsort(-afters, axis=1, kind="stable")[:, :K]
    stays = np.stack([np.isin(np.arange(SIZE), row) for row in now])
    assert stays[:, top].mean(axis=1).min() >= float(found.top_k_intersection) - 1e-6
    assert set(np.flatnonzero(found.guaranteed_top_k)) <= set(top)
    assert np.all(stays[:, found.guaranteed_top_k])


@jax.jit
def saliency_maps(logits_fn, xs):
    return jax.vmap(lambda x: SALIENCY(logits_fn, x, 0))(xs)


def perturbations(norm, x, g, J, epsilon, values, rng, count):
    """The worst perturbation of every pair, sphere points or corners, and interior points."""
    low, high = limits(norm, x, epsilon)
    if norm == "l2":
        edge = rng.normal(size=(count, SIZE))
        edge *= epsilon / np.linalg.norm(edge, axis=1, keepdims=True)
        inside = edge[: count // 4] * rng.uniform(size=(count // 4, 1)) ** (1 / SIZE)
    else:
        edge = np.where(rng.random((count, SIZE)) < 0.5, low, high)
        inside = rng.uniform(low, high, (count // 4, SIZE))
    pairs = [worst_delta(norm, x, epsilon, v) for *_, v in pair_tests(g, J, values)]
    return np.concatenate([np.reshape(pairs, (-1, SIZE)), edge, inside])


@pytest.mark.parametrize("kind", ["plain", "ties"])
@every_view
@every_ball
def test_closed_form_on_quadratic_models(norm, values, kind):
    seen = []
    for seed in range(4):
        A, b = instance(seed, kind)
        for epsilon in (0.003, 0.02, 0.1, 0.5, 3.0):
            found = program(norm, values)(quadratic(A, b), X, epsilon)
            expected = reference(norm, values, X.astype(float), A @ X + b, A, epsilon)
            assert float(found.kendall_tau) == pytest.approx(expected["kendall_tau"], rel=1e-5)
            assert float(found.fixed_pairs) == pytest.approx(expected["fixed_pairs"], rel=1e-6)
            assert set(np.flatnonzero(found.guaranteed_top_k)) == expected["guaranteed"]
            # Exchanges of m members for m outsiders are counted more sharply than members and outsiders by themselves.
            assert float(found.top_k_intersection) >= expected["least"] - 1e-6
            seen.append((float(found.kendall_tau) >= 0, len(expected["guaranteed"])))
    # Not all trivial: both signs of the bound; none, some and all members guaranteed.
    assert {sign for sign, _ in seen} == {True, False}
    assert {0, K} < {members for _, members in seen} or kind == "ties"


@pytest.mark.parametrize("kind", ["plain", "ties"])
@every_view
@every_ball
def test_no_perturbation_goes_below_on_quadratic_models(norm, values, kind):
    tried, rng = 0, np.random.default_rng(0)
    for seed in range(4):
        A, b = instance(seed, kind)
        logits_fn = quadratic(A, b)
        for epsilon in (0.01, 0.05, 0.2):
            found = program(norm, values)(logits_fn, X, epsilon)
            deltas = perturbations(norm, X.astype(float), A @ X + b, A, epsilon, values, rng, 80)
            # In float32, and in the box where that is relied on, as an attack would hand them over.
            moved = (X + deltas).astype(np.float32)
            moved = np.clip(moved, 0, 1) if norm == "box" else moved
            before, *afters = np.asarray(saliency_maps(logits_fn, np.concatenate([X[None], moved])[:200]))
            assert_holds(found, before, np.stack(afters), values)
            tried += len(afters)
    assert tried > 1000


@functools.cache
def attacked_in(ball):
    """What three attacks find, five times each, in one program for all models and radii."""
    a = ja.attacks

    def run(logits_fn, x, epsilon, key):
        measures = [a.dissimilarities.top_k(K, map="feature"), a.dissimilarities.top_k(K, measure="kendall")]
        each = [a.ifia(ball(epsilon), SALIENCY, measure, num_steps=25) for measure in measures]
        each.append(a.pgd(ball(epsilon), num_steps=10, objective=a.deviation(SALIENCY, a.dissimilarities.cosine())))
        return jnp.concatenate([a.restarts(attack, 5)(logits_fn, x, 0, key).x for attack in each])

    return jit(run)


@every_ball
def test_no_attack_of_the_library_goes_below(norm):
    moved, attacked = 0, attacked_in(BALLS[norm][0])
    for seed in range(3):
        A, b = instance(seed)
        # A label that is kept, so that IFIA moves.
        logits_fn = quadratic(A, b + 9)
        for epsilon in (0.05, 0.3):
            found = program(norm, "absolute")(logits_fn, X, epsilon)
            xs = attacked(logits_fn, X, epsilon, jax.random.key(seed))
            before, *afters = np.asarray(saliency_maps(logits_fn, jnp.concatenate([X[None], xs])))
            assert_holds(found, before, np.stack(afters), "absolute")
            moved += int(np.sum(np.max(np.abs(xs - X), axis=1) > 1e-3))
    # PGD moves all of its 30.
    assert moved > 35


@pytest.mark.parametrize("norm", ["l2", "box"])
def test_integrated_gradients_with_black_pixels_in_their_linear_model(norm):
    values, rng = "absolute", np.random.default_rng(0)
    for seed in range(3):
        A, b = instance(seed)
        g, J = X * (A @ X / 2 + b), np.diag(A @ X / 2 + b) + X[:, None] * A / 2
        assert (g == 0).sum() == 2
        for epsilon in (0.005, 0.05):
            found = program(norm, values, IG)(quadratic(A, b), X, epsilon)
            expected = reference(norm, values, X.astype(float), g, J, epsilon)
            assert float(found.kendall_tau) == pytest.approx(expected["kendall_tau"], rel=1e-5)
            assert set(np.flatnonzero(found.guaranteed_top_k)) == expected["guaranteed"]
            deltas = perturbations(norm, X.astype(float), g, J, epsilon, values, rng, 80)
            assert_holds(found, g, g + deltas @ J.T, values)


@every_view
@every_ball
def test_the_test_of_a_pair_is_attained(norm, values):
    """A little below its critical radius a pair is fixed; a little beyond, its worst perturbation turns it."""
    found_any = False
    for seed in range(6):
        # Ranks 4 and 5 of ten: the pair decides who is the last of the top 4.
        J, others = symmetric(seed, 2), [90, 80, 70, 0.1, 0.2, 0.3, 0.4, 0.5]
        rng = np.random.default_rng(seed)
        g = rng.permutation([20, rng.uniform(20.3, 21)]) * [1, -1 if values == "absolute" and seed % 2 else 1]
        full = np.zeros((SIZE, SIZE))
        full[:2, :2] = J
        wide = np.concatenate([g, np.zeros(SIZE - 2)])
        tests = [(gap, v) for i, j, gap, v in pair_tests(wide, full, values) if {i, j} == {0, 1}]

        def least(epsilon, tests=tests):
            return min(gap + v @ worst_delta(norm, GRAY.astype(float), epsilon, v) for gap, v in tests)

        # Only one of two tests can be critical here, and it is linear in epsilon until the box is met.
        critical = 0.25 * least(0.0) / (least(0.0) - least(0.25))
        if critical > 0.49:
            continue
        found_any = True
        below, beyond = (program(norm, values)(embedded(J, g, others), GRAY, critical * f) for f in (0.99, 1.01))
        assert float(below.fixed_pairs) == pytest.approx(float(beyond.fixed_pairs) + 1 / 45)
        assert (float(below.top_k_intersection), float(beyond.top_k_intersection)) == (1, 0.75)
        upper = int(np.argmax(view(g, values)))
        after = [
            view(wide + full @ worst_delta(norm, GRAY.astype(float), 1.01 * critical, v), values) for _, v in tests
        ]
        assert any(each[upper] < each[1 - upper] for each in after)
    assert found_any


def test_by_hand():
    x, logits_fn = jnp.zeros(4), quadratic(np.eye(4), np.array([5.0, -4.0, 1.0, 0.0]))

    @jit
    def absolute(epsilon):
        return build("linf", "absolute", k=(1, 2, 3), epsilon=epsilon, box=None)(logits_fn, x, 0, KEY)

    # J = 1: pairs move by 0.8, and no gap of absolute values is below 1.
    found = absolute(0.4)
    assert (float(found.kendall_tau), float(found.fixed_pairs)) == (1, 1)
    np.testing.assert_array_equal(found.top_k_intersection, [1, 1, 1])
    # Pairs move by 1.2: 5 and 4, 1 and 0 may turn. L = 2 * 4 - 6.
    found = absolute(0.6)
    assert float(found.kendall_tau) == pytest.approx(2 / 6)
    assert float(found.fixed_pairs) == pytest.approx(4 / 6)
    np.testing.assert_allclose(found.top_k_intersection, [0, 1, 2 / 3], rtol=1e-6)
    np.testing.assert_array_equal(found.guaranteed_top_k, [[0, 0, 0, 0], [1, 1, 0, 0], [1, 1, 0, 0]])
    # No gap is above 6.
    found = absolute(3.0)
    assert (float(found.kendall_tau), float(found.fixed_pairs)) == (-1, 0)
    assert not np.any(found.guaranteed_top_k)


def test_a_sign_that_may_turn_counts_for_absolute_values():
    # Equal rows: the difference 3 - (-1) never moves, but (3, -1) becomes (2, -2) at a radius of 0.5.
    logits_fn = embedded(np.ones((2, 2)), [3.0, -1.0], np.arange(20, 28))
    for epsilon, absolute in ((0.49, 1), (0.51, 44 / 45)):
        assert float(program("linf", "signed")(logits_fn, GRAY, epsilon).fixed_pairs) == 1
        assert float(program("linf", "absolute")(logits_fn, GRAY, epsilon).fixed_pairs) == pytest.approx(absolute)


def test_the_exchange_bound_is_sharper_than_counting_either_side():
    # 90 and 70 stay. 1.4 and 1.0 may leave, 0.7 and 0.3 may enter, but 1.4 is always above 0.3: not all at once.
    found = program("linf", "signed")(
        embedded(np.eye(4), [1.4, 1.0, 0.7, 0.3], (90, -80, 70, -60, -50, -40)), GRAY, 0.38
    )
    np.testing.assert_array_equal(np.flatnonzero(found.guaranteed_top_k), [4, 6])
    assert float(found.top_k_intersection) == 0.75
    # Features with equal rows keep their order: 1.05 may lose to 0.7 and 0.65, and 1.0 to 0.7 and 0.6. That makes two
    # members and three outsiders, but only 0.7 can pass both. Upside down it is three members and two outsiders.
    value, rows = np.array([1.05, 1.0, 0.7, 0.65, 0.6]), np.eye(5, SIZE)[[0, 1, 2, 1, 0]]
    for sign, others in ((1, [90, 70, -60, -50, -40]), (-1, [90, -80, -70, -60, -50])):
        start, J = np.concatenate([sign * value, others]), np.concatenate([rows, np.zeros((5, SIZE))])

        def attribute(logits_fn, x, label, start=start, J=J):
            return jnp.asarray(start, x.dtype) + jnp.asarray(J, x.dtype) @ (x - 0.5)

        found = jit(build("linf", "signed", attribute, epsilon=0.25))(quadratic(np.eye(SIZE)), GRAY, 0, KEY)
        np.testing.assert_array_equal(np.flatnonzero(found.guaranteed_top_k), np.flatnonzero(start > 9))
        assert float(found.top_k_intersection) == 0.75


@pytest.mark.parametrize("seed", range(3))
def test_ties_that_come_and_go_and_stay(seed):
    """A grid of perturbations, which ties values that were different, and unties equal ones."""
    g = np.random.default_rng(seed).integers(0, 3, 5).astype(float)
    g[0] += 0.5
    logits_fn = embedded(np.eye(5), g)
    wide = np.asarray(saliency_maps(logits_fn, GRAY[None]))[0]
    grid = np.stack(np.meshgrid(*[[-1, -0.5, 0, 0.5, 1]] * 5), -1).reshape(-1, 5)
    signs = set()
    for epsilon in (0.25, 0.4, 0.5):
        found = program("linf", "signed")(logits_fn, GRAY, epsilon)
        afters = wide + np.pad(epsilon * grid, ((0, 0), (0, 5)))
        assert_holds(found, wide, afters, "signed")
        signs.add(float(found.fixed_pairs) == 1)
    assert False in signs


@every_ball
def test_nothing_moves(norm):
    """At radius zero, or with J = 0, the map stays what it is, ties included; without any values there is no tau."""
    b = np.array([2.0, -2.0, 0.0, -0.0, 1.0, 0.0, 3.0, 1.0, 1e-30, 2.0])
    A = symmetric(0, SIZE)
    for found in (
        program(norm, "absolute")(quadratic(0 * A, b), X, 0.3),
        program(norm, "absolute")(quadratic(A, b), X, 0.0),
        program(norm, "signed")(quadratic(0 * A, b), X, 0.3),
    ):
        assert float(found.kendall_tau) == float(found.fixed_pairs) == float(found.top_k_intersection) == 1
        assert int(found.guaranteed_top_k.sum()) == K
    flat = program(norm, "absolute")(quadratic(0 * A, 0 * b), X, 0.3)
    assert np.isnan(flat.kendall_tau)
    assert np.isnan(flat.fixed_pairs)
    assert float(flat.top_k_intersection) == 1
    np.testing.assert_array_equal(np.flatnonzero(flat.guaranteed_top_k), range(K))


def test_within_the_box_never_less_and_more_at_its_edges():
    gained = 0
    for seed in range(4):
        A, b = instance(seed)
        for epsilon in (0.005, 0.03, 0.1, 0.3):
            plain, box = (program(norm, "absolute")(quadratic(A, b), X, epsilon) for norm in ("linf", "box"))
            assert not np.any(plain.guaranteed_top_k & ~box.guaranteed_top_k)
            for name in ("kendall_tau", "fixed_pairs", "top_k_intersection"):
                assert float(getattr(box, name)) >= float(getattr(plain, name))
            gained += float(box.fixed_pairs) > float(plain.fixed_pairs)
            # Far from the limits it is the same.
            inner = [program(norm, "absolute")(quadratic(A, b), GRAY, epsilon) for norm in ("linf", "box")]
            jax.tree.map(np.testing.assert_array_equal, *inner)
    assert gained > 6


@pytest.mark.parametrize("norm", ["l2", "box"])
def test_float32_guarantees_nothing_that_float64_does_not(norm):
    values, lost = "absolute", []
    for seed in range(6):
        for epsilon in (1e-3, 1e-2):
            low = program(norm, values)(network(seed, (SIZE, 12, 3)), X, epsilon)
            with jax.enable_x64(True):
                radius = float(np.float32(epsilon))
                high = program(norm, values)(network(seed, (SIZE, 12, 3)), X.astype(np.float64), radius)
            assert low.kendall_tau.dtype == low.top_k_intersection.dtype == np.float32
            assert high.kendall_tau.dtype == high.top_k_intersection.dtype == np.float64
            assert float(low.fixed_pairs) <= float(high.fixed_pairs) + 1e-7
            assert not np.any(low.guaranteed_top_k & ~high.guaranteed_top_k)
            lost.append(float(high.fixed_pairs) - float(low.fixed_pairs))
    assert sum(lost) < 0.2


def test_nearly_equal_rows_are_not_taken_for_equal():
    """Rows of 1e4 that differ by 1e-5 move 1e-5 epsilon apart. In a Gram matrix 1e8 hides 1e-10, even in float64."""

    def model(difference):
        J = np.full((2, 2), 1e4) + np.diag([difference, 0])
        return embedded(J, [1 + 0.3 * difference, 1.0], 1e5 * np.arange(1, 9))

    for norm in ("linf", "l2"):
        with jax.enable_x64(True):
            run = functools.partial(program(norm, "signed"), model(1e-5), GRAY.astype(float))
            assert (float(run(0.29).fixed_pairs), float(run(0.31).fixed_pairs)) == (1, 44 / 45)
        # float32 knows such rows to no better than that, and claims nothing of the pair.
        found = program(norm, "signed")(model(1e-2), GRAY, 0.29)
        assert float(found.fixed_pairs) == pytest.approx(44 / 45)


@pytest.mark.parametrize("scale", [1e-22, 1e18])
@every_ball
def test_extreme_scales(norm, scale):
    # Squares of 1e-22 are zero in float32: rows would seem not to move.
    A, b = instance(0)
    base, scaled = (program(norm, "absolute")(quadratic(s * A, s * b), X, 0.05) for s in (1, scale))
    assert 0 < float(base.fixed_pairs) < 1
    jax.tree.map(np.testing.assert_array_equal, base, scaled)


@every_ball
def test_what_is_not_finite_guarantees_nothing(norm):
    A, b = instance(0)
    run, infinite = program(norm, "absolute"), A.copy()
    infinite[2, 3] = infinite[3, 2] = np.inf
    holes, beyond = X.copy(), X.copy()
    holes[2], beyond[2] = np.nan, np.inf
    # The gradient of an affine model does not know x.
    others = [run(affine(np.ones((2, SIZE)), np.ones(2)), beyond, 0.01)] if norm == "linf" else []
    for found in (
        *others,
        run(quadratic(A, b), holes, 0.01),
        run(quadratic(infinite, b), X, 0.01),
        run(quadratic(A, b), X, np.nan),
        run(quadratic(A, b), X, -0.1),
    ):
        assert not np.any(found.guaranteed_top_k)
        for value in (found.kendall_tau, found.fixed_pairs, found.top_k_intersection):
            assert np.isnan(value)


def test_vmapped_over_samples_and_radii_and_chunks_equal_a_loop():
    logits_fn, other = (network(seed, (SIZE, 12, 3)) for seed in (0, 1))
    xs = jnp.asarray(np.random.default_rng(0).uniform(size=(3, 5, 1, 2)), jnp.float32)
    epsilons = jnp.array([1e-3, 0.0, 1e-2])

    def run(chunk, f, x, epsilon):
        return build("box", "absolute", k=(2, 4), epsilon=epsilon, chunk=chunk)(f, x, 0, KEY)

    loop = jit(functools.partial(run, 4))
    each = [loop(logits_fn, x, e) for x, e in zip(xs, epsilons, strict=True)]
    assert each[0].guaranteed_top_k.shape == (2, 5, 1, 2)
    assert each[0].top_k_intersection.shape == (2,)
    found = jit(jax.vmap(functools.partial(run, None), in_axes=(None, 0, 0)))(logits_fn, xs, epsilons)
    jax.tree.map(lambda a, *b: np.testing.assert_array_equal(a, np.stack(b)), found, *each)
    assert not np.array_equal(loop(other, xs[0], epsilons[0]).kendall_tau, each[0].kendall_tau)
    assert loop._cache_size() == 1
    lifted = ja.over_samples(build("box", "absolute", k=None, epsilon=1e-3), logits_fn, batch_size=8)(
        xs, np.zeros(3, int), KEY
    )
    np.testing.assert_array_equal(lifted.kendall_tau[0], each[0].kendall_tau)
    assert lifted.guaranteed_top_k is None
    assert lifted.top_k_intersection is None


def test_one_feature():
    found = jit(build("l2", "absolute", k=1))(quadratic(np.eye(1)), jnp.ones(1), 0, KEY)
    assert np.isnan(found.kendall_tau)
    assert float(found.top_k_intersection) == 1


def test_memory_of_an_mnist_sample_is_some_matrices():
    def cheap(x):
        return jnp.stack([jnp.sum(jnp.sin(x) * jnp.roll(x, 1)), 0.0])

    bound = ja.bounds.rank_guarantee(SALIENCY, ja.LInf(0.1), k=100, within_box=True)
    lowered = jax.jit(lambda x: bound(Partial(cheap), x, 0, KEY)).lower(jax.ShapeDtypeStruct((784,), jnp.float32))
    analysis = lowered.compile().memory_analysis()
    assert analysis is not None
    # chunk * d * d floats would be 79 MB.
    assert analysis.temp_size_in_bytes < 12 * 4 * 784**2


@pytest.mark.parametrize(
    ("ball", "options", "error", "message"),
    [
        (0.1, {}, TypeError, r"`ball` must be `jaxattr.L2"),
        (ja.L2(0.1), {"within_box": True}, TypeError, r"`within_box=True` needs .* LInf ball has, got L2. For L2"),
        (ja.L2(0.1), {"values": "pixel"}, ValueError, "`values` must be one of 'absolute', 'signed'; got 'pixel'"),
        (ja.L2(0.1), {"chunk": 0}, ValueError, "`chunk` must be at least 1, got 0"),
        (ja.L2(0.1), {"k": 0}, ValueError, "`k` must be at least 1, got 0"),
        (ja.L2(0.1), {"k": 2.0}, TypeError, "`k` must be an integer of at least 1, got 2.0"),
        (ja.L2(0.1), {"k": (2, True)}, TypeError, "`k` must be an integer of at least 1, got True"),
        (ja.L2(0.1), {"k": ()}, ValueError, r"`k` must be .* a tuple of at least one, or None .* got \(\)"),
    ],
)
def test_options_are_checked_when_the_bound_is_built(ball, options, error, message):
    with pytest.raises(error, match=message):
        ja.bounds.rank_guarantee(SALIENCY, ball, **options)


def test_samples_are_checked_on_call():
    logits_fn, x = quadratic(np.eye(3)), jnp.full(3, 0.5)
    bound = ja.bounds.rank_guarantee(SALIENCY, ja.L2(0.1), k=(2, 4))
    with pytest.raises(ValueError, match="`k` must be at most the 3 features of the input, got 4"):
        bound(logits_fn, x, 0, KEY)
    with pytest.raises(ValueError, match="`x` must lie in the box"):
        bound(logits_fn, x + 1, 0, KEY)
    with pytest.raises(ValueError, match="`label` must be between 0 and 1"):
        ja.bounds.rank_guarantee(SALIENCY, ja.L2(0.1))(logits_fn, x, 2, KEY)
