"""Train with one loop for every objective.

An objective is ``objective(apply_fn, variables, batch, key) -> (loss, aux)``; the loop does
not depend on which. ``aux["metrics"]`` holds scalars for the log and ``aux["updates"]`` the collections that the
pass has changed (statistics of batch normalization). Only ``variables["params"]`` is optimized.

A step is one ``jit`` over a batch that is divided among all devices of all processes, with the weights
on each. The objective sees the whole batch: its means, statistics and random keys are those of one
device, and the compiler adds the sums over devices that they need. (What runs over the samples one
after the other, as ``lax.map`` and ``scan`` do, gathers the batch on every device; ``vmap`` does not.)
"""

import logging
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Int, PRNGKeyArray

from jaxattr import _identity, _training_data, parallel
from jaxattr._history import History
from jaxattr.accuracy import accuracy, robust_accuracy
from jaxattr.apply_fn import ApplyFn, TrainingObjective, Variables
from jaxattr.labeled import Batch
from jaxattr.preemption import Preemption

if TYPE_CHECKING:
    from jaxattr.checkpoints import Checkpoints

__all__ = ["Batch", "FitResult", "Interrupted", "accuracy", "fit", "robust_accuracy"]

logger = logging.getLogger(__name__)


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


class FitResult(NamedTuple):
    """The result of training.

    ``history`` has one dictionary per line of the log: ``step`` (updates made), ``epoch``,
    ``seconds`` of this process, and either the means of the training metrics since the line before,
    or what ``evaluate`` returned.
    """

    variables: dict[str, Any]
    step: int
    history: list[dict[str, Any]]


class _State(NamedTuple):
    step: Int[Array, ""]
    params: Any
    collections: dict[str, Any]
    opt_state: optax.OptState
    # This is the first step whose loss or gradient was not finite, -1 for none: the device checks every step, and the
    # host checks at intervals only.
    failed: Int[Array, ""]
    # This tells whether the loss of that step was finite, so that its gradient alone was not.
    loss_was_finite: Bool[Array, ""]


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
    log: str | os.PathLike | None = None,
    log_every: int | None = 50,
    tensorboard: str | os.PathLike | None = None,
    progress: bool = False,
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
    and the same variables, and read their own rows of a batch. Process 0 writes the logs, all write
    the checkpoints, to a directory that they share. ``evaluate`` runs in each.

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
      log: a file of JSON Lines, written as training goes.
      log_every: steps between lines of training metrics; None: an epoch.
      tensorboard: a directory for curves of everything that is logged; needs tensorboardX.
      progress: show a line on the standard error stream.
      devices: to train on. By default all; or, in one process whose devices cannot share a batch
        evenly, as many as can, and a warning is logged.

    Returns:
      The variables after the last step (copies on one device), the number of steps, and the history.

    Raises:
      TypeError: if inputs are not floating-point numbers.
      ValueError: for arguments that do not fit together, inputs outside of the box or not finite, labels that do not
        exist, a batch that the devices cannot share evenly, or a checkpoint or log of another run.
      FileExistsError: if the log or curves exist and there is no ``checkpoint_dir`` to continue
        from.
      FloatingPointError: if a loss or gradient is not finite; the message names the step, what may be the cause, and
        the last checkpoint.
      ImportError: if ``tensorboard`` is given without tensorboardX.
      Interrupted: after SIGTERM, as above; a ``SystemExit``.

    Example:
      >>> import jax, optax, jaxattr as ja
      >>> model = ja.models.MLP(num_classes=2, hidden=())
      >>> variables = ja.models.init(model, jax.random.key(0), (2,))
      >>> corners = Batch(np.eye(2, dtype=np.float32), np.array([0, 1], np.int32))
      >>> result = fit(ja.defenses.natural(), ja.models.apply_fn(model), variables, corners,
      ...              optimizer=optax.sgd(1.0), batch_size=2, epochs=30, key=jax.random.key(1))
      >>> result.step, accuracy(ja.models.apply_fn(model), result.variables, corners)
      (30, 1.0)
    """
    _training_data.require_arguments(variables, len(data.x), batch_size, epochs, steps)
    xs, labels = _training_data.samples(objective, apply_fn, variables, data, batch_size)
    per_epoch = len(xs) // batch_size
    total = steps if steps is not None else per_epoch * (epochs or 0)
    intervals = {"checkpoint_every": checkpoint_every, "evaluate_every": evaluate_every, "log_every": log_every}
    checkpoint_every, evaluate_every, log_every = (_interval(*item, per_epoch) for item in intervals.items())
    on = parallel.batch_mesh(batch_size, devices)
    # Two streams are needed: without the split, epoch 3 and step 3 would draw from the same key.
    order_key, step_key = jax.random.split(key)
    gradient = _gradient(objective, apply_fn, jax.random.key_impl(step_key))
    update = _update(gradient, optimizer, on)
    key_data = parallel.replicated(np.asarray(jax.random.key_data(step_key)), on)
    state = _initial(variables, optimizer, on)

    with ExitStack() as stack:
        checkpoints, preemption, identity, meta = None, None, {}, {}
        if checkpoint_dir is not None:
            from jaxattr.checkpoints import Checkpoints  # noqa: PLC0415  (Orbax is slow to import)

            checkpoints = stack.enter_context(Checkpoints(checkpoint_dir))
            preemption = stack.enter_context(Preemption())
            identity = _identity.of_run(gradient, optimizer, _variables(state, on), xs, labels, batch_size, key)
            state, meta = _resume(checkpoints, state, identity, total)
        start = int(state.step)
        record = stack.enter_context(History(meta.get("history", []), log, tensorboard, total, per_epoch, progress))
        record.open(start, resumable=checkpoints is not None)
        if evaluate is not None and meta.get("unevaluated"):
            record.write(start, evaluate(_variables(state, on)))
        metrics, pending = None, meta.get("pending", [])
        for step, batch in _batches(xs, labels, batch_size, order_key, range(start, total), on):
            before, (state, metrics) = metrics, update(state, batch, key_data)
            pending.append(metrics)
            # Let one step wait behind the one under way, instead of the thirty that JAX would queue: the time between
            # SIGTERM and the end may be short.
            jax.block_until_ready(before)

            stop = preemption is not None and preemption.after(step + 1)
            due = partial(_due, step + 1, total)
            cuts = checkpoints is not None and due(checkpoint_every)
            evaluates = evaluate is not None and due(evaluate_every)
            if not (cuts or stop or evaluates or due(log_every)):
                continue
            # The host waits for the device here. No failed step is logged or saved.
            _check_finite(state, checkpoints)
            # A checkpoint at its interval cuts the means of the metrics, or a restart would change them.
            if cuts or due(log_every):
                record.write(step + 1, _means(pending))
                pending = []
            if evaluate is not None and evaluates and not stop:
                record.write(step + 1, evaluate(_variables(state, on)))
            if checkpoints is not None and (cuts or stop):
                # A checkpoint forced by SIGTERM does not cut the means: it stores the pending metrics, and whether an
                # evaluation is still to be made.
                missing = {"pending": _values(pending), "unevaluated": evaluates and stop}
                meta = {"identity": identity, "history": record.rows} | missing
                checkpoints.save(step + 1, _kept(state), meta)
            if stop:
                break
        if checkpoints is not None and preemption is not None and preemption.received:
            _leave(checkpoints, preemption)
    return FitResult(_variables(state, on), total, record.rows)


def _initial(variables: Variables, optimizer: optax.GradientTransformation, on: Mesh) -> _State:
    # Compile, so that all devices create all of the state, keys that an optimizer holds included.
    @partial(jax.jit, out_shardings=parallel.whole(on))
    def initial(variables):
        params = variables["params"]
        collections = {name: value for name, value in variables.items() if name != "params"}
        state = _State(
            step=jnp.asarray(0),
            params=params,
            collections=collections,
            opt_state=optimizer.init(params),
            failed=jnp.asarray(-1),
            loss_was_finite=jnp.asarray(True),
        )
        # Copy, since the loop donates its buffers: these belong to the caller, and some optimizers share them.
        return jax.tree.map(jnp.copy, state)

    return initial(parallel.replicated(dict(variables), on))


def _variables(state: _State, on: Mesh) -> dict[str, Any]:
    return parallel.local({"params": state.params, **state.collections}, on)


def _gradient(objective: TrainingObjective, apply_fn: ApplyFn, key_impl: Any) -> Callable[..., Any]:
    """Return a function that computes ``((loss, aux), gradient of the parameters)`` of a batch at a step."""

    def gradient(params, collections, step, batch: Batch, key_data: Array):
        key = jax.random.fold_in(jax.random.wrap_key_data(key_data, impl=key_impl), step)

        def loss_fn(params):
            return objective(apply_fn, {**collections, "params": params}, batch, key)

        return jax.value_and_grad(loss_fn, has_aux=True)(params)

    return gradient


def _update(gradient: Callable[..., Any], optimizer: optax.GradientTransformation, on: Mesh):
    @partial(jax.jit, donate_argnums=0, out_shardings=parallel.whole(on))
    def update(state: _State, batch: Batch, key_data: Array):
        (loss, aux), grads = gradient(state.params, state.collections, state.step, batch, key_data)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        grad_norm = optax.tree.norm(grads)
        fails = (state.failed < 0) & ~(jnp.isfinite(loss) & jnp.isfinite(grad_norm))
        state = _State(
            step=state.step + 1,
            params=optax.apply_updates(state.params, updates),
            collections={**state.collections, **aux["updates"]},
            opt_state=opt_state,
            failed=jnp.where(fails, state.step + 1, state.failed),
            loss_was_finite=jnp.where(fails, jnp.isfinite(loss), state.loss_was_finite),
        )
        return state, {"loss": loss, "grad_norm": grad_norm, **aux["metrics"]}

    return update


def _batches(
    xs: np.ndarray, labels: np.ndarray, size: int, key: PRNGKeyArray, steps: range, on: Mesh
) -> Iterator[tuple[int, Batch]]:
    """Yield steps and their batches; the order depends on the epoch alone."""
    order = np.arange(0)
    for step in steps:
        epoch, position = divmod(step, len(xs) // size)
        if position == 0 or step == steps.start:
            order = np.asarray(jax.random.permutation(jax.random.fold_in(key, epoch), len(xs)))
        rows = order[position * size : (position + 1) * size]
        yield step, Batch(parallel.sharded(xs, rows, on), parallel.sharded(labels, rows, on))


def _resume(checkpoints: "Checkpoints", state: _State, identity: Mapping[str, Any], total: int):
    if checkpoints.latest_step() is None:
        return state, {}
    # Check before the state is read: that of another optimizer has another shape.
    meta, step = checkpoints.meta()
    _identity.require_same(meta["identity"], identity, checkpoints.path(step))
    if step > total:
        raise ValueError(
            f"{checkpoints.directory} holds a run of {step} steps already, more than the {total} "
            "asked for; ask for more, or choose another directory."
        )
    kept, meta, _ = checkpoints.restore(_kept(state))
    return state._replace(**kept), meta


def _kept(state: _State) -> dict[str, Any]:
    return {name: value for name, value in state._asdict().items() if name not in ("failed", "loss_was_finite")}


def _values(pending: list[Mapping[str, Any]]) -> list[dict[str, float]]:
    # Convert to Python's numbers, so that means are the same after storage as JSON.
    return [{name: float(value) for name, value in metrics.items()} for metrics in jax.device_get(pending)]


def _means(pending: list[Mapping[str, Any]]) -> dict[str, Any]:
    values = _values(pending)
    return {name: np.mean([metrics[name] for metrics in values]) for name in values[0]}


def _leave(checkpoints: "Checkpoints", preemption: Preemption) -> NoReturn:
    step = checkpoints.latest_step() or 0
    path = checkpoints.path(step)
    if jax.process_index() == 0:
        logger.warning("SIGTERM: stopped after step %d; the same call continues from %s", step, path)
    preemption.pass_on()
    raise Interrupted(step, path)


def _check_finite(state: _State, checkpoints: "Checkpoints | None") -> None:
    failed = int(state.failed)
    if failed < 0:
        return
    good = None if checkpoints is None else checkpoints.latest_step()
    where = "there is no checkpoint before it"
    if checkpoints is not None and good is not None:
        where = f"the last good checkpoint is {checkpoints.path(good)}"
    raise FloatingPointError(
        f"the loss or its gradient was not finite at step {failed}; {where}. "
        f"{_training_data.cause(failed, bool(state.loss_was_finite))}"
    )


def _interval(name: str, every: int | None, default: int) -> int:
    if every is not None and every < 1:
        raise ValueError(f"`{name}` is {every}; give a positive number of steps.")
    return default if every is None else every


def _due(done: int, total: int, every: int) -> bool:
    return done == total or done % every == 0
