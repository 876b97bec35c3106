"""The loop of gradient attacks, with rules of attacks that this package does not have, against loops in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxattr as ja
from jaxattr.attacks import _ascent
from jaxattr.attacks._result import Domain, finish

TARGET = np.array([0.9, 0.2, 0.6], np.float32)
START = np.array([0.1, 0.5, 0.4], np.float32)
W = np.array([[2.0, -1.0, 0.5], [0.0, 1.0, -0.5]], np.float32)
BOX = ja.LInf(1.0)


def evaluate(z):
    """The objective ``-||z - TARGET||^2`` and its gradient."""
    return -jnp.sum((z - TARGET) ** 2), -2 * (z - TARGET)


def momentum(length, share):
    """The move of AutoPGD in small: a part of the last move, and a step that is halved where the score has fallen."""

    def update(memory, current, score, gradient):
        previous, before, length = memory
        length = jnp.where(score < before, length / 2, length)
        following = jnp.clip(current + length * gradient + share * (current - previous), 0, 1)
        return following, (current, score, length)

    return _ascent.Move(lambda start: (start, jnp.float32(-jnp.inf), jnp.float32(length)), update)


def momentum_by_hand(num_steps, length, share):
    current = previous = START.astype(float)
    before, iterates, scores = -np.inf, [], []
    for _ in range(num_steps):
        score = -np.sum((current - TARGET) ** 2)
        iterates.append(current)
        scores.append(score)
        length, before = (length / 2 if score < before else length), score
        following = np.clip(current - 2 * length * (current - TARGET) + share * (current - previous), 0, 1)
        current, previous = following, current
    return iterates, scores, current


@pytest.mark.parametrize("length", [0.2, 0.9, 1.5])
def test_a_move_with_a_memory_walks_as_by_hand(length):
    move, keep = momentum(length, 0.4), _ascent.best()
    state = jax.jit(lambda x: _ascent.run(_ascent.init(x, move, keep), evaluate, move, keep, 9))(START)
    iterates, scores, last = momentum_by_hand(9, length, 0.4)
    np.testing.assert_allclose(state.current, last, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(state.chosen, iterates[np.argmax(scores)], rtol=1e-4, atol=1e-5)
    assert float(state.score) == pytest.approx(max(scores), rel=1e-3, abs=1e-6)
    assert not bool(state.stalled)


def test_a_move_that_is_not_made_is_not_remembered():
    """The loop judges x, goes to ``then``, and from there on is the one that starts at ``then``."""
    move, keep = momentum(0.9, 0.4), _ascent.best()
    x = jnp.asarray([0.5, 0.5, 0.5], jnp.float32)
    both = _ascent.run(_ascent.init(x, move, keep), evaluate, move, keep, 2, then=jnp.asarray(START))
    previous, before, length = both.moves
    np.testing.assert_array_equal(previous, START)
    assert float(before) == pytest.approx(-np.sum((START - TARGET) ** 2), rel=1e-6)
    assert float(length) == np.float32(0.9)
    # x has the better score.
    np.testing.assert_array_equal(both.chosen, x)


def nearest_label_lost(logits_fn, x):
    """The keep of attacks for the smallest perturbation."""
    label = jnp.argmax(logits_fn(x))

    def update(nearest, state, _, following):
        distance = jnp.linalg.norm(state.current - x)
        take = (jnp.argmax(logits_fn(state.current)) != label) & (distance < nearest)
        # Past the boundary the search goes back.
        back = jnp.where(jnp.argmax(logits_fn(state.current)) != label, (state.current + x) / 2, following)
        return take, back, jnp.where(take, distance, nearest)

    return _ascent.Keeper(lambda _: jnp.float32(jnp.inf), update)


def test_a_keep_of_another_kind_finds_the_nearest_input_with_another_label():
    """Of a linear network, whose boundary is a plane at a distance that is known; there is a box and no ball."""
    logits_fn, x = (lambda z: W @ z), jnp.asarray([0.6, 0.3, 0.5], jnp.float32)
    normal = W[1] - W[0]
    true = float((W[0] - W[1]) @ x / np.linalg.norm(normal))
    assert true > 0
    domain = Domain(BOX.clip, lambda z: jnp.all((z >= 0) & (z <= 1)), lambda z: jnp.linalg.norm(z - x))
    move = _ascent.steepest(domain, ja.L2(1.0), jnp.float32(0.02))
    keep = nearest_label_lost(logits_fn, x)

    @jax.jit
    def search(x):
        state = _ascent.run(_ascent.init(x, move, keep), lambda z: (normal @ z, jnp.asarray(normal)), move, keep, 100)
        return finish(logits_fn, domain, x, state.chosen, lambda z: -domain.distance(z), stalled=state.stalled)

    result = search(x)
    assert not bool(result.label_kept)
    assert int(result.label) == 1
    assert true <= float(result.distance) <= true + 0.021
    assert float(result.objective) == -float(result.distance)


def test_where_nothing_is_taken_the_fallback_is_returned():
    move = _ascent.steepest(Domain.of(BOX, jnp.asarray(START)), BOX, jnp.float32(0.1))
    lost = lambda z: (jnp.float32(jnp.nan), jnp.full_like(z, jnp.nan))  # noqa: E731
    for keep in (_ascent.best(), _ascent.last_finite()):
        start = _ascent.init(jnp.asarray(START), move, keep, fallback=jnp.zeros(3))
        state = _ascent.run(start, lost, move, keep, 3)
        np.testing.assert_array_equal(state.chosen, 0)
        np.testing.assert_array_equal(state.current, START)
        assert bool(state.stalled)
