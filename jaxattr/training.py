"""One training loop for every objective.

An objective is ``objective(apply_fn, variables, batch, key) -> (loss, aux)``; nothing here knows
which. ``aux["metrics"]`` holds scalars for the log and ``aux["updates"]`` the collections that the
pass has changed (statistics of batch normalization). Only ``variables["params"]`` is optimized.
"""

import os
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Int, PRNGKeyArray

from jaxattr.evaluation import (
    ApplyFn,
    Batch,
    Objective,
    Variables,
    accuracy,
    arrays,
    robust_accuracy,
)
from jaxattr.history import History

if TYPE_CHECKING:
    from jaxattr.checkpoints import Checkpoints

__all__ = ["Batch", "FitResult", "accuracy", "fit", "robust_accuracy"]


class FitResult(NamedTuple):
    """What training leaves.

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
    # The first step whose loss or gradient was not finite, -1 for none: the device keeps watch at
    # every step, and the host looks at intervals only.
    failed: Int[Array, ""]


def fit(
    objective: Objective,
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
    progress: bool = False,
) -> FitResult:
    """Train a network.

    Each epoch visits the samples in an order of its own and drops the incomplete last batch. Order
    and randomness of a step depend on ``key`` and the number of the step alone, so a run that was
    killed and is started again with the same arguments continues from its last checkpoint and ends
    with the parameters that it would have had.

    Args:
      objective: what is minimized, such as ``ja.defenses.natural()``.
      apply_fn: the network, such as ``ja.models.apply_fn(model)``.
      variables: where training starts, a dictionary with ``"params"``; it is not changed.
      data: anything with arrays ``x`` and ``label``, such as :class:`jaxattr.data.Dataset` or
        :class:`Batch`.
      optimizer: an Optax transformation; schedules count steps.
      batch_size: samples per step.
      key: of the order of the samples, dropout, and attacks in training.
      epochs: how long; or
      steps: how long, as a total that includes the steps before a restart.
      checkpoint_dir: a directory for checkpoints and nothing else; the newest one in it is
        continued.
      checkpoint_every: steps between checkpoints; default: an epoch. The last state is always
        saved.
      evaluate: ``evaluate(variables) -> dict`` of numbers, called at intervals and at the end;
        it must not keep the variables, whose buffers the next step reuses.
      evaluate_every: steps between evaluations; default: an epoch.
      log: a file of JSON Lines, written as training goes.
      log_every: steps between lines of training metrics; None: an epoch.
      progress: show a line on the standard error stream.

    Returns:
      The variables after the last step, the number of steps, and the history.

    Raises:
      ValueError: for arguments that do not fit together, or a checkpoint or log of another run.
      FileExistsError: if the log exists and there is no ``checkpoint_dir`` to continue from.
      FloatingPointError: if a loss or gradient is not finite; the message names the step and the
        last checkpoint.

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
    xs, labels = arrays(data)
    _check(variables, len(xs), batch_size, epochs, steps)
    per_epoch = len(xs) // batch_size
    total = steps if steps is not None else per_epoch * (epochs or 0)
    checkpoint_every = _interval("checkpoint_every", checkpoint_every, per_epoch)
    evaluate_every = _interval("evaluate_every", evaluate_every, per_epoch)
    log_every = _interval("log_every", log_every, per_epoch)
    # Two streams: without the split, epoch 3 and step 3 would draw from the same key.
    order_key, step_key = jax.random.split(key)
    update = _update(objective, apply_fn, optimizer)
    state = _initial(variables, optimizer)
    # What has to be the same for a restart to be exact, beside the shapes that Orbax compares.
    identity = {
        "key": np.asarray(jax.random.key_data(key)).tolist(),
        "batch_size": batch_size,
        "samples": len(xs),
        "labels": zlib.crc32(labels.astype(np.int32).tobytes()),
    }

    with ExitStack() as stack:
        checkpoints = None
        rows: list[dict[str, Any]] = []
        if checkpoint_dir is not None:
            from jaxattr.checkpoints import Checkpoints  # noqa: PLC0415  (Orbax is slow to import)

            checkpoints = stack.enter_context(Checkpoints(checkpoint_dir))
            state, rows = _resume(checkpoints, state, identity)
        start = int(state.step)
        if start > total:
            raise ValueError(
                f"{checkpoint_dir} holds a run of {start} steps already, more than the {total} "
                "asked for; ask for more, or choose another directory."
            )
        record = History(rows, log, total, per_epoch, progress)
        record.open(resumable=checkpoints is not None)
        pending = []
        for step, batch in _batches(Batch(xs, labels), batch_size, order_key, start, total):
            state, metrics = update(state, batch, step_key)
            pending.append(metrics)

            due = partial(_due, step + 1, total)
            saves = checkpoints is not None and due(checkpoint_every)
            evaluates = evaluate is not None and due(evaluate_every)
            if not (saves or evaluates or due(log_every)):
                continue
            # Here the host waits for the device. Nothing that failed is logged or saved.
            _check_finite(int(state.failed), checkpoints)
            # A checkpoint cuts the means of the metrics, or a restart would change them.
            if saves or due(log_every):
                values = jax.device_get(pending)
                record.write(step + 1, {k: np.mean([v[k] for v in values]) for k in values[0]})
                pending = []
            if evaluate is not None and evaluates:
                record.write(step + 1, evaluate({"params": state.params, **state.collections}))
            if checkpoints is not None and saves:
                meta = {"identity": identity, "history": record.rows}
                checkpoints.save(step + 1, _kept(state), meta)
    return FitResult({"params": state.params, **state.collections}, total, record.rows)


def _initial(variables: Variables, optimizer: optax.GradientTransformation) -> _State:
    params = variables["params"]
    collections = {name: value for name, value in variables.items() if name != "params"}
    state = _State(
        step=jnp.asarray(0),
        params=params,
        collections=collections,
        opt_state=optimizer.init(params),
        failed=jnp.asarray(-1),
    )
    # The loop donates its buffers: these belong to the caller, and some optimizers share them.
    # Compiled together, so that the counters lie on the devices of the weights, also when restored.
    return jax.jit(partial(jax.tree.map, jnp.copy))(state)


def _update(objective: Objective, apply_fn: ApplyFn, optimizer: optax.GradientTransformation):
    @partial(jax.jit, donate_argnums=0)
    def update(state: _State, batch: Batch, key: PRNGKeyArray):
        def loss_fn(params):
            variables = {**state.collections, "params": params}
            return objective(apply_fn, variables, batch, jax.random.fold_in(key, state.step))

        (loss, aux), grads = jax.value_and_grad(loss_fn, has_aux=True)(state.params)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        grad_norm = optax.tree.norm(grads)
        fine = jnp.isfinite(loss) & jnp.isfinite(grad_norm)
        state = _State(
            step=state.step + 1,
            params=optax.apply_updates(state.params, updates),
            collections={**state.collections, **aux["updates"]},
            opt_state=opt_state,
            failed=jnp.where((state.failed < 0) & ~fine, state.step + 1, state.failed),
        )
        return state, {"loss": loss, "grad_norm": grad_norm, **aux["metrics"]}

    return update


def _batches(data: Batch, size: int, key: PRNGKeyArray, start: int, total: int) -> Iterator[tuple[int, Batch]]:
    """Yield the steps from ``start`` on and their batches; the order depends on the epoch alone."""
    order = np.arange(0)
    for step in range(start, total):
        epoch, position = divmod(step, len(data.x) // size)
        if position == 0 or step == start:
            order = np.asarray(jax.random.permutation(jax.random.fold_in(key, epoch), len(data.x)))
        rows = order[position * size : (position + 1) * size]
        yield step, Batch(data.x[rows], data.label[rows])


def _resume(checkpoints: "Checkpoints", state: _State, identity: Mapping[str, Any]):
    if checkpoints.latest_step() is None:
        return state, []
    kept, meta, step = checkpoints.restore(_kept(state))
    was = meta["identity"]
    changed = [name for name, value in identity.items() if was.get(name) != value]
    if changed:
        raise ValueError(
            f"{checkpoints.path(step)} was written by a run with another {', '.join(changed)} "
            f"({[was.get(name) for name in changed]} and not {[identity[n] for n in changed]}), so "
            "continuing would not be exact; use the same arguments, or another directory."
        )
    return state._replace(**kept), meta["history"]


def _kept(state: _State) -> dict[str, Any]:
    return {name: value for name, value in state._asdict().items() if name != "failed"}


def _check_finite(failed: int, checkpoints: "Checkpoints | None") -> None:
    if failed < 0:
        return
    good = None if checkpoints is None else checkpoints.latest_step()
    where = "there is no checkpoint before it"
    if checkpoints is not None and good is not None:
        where = f"the last good checkpoint is {checkpoints.path(good)}"
    raise FloatingPointError(
        f"the loss or its gradient was not finite at step {failed}; {where}. A smaller learning "
        "rate or gradient clipping (optax.clip_by_global_norm) may help."
    )


def _check(variables, n: int, batch_size: int, epochs: int | None, steps: int | None) -> None:
    if "params" not in variables:
        raise ValueError(f"`variables` needs 'params', got {list(variables)}.")
    if not 1 <= batch_size <= n:
        raise ValueError(f"`batch_size` is {batch_size}; accepted is 1 to {n}, all samples.")
    if (epochs is None) == (steps is None):
        raise ValueError(f"give either `epochs` or `steps`, got {epochs=} and {steps=}.")
    if min(length for length in (epochs, steps) if length is not None) < 0:
        raise ValueError(f"the length of training is negative: {epochs=}, {steps=}.")


def _interval(name: str, every: int | None, default: int) -> int:
    if every is not None and every < 1:
        raise ValueError(f"`{name}` is {every}; give a positive number of steps.")
    return default if every is None else every


def _due(done: int, total: int, every: int) -> bool:
    return done == total or done % every == 0
