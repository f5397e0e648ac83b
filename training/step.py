"""The one pure training step: (state, carry, batch) -> (state, carry, pairs)."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import struct
from jaxtyping import Array, Bool, Int, PyTree

from training.gradients import Loss, gradients
from training.metrics import WeightedMetrics
from training.optim.optimizers import learning_rate

Step = Callable[[Any, PyTree, PyTree], tuple[Any, PyTree, WeightedMetrics]]


@struct.dataclass
class TrainState:
    """All that training changes, but for the carry.

    Attributes:
      step: batches so far.
      ema: the exponential mean of the parameters, or () where none is kept.
    """

    step: Int[Array, ""]
    params: PyTree
    opt_state: PyTree
    ema: PyTree = ()


def make_state(
    params: PyTree, optimizer: optax.GradientTransformation, *, ema_decay: float = 0.0
) -> TrainState:
    """The state before the first step.

    Args:
      ema_decay: decay of the mean of the parameters; 0: none is kept.
    """
    mean = jax.tree.map(jnp.copy, params) if ema_decay else ()
    return TrainState(jnp.zeros((), jnp.int32), params, optimizer.init(params), mean)


def make_step(
    loss: Loss,
    optimizer: optax.GradientTransformationExtraArgs,
    schedule: optax.Schedule,
    seed: int,
    *,
    grad_accum_steps: int = 1,
    ema_decay: float = 0.0,
    axis_name: str | None = None,
) -> Step:
    """A step that minimises `total_loss` (see training/gradients.py).

    Where loss or gradient is not finite, parameters, optimiser and carry stay as
    they are, and the only metric is `nonfinite_steps`.

    Args:
      loss: (variables, carry, batch, rng) -> (pairs, carry).
      seed: random numbers of step k are fold_in(seed, k).
      grad_accum_steps: parts of a batch that are gone through one after another.
      ema_decay: decay of the mean of the parameters; 0: none is kept.
      axis_name: see `gradients`.
    """
    options = {"num_microbatches": grad_accum_steps, "axis_name": axis_name}

    def step(state, carry, batch):
        rng = jax.random.fold_in(jax.random.key(seed), state.step)
        grads, pairs, after = gradients(
            loss, state.params, carry, batch, rng, **options
        )
        norm = optax.global_norm(grads)
        updates, opt_state = optimizer.update(
            grads, state.opt_state, state.params, step=state.step
        )
        params = optax.apply_updates(state.params, updates)
        new = state.replace(params=params, opt_state=opt_state)
        if ema_decay:
            new = new.replace(ema=ema_update(state.ema, params, ema_decay))
        finite = is_finite(pairs) & jnp.isfinite(norm)
        rate = learning_rate(schedule, state.opt_state, state.step)
        once = jnp.ones(())
        pairs = {
            **pairs,
            "gradient_norm": (norm, once),
            "learning_rate": (rate, once),
        }
        pairs = tree_where(finite, pairs, jax.tree.map(jnp.zeros_like, pairs))
        pairs["nonfinite_steps"] = (1 - finite.astype(jnp.float32), once)
        new, after = tree_where(finite, (new, after), (state, carry))
        return new.replace(step=state.step + 1), after, pairs

    return step


def is_finite(pairs: WeightedMetrics) -> Bool[Array, ""]:
    """Whether every metric is a number."""
    return jnp.isfinite(jnp.stack([value for value, _ in pairs.values()])).all()


def tree_where(condition: Bool[Array, ""], new: PyTree, old: PyTree) -> PyTree:
    """`new`, or `old` where the condition does not hold."""
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), new, old)


def ema_update(mean: PyTree, params: PyTree, decay: float) -> PyTree:
    """The exponential mean after one more set of parameters."""
    return jax.tree.map(lambda m, p: decay * m + (1 - decay) * p, mean, params)
