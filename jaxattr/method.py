"""Bundle a method with its name and its threat model, the form of all bounds and attacks."""

from collections.abc import Callable
from typing import Any, Generic, TypeVar

from jax import Array

from jaxattr import _checks, _given, _values
from jaxattr.balls import Ball
from jaxattr.types import LogitsFn

R = TypeVar("R")


class Method(_values.Value, Generic[R]):
    """A method ``method(logits_fn, x, label, key) -> result`` (bound or attack) together with its threat model.

    Callers that run a method over a data set use ``ball`` to refuse inputs outside of its box before anything is
    compiled: inside of compiled code they cannot be refused any more.

    Args:
      name: of the method, for tables and messages.
      function: ``(logits_fn, x, label, key) -> result``.
      ball: the threat model, or ``None`` where there is none.
      needs_key: whether the result depends on the key; a method that does not may be called without one.
      gradients: ``size -> number``, see :meth:`gradients`; ``None`` where the cost is not known.

    Attributes:
      name: as given.
      ball: as given.
      needs_key: as given.
      spec: how it was built, where a constructor of this library has built it.
    """

    def __init__(
        self,
        name: str,
        function: Callable[..., R],
        ball: Ball | None = None,
        *,
        needs_key: bool = True,
        gradients: Callable[[int], int | None] | None = None,
    ):
        self.name, self._function, self.ball, self.needs_key = name, function, ball, needs_key
        self._gradients = gradients

    def __repr__(self) -> str:
        if self.spec is not None:
            return str(self.spec)
        return f"<jaxattr method {self.name}{'' if self.ball is None else f' over {self.ball!r}'}>"

    def gradients(self, size: int) -> int | None:
        """Return the number of gradients of the network that one sample costs, ``None`` where it is not known.

        It counts what the iterations take, for comparisons of methods: gradient steps of an attack, products with a
        Jacobian (two gradients of the attribution each) of a bound, which takes so many at most. A few evaluations at
        the beginning and at the end are not counted.

        Args:
          size: number of features of the input.
        """
        return None if self._gradients is None else self._gradients(size)

    def __call__(self, logits_fn: LogitsFn, x: Array, label: Any, key: Array | None = None) -> R:
        """Compute the result for one sample.

        Raises:
          TypeError: if the method needs a key and none is given.
          ValueError: if x lies outside of the ball's box.
        """
        if self.needs_key and key is None:
            raise TypeError(_no_key(self.name))
        if key is not None:
            _checks.key(key)
        if self.ball is not None:
            self.ball.check_input(_checks.sample(x))
        return self._function(logits_fn, x, label, key)


class Calling:
    """The way to call a function of ``(logits_fn, x, label)`` with a key, the same for every kind of method.

    Attributions ignore a key, bounds and attacks take one, and the signature of a plain function decides: a fourth
    positional argument, or one of the name ``key``, gets it.

    Args:
      method: an attribution, a bound, an attack, or a plain function.

    Attributes:
      name: for messages.
      required: whether it cannot be called without a key.
    """

    def __init__(self, method: Callable[..., Any]):
        self.name = getattr(method, "name", None) or getattr(method, "__name__", type(method).__name__)
        self._keyword = False
        if _given.is_attribution(method):
            self._takes, self.required = False, False
        elif isinstance(method, Method):
            self._takes, self.required = True, method.needs_key
        else:
            self._takes, with_three = _given.takes(4, method), _given.takes(3, method)
            if not self._takes:
                self._keyword = self._takes = _given.takes(4, method, key=None)
            self.required = self._takes and not with_three

    def require_key(self, key: Array | None) -> Array | None:
        """Return the key that the method gets, ``None`` where it takes none.

        Raises:
          TypeError: if the method needs a key and there is none, or it is no random key.
        """
        if key is None and self.required:
            raise TypeError(_no_key(self.name))
        if key is not None:
            _checks.key(key)
        return key if self._takes else None

    def call(self, method: Callable[..., R], logits_fn: LogitsFn, x: Array, label: Any, key: Array | None) -> R:
        """Call ``method``, that of this object, with the key from :meth:`require_key` (or one of the caller's own)."""
        if key is None:
            return method(logits_fn, x, label)
        return method(logits_fn, x, label, key=key) if self._keyword else method(logits_fn, x, label, key)


def _no_key(name: str) -> str:
    return (
        f"`{name}` draws random numbers and needs a key, but none was given: call"
        " `method(logits_fn, x, label, jax.random.key(0))`, or `over_samples(method, logits_fn)(xs, labels, key)`."
    )
