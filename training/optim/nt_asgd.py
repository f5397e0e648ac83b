"""NT-ASGD (Merity et al. 2017, algorithm 1): averages that a validation triggers.

SGD runs unchanged until a validation loss v_t is worse than the best loss before the
last n validations,

    v_t > min(v_0 .. v_(t-n-1)),   t > n

From then on the parameters are averaged, and the average is evaluated. The trigger is
that of the authors' program.
"""

from typing import NamedTuple

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
