"""Save the states of a run, continue from the newest one, and stop at SIGTERM."""

import logging
import os
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax

from jaxattr.preemption import Preemption
from jaxattr.training import _identity
from jaxattr.training._trainer import TrainState

if TYPE_CHECKING:
    from jaxattr.checkpoints import Checkpoints

logger = logging.getLogger("jaxattr.training")


class Interrupted(SystemExit):
    """An exit of :func:`fit` after SIGTERM, with its state saved.

    Uncaught, it ends the process without a traceback and with status 143, as a shell reports a
    process that SIGTERM ended: a script does not go on with half-trained weights.

    Attributes:
      step: updates made.
      path: the checkpoint.
    """

    def __init__(self, step: int, path: os.PathLike):
        super().__init__(143)
        self.step, self.path = step, path


class SavedRun:
    """The checkpoints of a run, and the signal to stop; without a directory there is neither.

    A context: in it, SIGTERM is noticed.

    Args:
      directory: of the checkpoints, or None.

    Attributes:
      active: whether there is a directory.
    """

    def __init__(self, directory: str | os.PathLike | None):
        self._directory, self.active = directory, directory is not None
        self._checkpoints: Checkpoints | None = None
        self._preemption: Preemption | None = None
        self._identity: Mapping[str, Any] = {}
        self._open = ExitStack()

    def __enter__(self) -> "SavedRun":
        if self._directory is not None:
            from jaxattr.checkpoints import Checkpoints  # noqa: PLC0415  (Orbax is slow to import)

            self._checkpoints = self._open.enter_context(Checkpoints(self._directory))
            self._preemption = self._open.enter_context(Preemption())
        return self

    def __exit__(self, *error: object) -> None:
        self._open.close()

    def resume(self, state: TrainState, identity: Mapping[str, Any], total: int) -> tuple[TrainState, dict[str, Any]]:
        """Return the newest state, and what :meth:`save` kept beside it; ``state`` and nothing where there is none.

        Args:
          state: where training starts.
          identity: the identity of this run, from :func:`_identity.of_run`.
          total: steps of this run.

        Raises:
          ValueError: if the checkpoint is that of another run, or of a longer one.
        """
        self._identity = identity
        if self._checkpoints is None or self._checkpoints.latest_step() is None:
            return state, {}
        # Check before the state is read: that of another optimizer has another shape.
        meta, step = self._checkpoints.meta()
        _identity.require_same(meta["identity"], identity, self._checkpoints.path(step))
        if step > total:
            raise ValueError(
                f"{self._checkpoints.directory} holds a run of {step} steps already, more than the {total} "
                "asked for; ask for more, or choose another directory."
            )
        kept, meta, _ = self._checkpoints.restore(state.to_save())
        return state._replace(**kept), meta

    def save(self, state: TrainState, **meta: Any) -> None:
        """Save a state, and values that JSON can hold."""
        if self._checkpoints is not None:
            self._checkpoints.save(int(state.step), state.to_save(), {"identity": self._identity, **meta})

    def newest(self) -> Path | None:
        """Return the folder of the newest checkpoint, None where there is none."""
        step = None if self._checkpoints is None else self._checkpoints.latest_step()
        return None if self._checkpoints is None or step is None else self._checkpoints.path(step)

    def stops_after(self, step: int) -> bool:
        """Return whether SIGTERM asks to save and stop after this step; every process calls it once a step."""
        return self._preemption is not None and self._preemption.after(step)

    def leave_if_stopped(self) -> None:
        """Call the handler of SIGTERM that was there before, if the signal came, and raise :class:`Interrupted`."""
        if self._checkpoints is None or self._preemption is None or not self._preemption.received:
            return
        step = self._checkpoints.latest_step() or 0
        path = self._checkpoints.path(step)
        if jax.process_index() == 0:
            logger.warning("SIGTERM: stopped after step %d; the same call continues from %s", step, path)
        self._preemption.pass_on()
        raise Interrupted(step, path)
