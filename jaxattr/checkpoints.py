"""Store training states and weights on disk, and notice preemption; no other module names Orbax."""

import os
import signal
import threading
import zipfile
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import jax
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from jax.experimental import multihost_utils

from jaxattr._files import write_atomic

_PARTS = {"state", "meta", "_CHECKPOINT_METADATA", "commit_success.txt"}
_TEMPORARY = ".orbax-checkpoint-tmp"


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
        foreign = _foreign(self.directory)
        if foreign:
            raise FileExistsError(
                f"{self.directory} is to hold checkpoints and nothing else, but it has "
                f"{', '.join(foreign)}; choose another directory, or move these away."
            )
        self.directory.mkdir(parents=True, exist_ok=True)
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


class Preemption:
    """A context in which SIGTERM, with which clusters announce the end, is noticed.

    In one process it is a signal handler, set in the main thread only (Python allows it nowhere else) and only where
    SIGTERM is not ignored. With several processes it is JAX's preemption service, which
    ``jax.distributed.initialize`` starts: a signal to any one process lets all of them stop after the same step.

    Attributes:
      received: whether this process has noticed SIGTERM or agreed with others to stop.
    """

    def __init__(self):
        self.received = False
        self._before: Any = None

    def __enter__(self) -> "Preemption":
        in_main_thread = threading.current_thread() is threading.main_thread()
        # A handler that was not set from Python (None) could not be put back.
        if (
            jax.process_count() == 1
            and in_main_thread
            and signal.getsignal(signal.SIGTERM) not in (None, signal.SIG_IGN)
        ):
            self._before = signal.signal(signal.SIGTERM, self._notice)
        return self

    def __exit__(self, *error: object) -> None:
        if self._before is not None:
            signal.signal(signal.SIGTERM, self._before)

    def _notice(self, number: int, frame: Any) -> None:
        del number, frame
        self.received = True

    def after(self, step: int) -> bool:
        """Return whether to stop after this step; every process calls it once a step."""
        if jax.process_count() > 1 and getattr(jax.config, "jax_enable_preemption_service", False):
            self.received |= multihost_utils.reached_preemption_sync_point(step)
        return self.received

    def pass_on(self) -> None:
        """Call the handler that was there before, such as one that puts the job back into the queue."""
        if callable(self._before):
            self._before(signal.SIGTERM, None)


def _orbax() -> Any:
    """Import Orbax, which is slow to import, and which weights in a file do not need."""
    try:
        import orbax.checkpoint as ocp  # noqa: PLC0415
    except ImportError as error:
        raise ImportError("checkpoints of a training need Orbax: pip install orbax-checkpoint") from error
    return ocp


def _foreign(directory: Path) -> list[str]:
    if not directory.exists():
        return []
    if not directory.is_dir():
        return [f"a file of that name ({directory.name})"]

    def ours(path: Path) -> bool:
        if _TEMPORARY in path.name:
            return True
        return (
            path.name.isdecimal()
            and path.is_dir()
            and all(part.name in _PARTS or _TEMPORARY in part.name for part in path.iterdir())
        )

    return sorted(path.name for path in directory.iterdir() if not ours(path))


def save_variables(path: str | os.PathLike, variables: Mapping[str, Any], *, overwrite: bool = False) -> None:
    """Write weights as a compressed NumPy archive, one array per leaf, named by its path of keys.

    The format holds arrays only: reading it runs no code.

    Args:
      path: ends in ``.npz``.
      variables: nested dictionaries of arrays, as in ``{"params": {"Dense_0": {"kernel": ...}}}``.
      overwrite: replace a file of this name.

    Raises:
      FileExistsError: if there is such a file and ``overwrite`` is False.
      TypeError: if a leaf is not a real or boolean array, or has a dtype that NumPy lacks (cast
        bfloat16 first).
      ValueError: if the path has another suffix, or a key is not a string without a slash.

    Example:
      >>> import tempfile
      >>> path = Path(tempfile.mkdtemp()) / "weights.npz"
      >>> save_variables(path, {"params": {"Dense_0": {"bias": np.zeros(2, np.float32)}}})
      >>> np.load(path).files
      ['params/Dense_0/bias']
    """
    path = _npz(path)
    if path.exists() and not overwrite:
        raise FileExistsError(f"{path} exists; pass overwrite=True to replace it, or choose another name.")
    leaves = {}
    for keys, leaf in flatten_dict(dict(variables)).items():
        if not all(isinstance(key, str) and key and "/" not in key for key in keys):
            raise ValueError(f"keys have to be non-empty strings without a slash, got {keys}.")
        array = np.asarray(leaf)
        if array.dtype.kind not in "fiub":
            raise TypeError(f"{'/'.join(keys)} has dtype {array.dtype}, which .npz files cannot hold.")
        leaves["/".join(keys)] = array

    def write(temporary: Path) -> None:
        # Given a name, NumPy would add a suffix to it.
        with temporary.open("wb") as file:
            np.savez_compressed(file, **leaves)

    write_atomic(path, write)


def load_variables(path: str | os.PathLike) -> dict[str, Any]:
    """Read weights written by :func:`save_variables`, as nested dictionaries of NumPy arrays.

    Raises:
      FileNotFoundError: if there is no such file.
      ValueError: if it is damaged or not an archive of arrays.
    """
    path = _npz(path)
    with path.open("rb") as file:
        # NumPy would try anything but a zip archive as a single array, or as a pickle.
        if not zipfile.is_zipfile(file):
            raise ValueError(f"{path} is damaged, or no archive of arrays.")
        file.seek(0)
        try:
            with np.load(file, allow_pickle=False) as archive:
                leaves = {tuple(name.split("/")): archive[name] for name in archive.files}
            return unflatten_dict(leaves)
        # Damage shows as nearly any type of exception, depending on the byte.
        except Exception as error:
            raise ValueError(f"{path} is damaged, or no archive of arrays: {error}") from error


def _npz(path: str | os.PathLike) -> Path:
    path = Path(path)
    if path.suffix != ".npz":
        raise ValueError(f"weights are stored in .npz files, got {path.name!r}.")
    return path
