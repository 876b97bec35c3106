"""Notice that a job is about to be ended, so that it can save its state first."""

import signal
import threading
from typing import Any

import jax
from jax.experimental import multihost_utils


class Preemption:
    """A context in which SIGTERM, with which clusters announce the end, is noticed.

    In one process it is a signal handler, set in the main thread only (Python allows it nowhere else) and only where
    SIGTERM is not ignored. With several processes it is JAX's preemption service, which
    ``jax.distributed.initialize`` starts: a signal to any one process lets all of them stop after the same step.

    Attributes:
      received: whether this process has noticed SIGTERM or agreed with others to stop.

    Example:
      >>> with Preemption() as preemption:
      ...     steps = [step for step in range(3) if not preemption.after(step)]
      >>> steps, preemption.received
      ([0, 1, 2], False)
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
