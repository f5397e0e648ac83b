"""Optimiser state that validations update: NT-ASGD and learning-rate plateaus.

NT-ASGD (Merity et al. 2017, algorithm 1): SGD runs unchanged until a validation loss
v_t is worse than the best loss before the last n validations,

    v_t > min(v_0 .. v_(t-n-1)),   t > n

From then on the parameters are averaged, and the average is evaluated. The trigger is
that of the authors' program.

Plateau: the learning rate is reduced after validations without improvement.
`optax.contrib.reduce_on_plateau` is not used because its factor cannot be traced, and
trials that train under vmap may differ in it.

The state is part of the optimiser state, so it is saved and resumed with it.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int, PyTree


class Average(NamedTuple):
    """Average of the parameters since the trigger."""

    mean: PyTree  # like the parameters; zeros while `count` is 0
    count: Int[Array, ""]  # number of steps in the mean
    is_triggered: Bool[Array, ""]
    recent: Float[Array, "N"]  # the last n losses, oldest first; inf before n
    best: Float[Array, ""]  # lowest validation loss older than these

    def after_step(self, params: PyTree) -> "Average":
        """Adds the parameters after a step to the mean, once triggered."""
        count = self.count + self.is_triggered

        def move(mean, value):
            moved = mean + (value - mean) / jnp.maximum(count, 1)
            return jnp.where(self.is_triggered, moved, mean)

        mean = jax.tree.map(move, self.mean, params)
        return self._replace(mean=mean, count=count)

    def after_validation(self, loss: Float[Array, ""]) -> "Average":
        """Starts averaging if the loss meets the condition; NaN counts as inf."""
        loss = jnp.where(jnp.isnan(loss), jnp.inf, loss)
        return self._replace(
            is_triggered=self.is_triggered | (loss > self.best),
            recent=jnp.roll(self.recent, -1).at[-1].set(loss),
            best=jnp.minimum(self.best, self.recent[0]),
        )


class AveragedState(NamedTuple):
    """State of an optimiser and the average of its parameters."""

    inner: PyTree
    average: Average


def with_averaging(
    optimizer: optax.GradientTransformationExtraArgs, interval: int
) -> optax.GradientTransformationExtraArgs:
    """Averages the parameters that an optimiser produces, frozen ones included.

    Args:
      interval: n, validations without improvement before the trigger.
    """

    def init(params):
        average = Average(
            mean=jax.tree.map(jnp.zeros_like, params),
            count=jnp.zeros((), jnp.int32),
            is_triggered=jnp.zeros((), bool),
            recent=jnp.full(interval, jnp.inf, jnp.float32),
            best=jnp.full((), jnp.inf, jnp.float32),
        )
        return AveragedState(optimizer.init(params), average)

    def update(updates, state, params, **extra_args):
        updates, inner = optimizer.update(updates, state.inner, params, **extra_args)
        params = optax.apply_updates(params, updates)
        return updates, AveragedState(inner, state.average.after_step(params))

    return optax.GradientTransformationExtraArgs(init, update)


class Plateau(NamedTuple):
    """State of the reduction and its constants."""

    scale: Float[Array, ""]  # current factor of the learning rate, 1 at first
    best: Float[Array, ""]  # lowest validation loss; inf before the first
    num_bad_evals: Int[Array, ""]  # validations since the best one or a reduction
    factor: Float[Array, ""]  # of `scale` at a reduction
    patience: Int[Array, ""]  # validations without improvement before a reduction
    min_scale: Float[Array, ""]  # lower bound of `scale`

    @classmethod
    def create(cls, factor: float, patience: int, min_scale: float) -> "Plateau":
        """Returns the state before the first validation."""
        return cls(
            scale=jnp.ones(()),
            best=jnp.full((), jnp.inf, jnp.float32),
            num_bad_evals=jnp.zeros((), jnp.int32),
            factor=jnp.asarray(factor, jnp.float32),
            patience=jnp.asarray(patience, jnp.int32),
            min_scale=jnp.asarray(min_scale, jnp.float32),
        )

    def after_validation(self, loss: Float[Array, ""]) -> "Plateau":
        """Returns the next state; NaN and an equal loss do not improve."""
        is_better = loss < self.best
        num_bad_evals = jnp.where(is_better, 0, self.num_bad_evals + 1)
        is_over = num_bad_evals >= self.patience
        reduced = jnp.maximum(self.scale * self.factor, self.min_scale)
        return self._replace(
            scale=jnp.where(is_over, reduced, self.scale),
            best=jnp.where(is_better, loss, self.best),
            num_bad_evals=jnp.where(is_over, 0, num_bad_evals),
        )


def lr_scale(opt_state: PyTree) -> Float[Array, ""] | float:
    """Returns the factor of the learning rate in an optimiser state; 1 without one."""
    nodes = jax.tree.leaves(opt_state, is_leaf=lambda node: isinstance(node, Plateau))
    return next((node.scale for node in nodes if isinstance(node, Plateau)), 1.0)


def depends_on_validation(node: PyTree) -> bool:
    """Whether a node of an optimiser state has the method `after_validation`."""
    return isinstance(node, Average | Plateau)


def update_on_validation(opt_state: PyTree, loss: Float[Array, ""]) -> PyTree:
    """Updates all nodes of an optimiser state that depend on validation losses."""

    def update(node):
        return node.after_validation(loss) if depends_on_validation(node) else node

    return jax.tree.map(update, opt_state, is_leaf=depends_on_validation)


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
