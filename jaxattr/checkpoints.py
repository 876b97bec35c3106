"""Store the states of a training run with Orbax, which no other module names."""

import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import jax

from jaxattr import _files

_MARKER = ".jaxattr-checkpoints"


class Checkpoints:
    """A store of the training states of one run, in a directory of their own.

    A state is written under a temporary name first, so that a run killed while it saves leaves the
    states before it as they were. Every process of a distributed run has to make the same calls.

    Args:
      directory: made if absent.
      max_to_keep: how many of the newest states stay.

    Raises:
      FileExistsError: if the directory holds anything else than such states; it is named, and
        nothing is touched.

    Example:
      >>> import tempfile, jax.numpy as jnp
      >>> with Checkpoints(tempfile.mkdtemp(), max_to_keep=1) as checkpoints:
      ...     checkpoints.save(3, {"w": jnp.ones(2)}, meta={"note": "first"})
      ...     state, meta, step = checkpoints.restore({"w": jnp.zeros(2)})
      >>> state["w"].tolist(), meta, step
      ([1.0, 1.0], {'note': 'first'}, 3)
    """

    def __init__(self, directory: str | os.PathLike, max_to_keep: int = 2):
        if max_to_keep < 1:
            raise ValueError(f"`max_to_keep` is {max_to_keep}; keep at least one checkpoint.")
        self.directory = Path(directory).absolute()
        _take(self.directory)
        ocp = _orbax()
        self._manager = ocp.CheckpointManager(
            self.directory,
            options=ocp.CheckpointManagerOptions(
                max_to_keep=max_to_keep,
                # Save synchronously, since states are small: a save that has returned is on disk, whatever happens
                # next.
                enable_async_checkpointing=False,
                cleanup_tmp_directories=True,
            ),
        )

    def save(self, step: int, state: Any, meta: Mapping[str, Any] | None = None) -> None:
        """Write a pytree of arrays (typed random keys too) and a dictionary that JSON can hold.

        Raises:
          FileExistsError: if there is a checkpoint of this step or of a later one.
        """
        latest = self.latest_step()
        if latest is not None and step <= latest:
            raise FileExistsError(
                f"{self.path(latest)} is already there, and checkpoints are not overwritten; "
                f"restore it, or write step {step} to another directory."
            )
        ocp = _orbax()
        self._manager.save(
            step,
            args=ocp.args.Composite(
                state=ocp.args.StandardSave(state),
                meta=ocp.args.JsonSave(dict(meta or {})),
            ),
        )

    def latest_step(self) -> int | None:
        """Return the step of the newest complete checkpoint, None where there is none."""
        return self._manager.latest_step()

    def path(self, step: int) -> Path:
        """Return the folder of a checkpoint."""
        return self.directory / str(step)

    def restore(self, like: Any) -> tuple[Any, dict[str, Any], int]:
        """Read the newest checkpoint.

        Args:
          like: a pytree with the structure, shapes, dtypes and shardings of the state; its values
            are not used.

        Returns:
          The state, the dictionary that was saved with it, and its step.

        Raises:
          FileNotFoundError: if there is no checkpoint.
          ValueError: if the newest one is damaged or of another shape than ``like``; it is named.
        """
        ocp = _orbax()
        target = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
        parts, step = self._restore(state=ocp.args.StandardRestore(target), meta=ocp.args.JsonRestore())
        return parts["state"], parts["meta"], step

    def meta(self) -> tuple[dict[str, Any], int]:
        """Read the dictionary that was saved with the newest state, and its step, without reading the state.

        Raises:
          FileNotFoundError: if there is no checkpoint.
          ValueError: if the newest one is damaged; it is named.
        """
        parts, step = self._restore(meta=_orbax().args.JsonRestore())
        return parts["meta"], step

    def _restore(self, **parts: Any) -> tuple[Any, int]:
        step = self.latest_step()
        if step is None:
            raise FileNotFoundError(f"there is no checkpoint in {self.directory}.")
        try:
            return self._manager.restore(step, args=_orbax().args.Composite(**parts)), step
        # Damage shows as nearly any type of exception, from four libraries.
        except Exception as error:
            earlier = [other for other in self._manager.all_steps() if other < step]
            instead = f"step {max(earlier)}" if earlier else "the beginning"
            raise ValueError(
                f"the checkpoint {self.path(step)} cannot be read: it is damaged, or was written "
                f"for another model or optimizer. Remove it to continue from {instead}, or choose "
                "another directory. "
                f"({type(error).__name__}: {error})"
            ) from error

    def close(self) -> None:
        """Release the directory; also done at the end of a ``with`` block."""
        self._manager.close()

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def _orbax() -> Any:
    """Import Orbax, which is slow to import, and which weights in a file do not need."""
    try:
        import orbax.checkpoint as ocp  # noqa: PLC0415
    except ImportError as error:
        raise ImportError("checkpoints of a training need Orbax: pip install orbax-checkpoint") from error
    return ocp


def _take(directory: Path) -> None:
    """Mark a directory as one of checkpoints; refuse it if it holds something else."""
    foreign = [name for name in _files.foreign_names(directory, _MARKER) if not _is_checkpoint(directory / name)]
    if foreign:
        raise FileExistsError(
            f"{directory} is to hold checkpoints and nothing else, but it has {', '.join(foreign)}; choose another"
            " directory, or move these away."
        )
    directory.mkdir(parents=True, exist_ok=True)
    # An empty file is there at once, or not at all: several processes may make it at the same time.
    (directory / _MARKER).touch()


def _is_checkpoint(path: Path) -> bool:
    """Return whether a folder is a checkpoint, complete or left by a process that was killed while it saved.

    This recognizes the directories of runs that were begun before directories had a marker.
    """
    step, _, rest = path.name.partition(".")
    if not (step.isdecimal() and path.is_dir()):
        return False
    # Orbax adds to the number until a checkpoint is complete; it then has the two items that `save` names.
    return bool(rest) or {"state", "meta"} <= {part.name for part in path.iterdir()}
