"""Make the steps of training: pure functions of a state, compiled for all devices.

A step is one ``jit`` over a batch that is divided among all devices of all processes, with the weights
on each. The objective sees the whole batch: its means, statistics and random keys are those of one
device, and the compiler adds the sums over devices that they need. (What runs over the samples one
after the other, as ``lax.map`` and ``scan`` do, gathers the batch on every device; ``vmap`` does not.)
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Int, PRNGKeyArray

from jaxattr import parallel
from jaxattr.apply_fn import ApplyFn, TrainingObjective, Variables
from jaxattr.labeled import Batch


class TrainState(NamedTuple):
    """The state of a training run between two steps.

    Attributes:
      step: updates made.
      params: the parameters.
      collections: all other variables, such as the statistics of batch normalization.
      opt_state: the state of the optimizer.
      key: random key of the run; every step folds in its number.
      failed: the first step whose loss or gradient was not finite, -1 for none. The device checks every step, and the
        host may look at intervals only.
      loss_was_finite: whether the loss of that step was finite, so that its gradient alone was not.
    """

    step: Int[Array, ""]
    params: Any
    collections: dict[str, Any]
    opt_state: optax.OptState
    key: PRNGKeyArray
    failed: Int[Array, ""]
    loss_was_finite: Bool[Array, ""]

    def to_save(self) -> dict[str, Any]:
        """Return the fields that a checkpoint holds; :meth:`Trainer.init` makes the others anew."""
        return {name: getattr(self, name) for name in ("step", "params", "collections", "opt_state")}


class Trainer:
    """A pair of compiled functions, ``init`` and ``step``, for training loops of your own; :func:`fit` is one.

    Args:
      objective: the objective to minimize, such as ``ja.defenses.natural()``.
      apply_fn: the network, such as ``ja.models.apply_fn(model)``.
      optimizer: an Optax transformation; schedules count steps.
      mesh: the devices, such as ``ja.parallel.batch_mesh(batch_size)``; default: all devices.

    Example:
      >>> import jaxattr as ja
      >>> model = ja.models.MLP(num_classes=2, hidden=())
      >>> trainer = Trainer(ja.defenses.natural(), ja.models.apply_fn(model), optax.sgd(1.0))
      >>> state = trainer.init(ja.models.init(model, jax.random.key(0), (2,)), jax.random.key(1))
      >>> corners = Batch(np.eye(2, dtype=np.float32), np.array([0, 1], np.int32))
      >>> for _ in range(30):
      ...     state, metrics = trainer.step(state, corners)
      >>> int(state.step), float(metrics["accuracy"])
      (30, 1.0)
    """

    def __init__(
        self,
        objective: TrainingObjective,
        apply_fn: ApplyFn,
        optimizer: optax.GradientTransformation,
        *,
        mesh: parallel.Mesh | None = None,
    ):
        self.objective, self.apply_fn, self.optimizer = objective, apply_fn, optimizer
        self.mesh = parallel.mesh() if mesh is None else mesh
        whole = parallel.whole(self.mesh)
        # Compile the beginning, so that all devices create all of the state, keys that an optimizer holds included.
        self._init = jax.jit(self._initial, static_argnames="key_impl", out_shardings=whole)
        self._step = jax.jit(self._updated, donate_argnums=0, out_shardings=whole)

    def init(self, variables: Variables, key: PRNGKeyArray) -> TrainState:
        """Make the state in which training starts, on all devices.

        Args:
          variables: a dictionary with ``"params"``; it is copied.
          key: random key of dropout and attacks in training.
        """
        given = parallel.replicated((dict(variables), np.asarray(jax.random.key_data(key))), self.mesh)
        return self._init(*given, key_impl=jax.random.key_impl(key))

    def step(self, state: TrainState, batch: Batch) -> tuple[TrainState, dict[str, Array]]:
        """Update the parameters once.

        Args:
          state: is consumed: its buffers are those of the new state.
          batch: samples and labels, divided among the devices or on the host.

        Returns:
          The new state, and the metrics of the batch: ``loss``, ``grad_norm``, and those of the objective.
        """
        return self._step(state, batch)

    def variables(self, state: TrainState) -> dict[str, Any]:
        """Return copies of the variables on one device."""
        return parallel.local({"params": state.params, **state.collections}, self.mesh)

    def gradient(self, params: Any, collections: Any, step: Any, batch: Batch, key: PRNGKeyArray) -> tuple[Any, Any]:
        """Compute ``((loss, aux), gradient of the parameters)`` of a batch at a step."""
        key = jax.random.fold_in(key, step)

        def loss_fn(params):
            return self.objective(self.apply_fn, {**collections, "params": params}, batch, key)

        return jax.value_and_grad(loss_fn, has_aux=True)(params)

    def _initial(self, variables: Variables, key_data: Array, *, key_impl: Any) -> TrainState:
        params = variables["params"]
        state = TrainState(
            step=jnp.asarray(0),
            params=params,
            collections={name: value for name, value in variables.items() if name != "params"},
            opt_state=self.optimizer.init(params),
            # Typed keys cannot be put on the devices of other processes: each makes its own of numbers.
            key=jax.random.wrap_key_data(key_data, impl=key_impl),
            failed=jnp.asarray(-1),
            loss_was_finite=jnp.asarray(True),
        )
        # Copy, since steps donate their buffers: these belong to the caller, and some optimizers share them.
        return jax.tree.map(jnp.copy, state)

    def _updated(self, state: TrainState, batch: Batch) -> tuple[TrainState, dict[str, Array]]:
        (loss, aux), grads = self.gradient(state.params, state.collections, state.step, batch, state.key)
        updates, opt_state = self.optimizer.update(grads, state.opt_state, state.params)
        grad_norm = optax.tree.norm(grads)
        fails = (state.failed < 0) & ~(jnp.isfinite(loss) & jnp.isfinite(grad_norm))
        state = TrainState(
            step=state.step + 1,
            params=optax.apply_updates(state.params, updates),
            collections={**state.collections, **aux["updates"]},
            opt_state=opt_state,
            key=state.key,
            failed=jnp.where(fails, state.step + 1, state.failed),
            loss_was_finite=jnp.where(fails, jnp.isfinite(loss), state.loss_was_finite),
        )
        return state, {"loss": loss, "grad_norm": grad_norm, **aux["metrics"]}
