"""When NT-ASGD begins to average the parameters, and the average.

Non-monotonically triggered averaged SGD (Merity et al. 2017, "Regularizing and
Optimizing LSTM Language Models", algorithm 1, judged as in the authors' program): SGD
goes on as it is; once a validation loss v_t is worse than the best of those older than
the last n,

    v_t > min(v_0 .. v_(t-n-1)),   t > n

the parameters of every later step are averaged, and the average is the model.
All of it is a part of the optimiser's state, so that it is saved and resumed with
the rest. `observe` tells of validations, and tells the learning rate too where it
waits for a plateau.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int, PyTree

from training.optim.plateau import Plateau, judged


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
        recent=jnp.full(interval, jnp.inf, jnp.float32),
        best=jnp.full((), jnp.inf, jnp.float32),
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
    optimizer: optax.GradientTransformationExtraArgs, interval: int
) -> optax.GradientTransformationExtraArgs:
    """The same updates, their results averaged once `observe` says so.

    All parameters are in the average, those that never change too: it is a model.
    """

    def init(params):
        return AveragedState(optimizer.init(params), first_average(params, interval))

    def update(grads, state, params, **others):
        updates, inner = optimizer.update(grads, state.inner, params, **others)
        params = optax.apply_updates(params, updates)
        return updates, AveragedState(inner, accumulate(state.average, params))

    return optax.GradientTransformationExtraArgs(init, update)


def triggered(average: Average, loss: Float[Array, ""]) -> Average:
    """After a validation: begins to average if it is time; nan counts as inf."""
    loss = jnp.where(jnp.isnan(loss), jnp.inf, loss)
    return average._replace(
        begun=average.begun | (loss > average.best),
        recent=jnp.roll(average.recent, -1).at[-1].set(loss),
        best=jnp.minimum(average.best, average.recent[0]),
    )


LISTENERS = {Average: triggered, Plateau: judged}


def told(opt_state: PyTree, loss: Float[Array, ""]) -> PyTree:
    """After a validation: what waits for one hears of it, wherever it is nested.

    A pure function, for many runs at once.
    """

    def is_listener(node):
        return type(node) in LISTENERS

    def tell(node):
        return LISTENERS[type(node)](node, loss) if is_listener(node) else node

    return jax.tree.map(tell, opt_state, is_leaf=is_listener)


def observe(opt_state: PyTree, loss: float) -> PyTree:
    """The state of an optimiser after a validation; that of most stays what it is.

    Every leaf stays where it lies, so that a compiled step takes it.
    """

    def place(old, new):
        return old if new is old else jax.device_put(new, old.sharding)

    return jax.tree.map(place, opt_state, told(opt_state, jnp.float32(loss)))


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
