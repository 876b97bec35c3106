"""A method with its name and its threat model: what bounds and attacks are built as."""

from collections.abc import Callable
from typing import Any, Generic, TypeVar

from jax import Array

from jaxattr import _checks
from jaxattr.balls import Ball
from jaxattr.types import LogitsFn

R = TypeVar("R")


class Method(Generic[R]):
    """A bound or an attack, ``method(logits_fn, x, label, key) -> result``, that knows its name and its ball.

    Whoever runs a method over a data set reads ``ball`` and refuses inputs outside of its box before anything is
    compiled: inside of compiled code they cannot be refused any more.

    Args:
      name: of the method, for tables and messages.
      function: ``(logits_fn, x, label, key) -> result``.
      ball: the threat model, or ``None`` where there is none.
      needs_key: whether the result depends on the key; a method that does not may be called without one.

    Attributes:
      name: as given.
      ball: as given.
      needs_key: as given.
    """

    def __init__(self, name: str, function: Callable[..., R], ball: Ball | None = None, *, needs_key: bool = True):
        self.name, self._function, self.ball, self.needs_key = name, function, ball, needs_key

    def __repr__(self) -> str:
        return f"<jaxattr method {self.name}{'' if self.ball is None else f' over {self.ball!r}'}>"

    def __call__(self, logits_fn: LogitsFn, x: Array, label: Any, key: Array | None = None) -> R:
        """The result for one sample.

        Raises:
          TypeError: if the method needs a key and none is given.
          ValueError: if x lies outside of the ball's box.
        """
        if self.needs_key and key is None:
            raise TypeError(
                f"`{self.name}` draws random numbers and needs a key:"
                f" `{self.name}(...)(logits_fn, x, label, jax.random.key(0))`; no key was given."
            )
        if self.ball is not None:
            self.ball.check_input(_checks.sample(x))
        return self._function(logits_fn, x, label, key)
