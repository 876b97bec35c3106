"""The training loop: batches, evaluations, checkpoints, and rows for the writers."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from typing import Any, NamedTuple

import jax
import numpy as np
import optax
from jaxtyping import PRNGKeyArray

from jaxattr import parallel
from jaxattr.apply_fn import ApplyFn, TrainingObjective, Variables
from jaxattr.labeled import Batch
from jaxattr.training import _identity, _valid_data
from jaxattr.training._saved_run import SavedRun
from jaxattr.training._trainer import Trainer, TrainState
from jaxattr.training._writers import History, Run, Writer


class FitResult(NamedTuple):
    """The result of training.

    ``history`` has one dictionary per row: ``step`` (updates made), ``epoch``,
    ``seconds`` of this process, and either the means of the training metrics since the row before,
    or what ``evaluate`` returned.
    """

    variables: dict[str, Any]
    step: int
    history: list[dict[str, Any]]


def fit(
    objective: TrainingObjective,
    apply_fn: ApplyFn,
    variables: Variables,
    data: Any,
    *,
    optimizer: optax.GradientTransformation,
    batch_size: int,
    key: PRNGKeyArray,
    epochs: int | None = None,
    steps: int | None = None,
    checkpoint_dir: str | os.PathLike | None = None,
    checkpoint_every: int | None = None,
    evaluate: Callable[[dict[str, Any]], Mapping[str, Any]] | None = None,
    evaluate_every: int | None = None,
    writers: Sequence[Writer] = (),
    log_every: int | None = 50,
    devices: Any = None,
) -> FitResult:
    """Train a network, on all devices of all processes.

    Each epoch visits the samples in an order of its own and drops the incomplete last batch. Order
    and randomness of a step depend on ``key`` and the number of the step alone, so a run that was
    killed and is started again with the same arguments continues from its last checkpoint and ends
    with the parameters that it would have had: the same on the same devices, and equal to rounding
    on others. ``fit`` checks that they are the same: a checkpoint holds the fingerprints of inputs, labels and initial
    weights, in their order, and of the programs of objective, network and optimizer, with all numbers in them.

    With ``checkpoint_dir``, SIGTERM (a preempted or timed out job) saves the state after the step
    or evaluation under way, calls the handler that was there before, if any, and raises
    :class:`Interrupted`. In one process this needs the main thread; with several, a signal to one
    of them stops all.

    Several processes (``jax.distributed.initialize``) make the same call, each with all the data
    and the same variables, and read their own rows of a batch. The writers of process 0 write,
    and all write the checkpoints, to a directory that they share. ``evaluate`` runs in each.

    Args:
      objective: the objective to minimize, such as ``ja.defenses.natural()``.
      apply_fn: the network, such as ``ja.models.apply_fn(model)``.
      variables: where training starts, a dictionary with ``"params"``; it is not changed.
      data: anything with arrays ``x`` and ``label``, such as :class:`jaxattr.data.Dataset` or
        :class:`Batch`: finite floating-point numbers, inside of the box of the objective's attack if it has one, and
        classes that the network has a logit for.
      optimizer: an Optax transformation; schedules count steps.
      batch_size: samples per step, over all devices.
      key: random key of the order of the samples, dropout, and attacks in training.
      epochs: how long; or
      steps: how long, as a total that includes the steps before a restart.
      checkpoint_dir: a directory for checkpoints and nothing else; the newest one in it is
        continued.
      checkpoint_every: steps between checkpoints; default: an epoch. The last state is always
        saved.
      evaluate: ``evaluate(variables) -> dict`` of numbers, called at intervals and at the end with
        a copy of the variables on one device.
      evaluate_every: steps between evaluations; default: an epoch.
      writers: receive the rows of the history as training goes, in process 0: :class:`JsonLines`, :class:`TensorBoard`,
        :class:`Progress`, or a :class:`Writer` of your own.
      log_every: steps between rows of training metrics; None: an epoch.
      devices: to train on. By default all; or, in one process whose devices cannot share a batch
        evenly, as many as can, and a warning is logged.

    Returns:
      The variables after the last step (copies on one device), the number of steps, and the history.

    Raises:
      TypeError: if inputs are not floating-point numbers, or ``writers`` is no list.
      ValueError: for arguments that do not fit together, inputs outside of the box or not finite, labels that do not
        exist, a batch that the devices cannot share evenly, or a checkpoint of another run.
      FloatingPointError: if a loss or gradient is not finite; the message names the step, what may be the cause, and
        the last checkpoint.
      Interrupted: after SIGTERM, as above; a ``SystemExit``.
      FileExistsError, ValueError: by writers, if their files are there and not those of this run.

    Example:
      >>> import jax, optax, jaxattr as ja
      >>> model = ja.models.MLP(num_classes=2, hidden=())
      >>> variables = ja.models.init(model, jax.random.key(0), (2,))
      >>> corners = Batch(np.eye(2, dtype=np.float32), np.array([0, 1], np.int32))
      >>> result = fit(ja.defenses.natural(), ja.models.apply_fn(model), variables, corners,
      ...              optimizer=optax.sgd(1.0), batch_size=2, epochs=30, key=jax.random.key(1))
      >>> result.step, ja.training.accuracy(ja.models.apply_fn(model), result.variables, corners)
      (30, 1.0)
    """
    if not isinstance(writers, Sequence):
        raise TypeError(f"`writers` is a list, such as [ja.training.JsonLines(path)], got {type(writers).__name__}.")
    _valid_data.require_arguments(variables, len(data.x), batch_size, epochs, steps)
    xs, labels = _valid_data.checked(objective, apply_fn, variables, data, batch_size)
    per_epoch = len(xs) // batch_size
    total = steps if steps is not None else per_epoch * (epochs or 0)
    intervals = {"checkpoint_every": checkpoint_every, "evaluate_every": evaluate_every, "log_every": log_every}
    schedule = _Schedule(total, *(_interval(*item, per_epoch) for item in intervals.items()))
    # Two streams are needed: without the split, epoch 3 and step 3 would draw from the same key.
    order_key, step_key = jax.random.split(key)
    trainer = Trainer(objective, apply_fn, optimizer, mesh=parallel.batch_mesh(batch_size, devices))
    state = trainer.init(variables, step_key)

    with ExitStack() as stack:
        saved = stack.enter_context(SavedRun(checkpoint_dir))
        meta: dict[str, Any] = {}
        if saved.active:
            identity = _identity.of_run(trainer, trainer.variables(state), xs, labels, batch_size, key)
            state, meta = saved.resume(state, identity, total)
        start, rows = int(state.step), meta.get("history", [])
        history = History(rows, _opened(writers, Run(start, total, saved.active, tuple(rows)), stack), per_epoch)
        if evaluate is not None and meta.get("unevaluated"):
            history.write(start, evaluate(trainer.variables(state)))
        metrics, pending = None, meta.get("pending", [])
        for done, batch in _batches(xs, labels, batch_size, order_key, range(start, total), trainer.mesh):
            before, (state, metrics) = metrics, trainer.step(state, batch)
            pending.append(metrics)
            # Let one step wait behind the one under way, instead of the thirty that JAX would queue: the time between
            # SIGTERM and the end may be short.
            jax.block_until_ready(before)

            stops = saved.stops_after(done)
            saves = saved.active and schedule.saves(done)
            evaluates = evaluate is not None and schedule.evaluates(done)
            if not (saves or stops or evaluates or schedule.logs(done)):
                continue
            # The host waits for the device here. No failed step is logged or saved.
            _check_finite(state, saved)
            # A checkpoint at its interval cuts the means of the metrics, or a restart would change them.
            if saves or schedule.logs(done):
                history.write(done, _means(pending))
                pending = []
            if evaluate is not None and evaluates and not stops:
                history.write(done, evaluate(trainer.variables(state)))
            if saves or stops:
                # A checkpoint forced by SIGTERM does not cut the means: it stores the pending metrics, and whether an
                # evaluation is still to be made.
                missing = {"pending": _values(pending), "unevaluated": evaluates and stops}
                saved.save(state, history=history.rows, **missing)
            if stops:
                break
        saved.leave_if_stopped()
    return FitResult(trainer.variables(state), total, history.rows)


class _Schedule(NamedTuple):
    """The steps after which something is due: multiples of an interval, and the last one."""

    total: int
    checkpoint_every: int
    evaluate_every: int
    log_every: int

    def saves(self, done: int) -> bool:
        return self._due(done, self.checkpoint_every)

    def evaluates(self, done: int) -> bool:
        return self._due(done, self.evaluate_every)

    def logs(self, done: int) -> bool:
        return self._due(done, self.log_every)

    def _due(self, done: int, every: int) -> bool:
        return done == self.total or done % every == 0


def _interval(name: str, every: int | None, default: int) -> int:
    if every is not None and every < 1:
        raise ValueError(f"`{name}` is {every}; give a positive number of steps.")
    return default if every is None else every


def _opened(writers: Sequence[Writer], run: Run, stack: ExitStack) -> Sequence[Writer]:
    """Open the writers in process 0, until ``stack`` closes; other processes have none."""
    if jax.process_index() != 0:
        return ()
    for writer in writers:
        writer.open(run)
        stack.callback(writer.close)
    return writers


def _batches(
    xs: np.ndarray, labels: np.ndarray, size: int, key: PRNGKeyArray, steps: range, mesh: parallel.Mesh
) -> Iterator[tuple[int, Batch]]:
    """Yield batches, each with the number of steps made after it; the order depends on the epoch alone."""
    order = np.arange(0)
    for step in steps:
        epoch, position = divmod(step, len(xs) // size)
        if position == 0 or step == steps.start:
            order = np.asarray(jax.random.permutation(jax.random.fold_in(key, epoch), len(xs)))
        rows = order[position * size : (position + 1) * size]
        yield step + 1, Batch(parallel.sharded(xs, rows, mesh), parallel.sharded(labels, rows, mesh))


def _check_finite(state: TrainState, saved: SavedRun) -> None:
    failed = int(state.failed)
    if failed < 0:
        return
    good = saved.newest()
    where = "there is no checkpoint before it" if good is None else f"the last good checkpoint is {good}"
    raise FloatingPointError(
        f"the loss or its gradient was not finite at step {failed}; {where}. "
        f"{_valid_data.cause(failed, bool(state.loss_was_finite))}"
    )


def _values(pending: list[Mapping[str, Any]]) -> list[dict[str, float]]:
    # Convert to Python's numbers, so that means are the same after storage as JSON.
    return [{name: float(value) for name, value in metrics.items()} for metrics in jax.device_get(pending)]


def _means(pending: list[Mapping[str, Any]]) -> dict[str, Any]:
    values = _values(pending)
    return {name: np.mean([metrics[name] for metrics in values]) for name in values[0]}
