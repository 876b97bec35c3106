"""Guarantee ranks of an attribution over the ball, in the linear model: the top-k set, and Kendall's tau from below."""

import functools
from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float

from jaxattr import _checks
from jaxattr._chunking import map_over
from jaxattr._cost import times
from jaxattr._spec import described
from jaxattr.attribution import as_attribution
from jaxattr.balls import L2, Ball, LInf, require
from jaxattr.jacobian import attribution_jacobian
from jaxattr.method import Method
from jaxattr.metrics import top_k_indices
from jaxattr.programs.guard import Kinks
from jaxattr.types import AttributionFn

Values = Literal["absolute", "signed"]

# Allow each value of the attribution an error of this many units in the last place, beside the error of its sums.
_ULPS = 16


class RankGuarantee(NamedTuple):
    """Ranks that no perturbation in the ball changes, in the linear model.

    Where input, attribution, Jacobian or radius are not finite, numbers are NaN and no feature is guaranteed.

    Attributes:
      kendall_tau: lower bound of Kendall's tau-b between the map before and after, wherever the latter has a tau-b at
        all (it is not constant); NaN where the map before is constant.
      fixed_pairs: share of the pairs of features with different values whose order cannot change; NaN without such
        pairs.
      guaranteed_top_k: shaped like x, with one leading axis for several k: which features are in the top-k set and
        cannot leave it. ``None`` without k.
      top_k_intersection: lower bound of ``|top_k(before) & top_k(after)| / k``, one per k. ``None`` without k.
      kinks: operations of the network that are not twice differentiable, 0 unless they were allowed: with any, the
        linear model says nothing of the network, and neither does the guarantee.
    """

    kendall_tau: Array
    fixed_pairs: Array
    guaranteed_top_k: Array | None
    top_k_intersection: Array | None
    kinks: Array


@described
def rank_guarantee(
    attribute: AttributionFn,
    ball: Ball,
    *,
    k: int | tuple[int, ...] | None = None,
    values: Values = "absolute",
    within_box: bool = False,
    chunk: int | None = 32,
    linearize: bool = True,
    kinks: Kinks = "refuse",
) -> Method[RankGuarantee]:
    """Guarantee ranks of an attribution: feature i stays above j if ``g_i - g_j > epsilon * ||J_i - J_j||_dual``.

    ``J_i`` are rows of the Jacobian and the dual norm is ``||.||_2`` for L2, ``||.||_1`` for LInf; a perturbation of
    the ball attains it, so that the test of a pair is exact in the linear model ``g(x + delta) = g(x) + J delta``. For
    absolute values, with ``s = sign(g)``, exactly if ``|g_i| -+ |g_j| > epsilon * ||s_i J_i -+ s_j J_j||`` for both
    signs: j has to stay below whichever sign it takes, and then i keeps its own. Without an attack it follows for the

    - top-k set: a feature stays while fewer than k others may come before it. If m members leave, m outsiders replace
      them, each of which comes before each of those. So the intersection is at least ``k - m`` for the largest m for
      which m or more members may fall behind m or more outsiders each, and as many outsiders pass as many members;
    - tau-b: of ``n0`` pairs, a have different values, and G of these are fixed. At worst all others are reversed,
      ``L = 2 G - a``, and tau-b is at least ``L / sqrt(a n0)`` if ``L >= 0``, and ``L / a`` otherwise.

    The maps compared are those of the library's metrics, features by ``abs(g)`` (or g, with ``signed``), with ties in
    the top-k set resolved as in :func:`jaxattr.metrics.top_k_indices`. The pixel map of an image with one channel is
    ``abs(g)`` up to a positive factor, so that its ranks are these; nothing is said about pixel maps of several
    channels. Values that are equal, such as the zeros of integrated gradients at black pixels, fix nothing unless
    neither feature can move at all.

    J is formed densely (d products), and all pairs of rows are compared: d^3 operations, memory of some d x d arrays.
    Sums are allowed their rounding, inputs that of ``x + delta``: float32 guarantees a little less than float64.

    Args:
      attribute: ``(logits_fn, x, label) -> map``.
      ball: :class:`~jaxattr.L2` or :class:`~jaxattr.LInf`.
      k: size of the top set, or a tuple of sizes; ``None`` for tau alone.
      values: ``absolute`` to rank absolute values, as the metrics do, or ``signed``.
      within_box: use that ``x + delta`` is a valid input (:meth:`jaxattr.balls.Ball.interval`), for LInf: guarantees
        what is guaranteed without, and more where x is near the limits of the box.
      chunk: columns of J, and then rows compared, at once.
      linearize: see :func:`jaxattr.attribution_jacobian`.
      kinks: what to do with a network that is not twice differentiable; see :func:`jaxattr.attribution_jacobian`.

    Returns:
      ``bound(logits_fn, x, label) -> RankGuarantee``. Nothing is random: a key may be given, and is not used.

    Raises:
      TypeError: if the ball or the attribution is none, ``within_box`` is asked of an L2 ball, or a k is no integer.
      ValueError: if an option is out of range; on call, if a k exceeds the number of features, x lies outside of the
        ball's box, the network has kinks, or the label or a shape does not fit.

    References:
      Kendall 1945 (tau-b); Ghorbani et al. 2019 (top-k intersection).

    Example:
      >>> import jax.numpy as jnp
      >>> import jaxattr as ja
      >>> b = jnp.array([1.0, 2.0, 4.0])
      >>> logits_fn = lambda x: jnp.stack([b @ x + x @ x / 2, 0.0])  # g = b + x, J = 1: pairs move by 2 epsilon
      >>> bound = ja.bounds.rank_guarantee(ja.attributions.saliency(), ja.LInf(0.6, box=None), k=1)
      >>> result = bound(logits_fn, jnp.zeros(3), 0)
      >>> result.guaranteed_top_k.tolist()
      [False, False, True]
      >>> round(float(result.kendall_tau), 3)  # one pair of three may be reversed
      0.333
    """
    attribute = as_attribution(attribute)
    _checks.choice("values", values, get_args(Values))
    if not isinstance(require(ball), LInf) and within_box:
        raise TypeError(
            f"`within_box=True` needs the limits of every feature, which an LInf ball has, got {type(ball).__name__}."
            f" For {type(ball).__name__}: `within_box=False`."
        )
    sizes = _top_sizes(k)
    if chunk is not None:
        _checks.positive_int("chunk", chunk)

    def bound(logits_fn, x, label, _):
        x = _checks.sample(x)
        for size in sizes:
            if size > x.size:
                raise ValueError(f"`k` must be at most the {x.size} features of the input, got {size}.")
        jacobian = attribution_jacobian(
            attribute, logits_fn, x, label, linearize=linearize, kinks=kinks, method="rank_guarantee"
        )
        dtype = jnp.promote_types(jacobian.value.dtype, x.dtype)
        value, dense = jacobian.value.ravel().astype(dtype), jacobian.dense(chunk).astype(dtype)
        sound = jnp.isfinite(x).all() & jnp.isfinite(value).all() & jnp.isfinite(dense).all()
        sound &= jnp.asarray(ball.epsilon, x.dtype) >= 0
        if values == "absolute":
            # After a flip of the negative signs, absolute values equal values, as long as i keeps its sign.
            signs = jnp.where(value < 0, -1, 1).astype(value.dtype)
            value, dense = signs * value, signs[:, None] * dense
        fixed, frozen = _fixed_pairs(ball, x, value, dense, values, within_box, chunk)
        tau, share = _kendall_tau(value, fixed, frozen)
        masks, shares = [], []
        for size in sizes:
            mask, intersection = _top_k(value, fixed | frozen, size)
            masks.append((mask & sound).reshape(x.shape))
            shares.append(jnp.where(sound, intersection, jnp.nan).astype(x.dtype))
        several = isinstance(k, tuple)
        return RankGuarantee(
            kendall_tau=jnp.where(sound, tau, jnp.nan).astype(x.dtype),
            fixed_pairs=jnp.where(sound, share, jnp.nan).astype(x.dtype),
            guaranteed_top_k=jnp.stack(masks) if several else masks[0] if masks else None,
            top_k_intersection=jnp.stack(shares) if several else shares[0] if shares else None,
            kinks=jnp.asarray(jacobian.kinks, jnp.int32),
        )

    def gradients(size):
        return times(2 * size, attribute.gradients)

    return Method("rank_guarantee", bound, ball, needs_key=False, gradients=gradients)


def _top_sizes(k: Any) -> tuple[int, ...]:
    """Return the sizes of the top sets as a tuple, validated."""
    if k is None:
        return ()
    if isinstance(k, tuple):
        if not k:
            raise ValueError("`k` must be an integer, a tuple of at least one, or None for no top-k set; got ().")
        return tuple(_checks.positive_int("k", each) for each in k)
    return (_checks.positive_int("k", k),)


def _sums_over_features(
    rows: Float[Array, "d d"], limits: Array, signs: tuple[int, ...], euclidean: bool, chunk: int | None
) -> Float[Array, "d s d"]:
    """Return ``out[i, s, j] = sum_k`` of squares (L2), or of the largest decrease by one coordinate (LInf).

    With ``v = rows[i] - s * rows[j]``, coordinate by coordinate: a Gram matrix would be quicker, but cancels where rows
    are nearly equal, which is where guarantees are. Features are a loop, since XLA would store all ``chunk * d * d``
    differences that it is asked to sum; this holds ``chunk * d`` sums, and was ten times as quick on CPUs.
    """
    turned = jnp.asarray(signs, rows.dtype)[:, None]

    def of_row(row):
        def step(sums, at):
            entry, column, (lower, upper) = at
            v = entry - turned * column
            return sums + (v * v if euclidean else jnp.maximum(-v * lower, -v * upper)), None

        zeros = jnp.zeros((len(signs), len(rows)), rows.dtype)
        return jax.lax.scan(step, zeros, (row, rows.T, limits))[0]

    return map_over(of_row, rows, chunk)


@functools.partial(jax.jit, static_argnames=("values", "within_box", "chunk"))
def _fixed_pairs(
    ball: Ball,
    x: Array,
    value: Array,
    dense: Array,
    values: str,
    within_box: bool,
    chunk: int | None,
) -> tuple[Bool[Array, "d d"], Bool[Array, "d d"]]:
    """Return ``fixed[i, j]`` (i stays above j, however x moves) and ``frozen[i, j]`` (i < j, equal, neither moves)."""
    size, euclidean, limit = value.size, isinstance(ball, L2), jnp.finfo(x.dtype)
    epsilon = jnp.asarray(ball.epsilon, x.dtype)
    # Allow for the rounding of x + delta: an attack's result is up to a unit in the last place outside of the ball.
    radius = jnp.where(epsilon > 0, epsilon + limit.eps * (ball.norm(x) + epsilon), 0)
    if within_box:
        # Divide by epsilon, as the Jacobian below is divided by its largest entry: tiny numbers do not underflow.
        # Widening all limits along with the radius is too much for those that the box sets, never too little.
        limits = jnp.stack([end.ravel() for end in ball.interval(x)], axis=1) / jnp.where(epsilon > 0, epsilon, 1)
        limits = jnp.clip(limits, -1, 1)
    else:
        limits = jnp.broadcast_to(jnp.array([-1, 1], x.dtype), (size, 2))
    moves = jnp.any(dense != 0, axis=1) & (radius > 0)
    largest = jnp.max(jnp.abs(dense))
    scale = jnp.where((largest > 0) & jnp.isfinite(largest), largest, 1)
    rows, reach = dense / scale, jnp.maximum(radius * scale, limit.tiny)

    # Numbers below the smallest normal one may be flushed to zero: at most d terms are.
    lost = size * limit.tiny
    sums = _sums_over_features(rows, limits, (1, -1) if values == "absolute" else (1,), euclidean, chunk) + lost
    drops = reach * (jnp.sqrt(sums) if euclidean else sums)
    norms = jnp.sum(rows * rows if euclidean else jnp.abs(rows), axis=1) + lost
    spread = reach * (jnp.sqrt(norms) if euclidean else norms)
    # A sum of d terms has an error of at most d/2 units in the last place of the sum of their sizes, in any order; J
    # takes as much again, since its entries are such sums. drops <= spread_i + spread_j. The last term allows for g.
    errors = ((size + _ULPS) * spread + _ULPS * jnp.abs(value)) * limit.eps
    slack = errors[:, None] + errors
    above, below = value[:, None], value[None, :]
    safe = above - below > drops[:, 0] + slack
    if values == "absolute":
        safe &= above + below > drops[:, 1] + slack
    # Features that do not move are rounded alike and need no slack.
    still = ~moves[:, None] & ~moves
    earlier = jnp.arange(size)[:, None] < jnp.arange(size)
    return (above > below) & (still | safe), (above == below) & still & earlier


@jax.jit
def _kendall_tau(
    value: Array, fixed: Bool[Array, "d d"], frozen: Bool[Array, "d d"]
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Return the lower bound of tau-b, and the share of fixed pairs.

    Of the a pairs with different values before, G are fixed, and of the other a - G let t be tied after; of the n0 - a
    tied ones let u stay tied. The numerator is at least ``G - (a - G - t) = L + t``, and the denominator is
    ``sqrt(a (n0 - t - u))``. Where ``L + t >= 0`` the quotient is smallest for the least u, which is the number of
    frozen pairs, and grows with t. Otherwise it is smallest for the largest u, n0 - a; ``(L + t) / sqrt(a (a - t))``
    grows with t as well: its derivative has the sign of ``2 a + L - t``, and ``t <= a - G = (a - L) / 2`` and
    ``L >= -a`` leave that at least ``3 (a + L) / 2 >= 0``. So t = 0 is the worst in both cases.
    """
    pairs, dtype = value.size * (value.size - 1) // 2, value.dtype

    def count(mask):
        return jnp.sum(mask, dtype=jnp.int32)

    kept, untied, ties = count(fixed), count(value[:, None] > value), count(frozen)
    # This order keeps all counts below 2^31. A constant map divides 0 by 0 and gives the NaN that the result promises.
    worst = (kept - (untied - kept)).astype(dtype) / untied
    tau = worst * jnp.where(worst >= 0, jnp.sqrt(untied.astype(dtype) / (pairs - ties)), 1)
    return tau, kept.astype(dtype) / untied


@functools.partial(jax.jit, static_argnames="k")
def _top_k(value: Array, stays: Bool[Array, "d d"], k: int) -> tuple[Bool[Array, " d"], Float[Array, ""]]:
    """Return the members fixed in the top-k set, and the least share that stays; ``stays[i, j]``: i before j."""
    member = jnp.zeros(value.size, bool).at[top_k_indices(value, k)].set(True)
    rivals = value.size - 1 - jnp.sum(stays, axis=1, dtype=jnp.int32)
    safe = member & (rivals < k)
    # Mark which unsafe member may be replaced by which outsider; a safe member is replaced by none.
    contest = (member & ~safe)[:, None] & ~member & ~stays
    losses, gains = jnp.sum(contest, axis=1, dtype=jnp.int32), jnp.sum(contest, axis=0, dtype=jnp.int32)
    m = jnp.arange(1, k + 1)
    # An exchange of m members implies exchanges of fewer, so that the count of possible m is the largest m.
    exchanges = [jnp.sum(counts >= m[:, None], axis=1) >= m for counts in (losses, gains)]
    return safe, 1 - jnp.sum(exchanges[0] & exchanges[1]) / k
