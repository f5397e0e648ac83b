"""The one pure training step: (state, carry, batch) -> (state, carry, pairs)."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import struct
from jaxtyping import Array, Int, PyTree

from training.metrics import Pairs

Loss = Callable[[PyTree, PyTree, PyTree, jax.Array], tuple[Pairs, PyTree]]
Step = Callable[[Any, PyTree, PyTree], tuple[Any, PyTree, Pairs]]


@struct.dataclass
class TrainState:
    """All that training changes, but for the carry.

    Attributes:
      step: updates so far.
    """

    step: Int[Array, ""]
    params: PyTree
    opt_state: PyTree


def make_state(params: PyTree, optimizer: optax.GradientTransformation) -> TrainState:
    """The state before the first step."""
    return TrainState(jnp.zeros((), jnp.int32), params, optimizer.init(params))


def make_step(
    loss: Loss,
    optimizer: optax.GradientTransformation,
    schedule: optax.Schedule,
    seed: int,
) -> Step:
    """A step that minimises `pairs["loss"]`, sum / weight.

    Args:
      loss: (variables, carry, batch, rng) -> (pairs, carry).
      seed: random numbers of step k are fold_in(seed, k).
    """

    def step(state, carry, batch):
        rng = jax.random.fold_in(jax.random.key(seed), state.step)

        def objective(params):
            pairs, after = loss({"params": params}, carry, batch, rng)
            total, weight = pairs["loss"]
            return total / jnp.maximum(weight, 1), (pairs, after)

        gradient = jax.grad(objective, has_aux=True)
        grads, (pairs, after) = gradient(state.params)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        once = jnp.ones(())
        pairs = {
            **pairs,
            "gradient_norm": (optax.global_norm(grads), once),
            "learning_rate": (jnp.asarray(schedule(state.step)), once),
        }
        params = optax.apply_updates(state.params, updates)
        return TrainState(state.step + 1, params, opt_state), after, pairs

    return step
