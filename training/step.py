"""The one pure training step: (state, carry, batch) -> (state, carry, pairs)."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import struct
from jaxtyping import Array, Float, Int, PyTree

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


def total_loss(pairs: Pairs) -> Float[Array, ""]:
    """What a step minimises: the mean loss and the mean of each auxiliary one."""
    names = [name for name in pairs if name.startswith("auxiliary/")]
    means = [
        total / jnp.maximum(weight, 1)
        for total, weight in (pairs[name] for name in ("loss", *names))
    ]
    return sum(means)


def make_step(
    loss: Loss,
    optimizer: optax.GradientTransformation,
    schedule: optax.Schedule,
    seed: int,
) -> Step:
    """A step that minimises `total_loss`.

    Args:
      loss: (variables, carry, batch, rng) -> (pairs, carry).
      seed: random numbers of step k are fold_in(seed, k).
    """

    def step(state, carry, batch):
        rng = jax.random.fold_in(jax.random.key(seed), state.step)

        def objective(params):
            pairs, after = loss({"params": params}, carry, batch, rng)
            return total_loss(pairs), (pairs, after)

        gradient = jax.grad(objective, has_aux=True)
        grads, (pairs, after) = gradient(state.params)
        updates, opt_state = optimizer.update(
            grads, state.opt_state, state.params, step=state.step
        )
        once = jnp.ones(())
        pairs = {
            **pairs,
            "gradient_norm": (optax.global_norm(grads), once),
            "learning_rate": (jnp.asarray(schedule(state.step)), once),
        }
        params = optax.apply_updates(state.params, updates)
        return TrainState(state.step + 1, params, opt_state), after, pairs

    return step
