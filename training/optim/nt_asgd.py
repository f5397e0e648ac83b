"""NT-ASGD: non-monotonically triggered averaged SGD (Merity et al. 2017, algorithm 1).

SGD runs unchanged until a validation loss v_t is worse than the best loss before the
last n validations,

    v_t > min(v_0 .. v_(t-n-1)),   t > n

From then on the parameters are averaged, and the average is evaluated. The trigger is
that of the authors' program. All of it is part of the optimiser state. `on_validation`
passes validation losses to the state, here and for the plateau schedule.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int, PyTree

from training.optim.plateau import Plateau, update_plateau


class Average(NamedTuple):
    """Average of the parameters since the trigger.

    Attributes:
      mean: tree like the parameters; zeros while `count` is 0.
      count: number of steps in the mean.
      is_triggered: whether steps are averaged.
      recent: the last n validation losses, oldest first; inf before there are n.
      best: lowest validation loss older than these.
    """

    mean: PyTree
    count: Int[Array, ""]
    is_triggered: Bool[Array, ""]
    recent: Float[Array, "N"]
    best: Float[Array, ""]


def init_average(params: PyTree, interval: int) -> Average:
    """Returns the state before the first step.

    Args:
      params: parameters to average.
      interval: n, validations without improvement before the trigger.
    """
    return Average(
        mean=jax.tree.map(jnp.zeros_like, params),
        count=jnp.zeros((), jnp.int32),
        is_triggered=jnp.zeros((), bool),
        recent=jnp.full(interval, jnp.inf, jnp.float32),
        best=jnp.full((), jnp.inf, jnp.float32),
    )


def update_average(average: Average, params: PyTree) -> Average:
    """Adds the parameters after a step to the mean, once triggered."""
    count = average.count + average.is_triggered

    def move(mean, value):
        moved = mean + (value - mean) / jnp.maximum(count, 1)
        return jnp.where(average.is_triggered, moved, mean)

    mean = jax.tree.map(move, average.mean, params)
    return average._replace(mean=mean, count=count)


class AveragedState(NamedTuple):
    """State of an optimiser and the average of its parameters."""

    inner: PyTree
    average: Average


def with_averaging(
    optimizer: optax.GradientTransformationExtraArgs, interval: int
) -> optax.GradientTransformationExtraArgs:
    """Averages the parameters that an optimiser produces, frozen ones included."""

    def init(params):
        return AveragedState(optimizer.init(params), init_average(params, interval))

    def update(updates, state, params, **extra_args):
        updates, inner = optimizer.update(updates, state.inner, params, **extra_args)
        params = optax.apply_updates(params, updates)
        return updates, AveragedState(inner, update_average(state.average, params))

    return optax.GradientTransformationExtraArgs(init, update)


def maybe_trigger(average: Average, loss: Float[Array, ""]) -> Average:
    """Starts averaging if a validation loss meets the condition; NaN counts as inf."""
    loss = jnp.where(jnp.isnan(loss), jnp.inf, loss)
    return average._replace(
        is_triggered=average.is_triggered | (loss > average.best),
        recent=jnp.roll(average.recent, -1).at[-1].set(loss),
        best=jnp.minimum(average.best, average.recent[0]),
    )


# From the type of a node in an optimiser state to its update after a validation.
VALIDATION_HOOKS = {Average: maybe_trigger, Plateau: update_plateau}


def update_on_validation(opt_state: PyTree, loss: Float[Array, ""]) -> PyTree:
    """Applies `VALIDATION_HOOKS` to all nodes of an optimiser state."""

    def has_hook(node):
        return type(node) in VALIDATION_HOOKS

    def apply(node):
        return VALIDATION_HOOKS[type(node)](node, loss) if has_hook(node) else node

    return jax.tree.map(apply, opt_state, is_leaf=has_hook)


def on_validation(opt_state: PyTree, loss: float) -> PyTree:
    """Returns an optimiser state after a validation, every leaf with its sharding."""

    def put(old, new):
        return old if new is old else jax.device_put(new, old.sharding)

    updated = update_on_validation(opt_state, jnp.float32(loss))
    return jax.tree.map(put, opt_state, updated)


def eval_params(state: Any) -> PyTree:
    """Returns the parameters to evaluate: their EMA or average, where there is one.

    Args:
      state: a `training.step.TrainState`.
    """
    if jax.tree.leaves(state.ema):
        return state.ema
    opt_state = state.opt_state
    if isinstance(opt_state, AveragedState) and int(opt_state.average.count):
        return opt_state.average.mean
    return state.params
