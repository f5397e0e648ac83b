"""When NT-ASGD begins to average the parameters, and the average.

Non-monotonically triggered averaged SGD (Merity et al. 2017, "Regularizing and
Optimizing LSTM Language Models", algorithm 1): SGD goes on as it is; once a
validation loss v_t is worse than the best of those older than the last n,

    v_t > min(v_0 .. v_(t-n-1)),   t > n

the parameters of every later step are averaged, and the average is the model.
All of it is a part of the optimiser's state, so that it is saved and resumed with
the rest.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int, PyTree


class Average(NamedTuple):
    """The mean of the parameters since averaging began.

    Attributes:
      mean: like the parameters; zeros while `count` is 0.
      count: how many steps are in it.
      begun: whether steps are averaged.
      recent: the last n validation losses, oldest first; inf where none was.
      best: the lowest of the older ones.
    """

    mean: PyTree
    count: Int[Array, ""]
    begun: Bool[Array, ""]
    recent: Float[Array, "N"]
    best: Float[Array, ""]


def first_average(params: PyTree, interval: int) -> Average:
    """Nothing averaged and nothing validated.

    Args:
      interval: n, the validations that may pass without a better one.
    """
    return Average(
        mean=jax.tree.map(jnp.zeros_like, params),
        count=jnp.zeros((), jnp.int32),
        begun=jnp.zeros((), bool),
        recent=jnp.full(interval, jnp.inf),
        best=jnp.full((), jnp.inf),
    )


def accumulate(average: Average, params: PyTree) -> Average:
    """After a step: its parameters enter the mean, once averaging has begun."""
    count = average.count + average.begun

    def move(mean, value):
        moved = mean + (value - mean) / jnp.maximum(count, 1)
        return jnp.where(average.begun, moved, mean)

    mean = jax.tree.map(move, average.mean, params)
    return average._replace(mean=mean, count=count)


class AveragedState(NamedTuple):
    """The state of an optimiser and the average of what it makes."""

    inner: PyTree
    average: Average


def averaged(
    optimizer: optax.GradientTransformation, interval: int
) -> optax.GradientTransformation:
    """The same updates, their results averaged once `observe` says so."""

    def init(params):
        return AveragedState(optimizer.init(params), first_average(params, interval))

    def update(grads, state, params):
        updates, inner = optimizer.update(grads, state.inner, params)
        params = optax.apply_updates(params, updates)
        return updates, AveragedState(inner, accumulate(state.average, params))

    return optax.GradientTransformation(init, update)


def observe(opt_state: PyTree, loss: float) -> PyTree:
    """After a validation: begins to average if it is time; nan counts as inf.

    The states of other optimisers stay what they are. Every leaf stays where it
    lies, so that a compiled step takes it.
    """
    if not isinstance(opt_state, AveragedState):
        return opt_state
    old = opt_state.average
    loss = jnp.nan_to_num(jnp.float32(loss), nan=jnp.inf, posinf=jnp.inf)
    new = old._replace(
        begun=old.begun | (loss > old.best),
        recent=jnp.roll(old.recent, -1).at[-1].set(loss),
        best=jnp.minimum(old.best, old.recent[0]),
    )
    places = jax.tree.map(lambda leaf: leaf.sharding, old)
    return opt_state._replace(average=jax.device_put(new, places))


def evaluation_params(state: Any) -> PyTree:
    """What a model is judged and used by: the mean, where there is one.

    Args:
      state: a `TrainState`.
    """
    if jax.tree.leaves(state.ema):
        return state.ema
    opt_state = state.opt_state
    if isinstance(opt_state, AveragedState) and int(opt_state.average.count):
        return opt_state.average.mean
    return state.params
