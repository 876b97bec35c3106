"""Bound the deviation under the label constraints of all classes, which may exclude both signs of a maximizer."""

import dataclasses
from typing import Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
from jax import Array

from jaxattr import _checks
from jaxattr._cost import gradients_of, times, total
from jaxattr._spec import described
from jaxattr.attribution import as_attribution
from jaxattr.balls import L2, Ball, require
from jaxattr.bounds._label_problem import Options, constrained, named
from jaxattr.bounds._result import DeviationBound, require_result
from jaxattr.bounds.label_constraint import LabelRegion, label_region
from jaxattr.bounds.norm_relaxation import norm_relaxation
from jaxattr.bounds.singular_value import singular_value
from jaxattr.jacobian import attribution_jacobian
from jaxattr.method import Calling, Method
from jaxattr.programs.guard import Kinks
from jaxattr.types import AttributionFn, Bound

Algorithm = Literal["products", "dense"]


class LabelConstrainedBound(NamedTuple):
    """A bound with and without the label constraints of all competing classes.

    Attributes:
      bound: over the perturbations of the ball that keep the label, to first order. Where both signs are excluded, its
        ``direction`` is one that keeps the label, shorter than the ball allows if need be, and
        ``euclidean_attained`` belongs to that. Elsewhere it is ``unconstrained``, with the sign that keeps the label.
        It is not ``two_sided``, and not proportional to the radius.
      unconstrained: over the whole ball.
      keeps_plus: whether ``+epsilon * unconstrained.direction`` keeps the label, to first order.
      keeps_minus: the same for ``-epsilon * unconstrained.direction``; false for a base that is not ``two_sided``.
      both_excluded: whether neither does, although x itself has the label: ``unconstrained`` is not attained there.
    """

    bound: DeviationBound
    unconstrained: DeviationBound
    keeps_plus: Array
    keeps_minus: Array
    both_excluded: Array


@described
def label_constrained(
    attribute: AttributionFn,
    ball: Ball,
    *,
    base: Bound | None = None,
    method: Algorithm = "products",
    num_steps: int = 40,
    newton_steps: int = 20,
    competitors: int = 9,
    confidence: float = 0.999,
    chunk: int | None = 32,
    linearize: bool = True,
    kinks: Kinks = "refuse",
) -> Method[LabelConstrainedBound]:
    """Bound the deviation over the perturbations that keep the label against ALL other classes, to first order.

        T_e = max ||J delta||  over  ||delta|| <= epsilon,  <grad f_k - grad f_y, delta> <= f_y - f_k  for all k

    Of a maximizer over the ball and its negative, one half-space excludes at most one, which is why the constraint of
    Wang and Kong 2023 (Section 4.3) does not change their bounds. Two half-spaces can exclude both. The bound is then
    smaller: by the products of half-spaces of :mod:`jaxattr.bounds._half_spaces`, whose multipliers are chosen in the
    span of the normals and of a Krylov space of J. Any choice of multipliers gives a valid bound. The final eigenvalue
    is an upper value for the full operator, not for the subspace.

    Where one sign keeps the label the result is the unconstrained bound, as it is for a sample that is misclassified
    to begin with. The condition is on linearized margins: it does not stop the real label from changing.

    For a Euclidean ball and few half-spaces the relaxation is nearly exact. For an l-infinity ball ``products`` weighs
    all features alike, as Corollary 1 does, which seldom improves on a sharper ``base``; ``dense`` chooses a weight for
    every feature.

    Args:
      attribute: ``(logits_fn, x, label) -> map``.
      ball: an :class:`~jaxattr.L2` or :class:`~jaxattr.LInf`.
      base: bound of the same attribution over the same ball to start from; by default
        :func:`~jaxattr.bounds.singular_value` or :func:`~jaxattr.bounds.norm_relaxation`.
      method: ``products`` with J and its transpose, or ``dense``: J as a matrix, and a decomposition of one of its size
        in every Newton step.
      num_steps: Lanczos steps of the default base, of the Krylov space and of the eigenvalue, each (``products``).
      newton_steps: steps in the choice of the multipliers.
      competitors: half-spaces that are used, those nearest to excluding the base's direction.
      confidence: probability with which the eigenvalue holds (``products``). Its failure probability and that of the
        base add up in the result.
      chunk: backward passes, and columns of J, evaluated at once.
      linearize: see :func:`jaxattr.attribution_jacobian`.
      kinks: what to do with a network that is not twice differentiable; see :func:`jaxattr.attribution_jacobian`. A
        ``base`` has an option of the same name.

    Returns:
      ``bound(logits_fn, x, label, key) -> LabelConstrainedBound``.

    Raises:
      TypeError: if ``ball`` is none, ``attribute`` no attribution or ``base`` no bound; on call, if ``base`` returns
        something else than a :class:`DeviationBound`.
      ValueError: if an option is out of range or ``base`` is over another ball; on call as
        :func:`~jaxattr.bounds.singular_value` and :func:`~jaxattr.bounds.label_region`.

    References:
      Wang and Kong 2023, Section 4.3, for one competitor. Products of constraints: Sturm and Zhang 2003; Burer and
      Anstreicher 2013.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> import jaxattr as ja
      >>> # J = diag(2, 1). Class 1 takes over to the right of 0.05 and class 2 to the left of -0.05.
      >>> logits_fn = lambda x: jnp.stack([x[0] ** 2 + x[1] ** 2 / 2 + 0.5, 10 * x[0], -10 * x[0]])
      >>> bound = ja.bounds.label_constrained(ja.attributions.saliency(), ja.L2(0.1), method="dense")
      >>> result = jax.jit(bound, static_argnums=0)(logits_fn, jnp.zeros(2), 0, jax.random.key(0))
      >>> bool(result.both_excluded), round(float(result.unconstrained.euclidean), 3)
      (True, 0.2)
      >>> round(float(result.bound.euclidean), 3)  # sqrt(4 * 0.05^2 + 0.1^2 - 0.05^2)
      0.132
    """
    attribute = as_attribution(attribute)
    require(ball)
    options = _checked(method, num_steps, newton_steps, competitors, confidence, chunk, linearize, kinks)
    over_ball = _default_base(attribute, ball, options) if base is None else _checks.bound(base, "base")
    _require_same_ball(over_ball, ball)

    def bound(logits_fn, x, label, key):
        x = _checks.sample(x)
        jacobian = attribution_jacobian(
            attribute, logits_fn, x, label, linearize=linearize, kinks=kinks, method="label_constrained"
        )
        unconstrained = require_result(
            Calling(over_ball).call(over_ball, logits_fn, x, label, key), "label_constrained", "base"
        )
        region = label_region(logits_fn, x, label, chunk=chunk)
        plus, minus = _kept_signs(region, unconstrained)
        excluded = jnp.all(region.margins > 0) & ~plus & ~minus
        with jax.default_matmul_precision("highest"):
            cut = constrained(jacobian, region, unconstrained, ball, key, options)
        sign = jnp.where(minus & ~plus, -1, 1).astype(x.dtype)
        kept = dataclasses.replace(
            named(unconstrained),
            direction=sign * unconstrained.direction,
            # The key decides which of both results is returned: the work and the risk of both count.
            confidence=cut.confidence,
            products=cut.products,
        )
        final = jax.tree.map(lambda new, old: jnp.where(excluded, new, old), cut, kept)
        return LabelConstrainedBound(final, unconstrained, plus, minus, excluded)

    def gradients(size):
        own = times(2 * options.products(size, attribute.symmetric), attribute.gradients)
        return total((gradients_of(over_ball, size), own))

    return Method("label_constrained", bound, ball, gradients=gradients)


def _checked(
    method: Algorithm,
    num_steps: int,
    newton_steps: int,
    competitors: int,
    confidence: float,
    chunk: int | None,
    linearize: bool,
    kinks: Kinks,
) -> Options:
    _checks.choice("method", method, get_args(Algorithm))
    for name, value in {"num_steps": num_steps, "newton_steps": newton_steps, "competitors": competitors}.items():
        _checks.positive_int(name, value)
    _checks.probability("confidence", confidence)
    if chunk is not None:
        _checks.positive_int("chunk", chunk)
    return Options(method == "dense", num_steps, newton_steps, competitors, confidence, chunk, linearize, kinks)


def _require_same_ball(base: Bound, ball: Ball) -> None:
    other = getattr(base, "ball", None)
    if other is not None and (type(other), repr(other)) != (type(ball), repr(ball)):
        raise ValueError(f"`base` must be a bound over the same ball {ball!r}, got one over {other!r}.")


def _kept_signs(region: LabelRegion, base: DeviationBound) -> tuple[Array, Array]:
    """Return whether the base's perturbation keeps the label to first order, and whether its opposite does."""
    delta = base.epsilon * base.direction
    plus = region.keeps(delta)
    # A bound within the box does not allow the opposite direction.
    return plus, region.keeps(-delta) if base.two_sided else jnp.zeros_like(plus)


def _default_base(attribute: AttributionFn, ball: Ball, options: Options) -> Bound:
    constructor = singular_value if isinstance(ball, L2) else norm_relaxation
    return constructor(
        attribute,
        ball,
        method="dense" if options.dense else "lanczos",
        num_steps=options.num_steps,
        confidence=options.confidence,
        chunk=options.chunk,
        linearize=options.linearize,
        kinks=options.kinks,
    )
