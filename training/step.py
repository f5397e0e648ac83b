"""The training step, a pure function of state, carry and batch."""

import functools
import operator
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import struct
from jaxtyping import Array, Bool, Int, PRNGKeyArray, PyTree

from training.gradients import Loss, gradients
from training.metrics import WeightedMetrics
from training.optim.optimizers import learning_rate
from utils.hash_keys import as_hash_key

Step = Callable[[Any, PyTree, PyTree], tuple[Any, PyTree, WeightedMetrics]]


@struct.dataclass
class TrainState:
    """Everything that training changes, except the carry.

    Attributes:
      step: number of batches so far.
      ema: exponential moving average of the parameters, or () without one.
    """

    step: Int[Array, ""]
    params: PyTree
    opt_state: PyTree
    ema: PyTree = ()


def make_state(
    params: PyTree, optimizer: optax.GradientTransformation, *, ema_decay: float = 0.0
) -> TrainState:
    """Returns the state before the first step; without an average for decay 0."""
    ema = jax.tree.map(jnp.copy, params) if ema_decay else ()
    return TrainState(jnp.zeros((), jnp.int32), params, optimizer.init(params), ema)


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
    """Returns a step that minimizes `total_loss` (training/gradients.py).

    Where loss, gradient, or what it would make of the state or the carry is not
    finite, parameters, optimizer state and carry stay as they are, and every metric
    but `nonfinite_steps` has weight 0.

    Args:
      loss: (variables, carry, batch, rng) -> (metrics, carry).
      seed: of the random keys, see `step_key`.
      grad_accum_steps: number of microbatches of a batch.
      ema_decay: decay of the average of the parameters; 0: there is none.
      axis_name: see `gradients`.
    """
    options = {"num_microbatches": grad_accum_steps, "axis_name": axis_name}

    def step(state, carry, batch):
        rng = step_key(seed, state.step)
        grads, metrics, new_carry = gradients(
            loss, state.params, carry, batch, rng, **options
        )
        grad_norm = optax.global_norm(grads)
        new = apply_gradients(state, grads, optimizer, ema_decay)
        sums = jnp.stack([value for value, _ in metrics.values()])
        changed = changed_leaves((new, new_carry), (state, carry))
        finite = is_finite((sums, grad_norm, changed))
        if axis_name is not None:  # devices have different rows of the carry
            finite = jax.lax.pmin(finite.astype(jnp.int32), axis_name) > 0
        new, new_carry = tree_where(finite, (new, new_carry), (state, carry))
        rate = learning_rate(schedule, state.opt_state, state.step)
        one = jnp.ones(())
        metrics |= {"gradient_norm": (grad_norm, one), "learning_rate": (rate, one)}
        metrics = tree_where(finite, metrics, jax.tree.map(jnp.zeros_like, metrics))
        metrics["nonfinite_steps"] = (1 - finite.astype(jnp.float32), one)
        return new.replace(step=state.step + 1), new_carry, metrics

    return step


def step_key(seed: int, step: int | Int[Array, ""]) -> PRNGKeyArray:
    """Returns the random key of a step, counted from 0."""
    return as_hash_key(jax.random.fold_in(jax.random.key(seed), step))


def apply_gradients(
    state: TrainState,
    grads: PyTree,
    optimizer: optax.GradientTransformationExtraArgs,
    ema_decay: float,
) -> TrainState:
    """Returns the state after an update, with the number of its step unchanged."""
    updates, opt_state = optimizer.update(
        grads, state.opt_state, state.params, step=state.step
    )
    params = optax.apply_updates(state.params, updates)
    # So that XLA computes them once, both to check them and to keep them.
    params = jax.lax.optimization_barrier(params)
    ema = ema_update(state.ema, params, ema_decay) if ema_decay else state.ema
    return state.replace(params=params, opt_state=opt_state, ema=ema)


def is_finite(tree: PyTree) -> Bool[Array, ""]:
    """Returns whether every number of a tree is finite.

    Leaves of a role, such as all query kernels with their moments, are checked
    together: they have one sharding, and a program of fewer parts compiles sooner.
    """
    roles: dict[tuple, list[Array]] = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        role = jax.tree_util.keystr(path[-2:]), jnp.shape(leaf)
        roles.setdefault(role, []).append(jnp.isfinite(leaf))
    if not roles:
        return jnp.ones((), bool)
    flags = [functools.reduce(operator.and_, leaves).all() for leaves in roles.values()]
    # Without a barrier XLA repeats this reduction in each kernel that reads its result.
    return jax.lax.optimization_barrier(jnp.stack(flags)).all()


def changed_leaves(new: PyTree, old: PyTree) -> PyTree:
    """Returns the leaves of `new` that are not the same objects as in `old`.

    A leaf that no step changes may be inf: a lowest validation loss, before any.
    """
    return jax.tree.map(lambda leaf, before: None if leaf is before else leaf, new, old)


def tree_where(condition: Bool[Array, ""], new: PyTree, old: PyTree) -> PyTree:
    """Returns `new` where the condition holds, otherwise `old`."""
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), new, old)


def ema_update(ema: PyTree, params: PyTree, decay: float) -> PyTree:
    """Returns the moving average after one more set of parameters."""
    return jax.tree.map(lambda e, p: decay * e + (1 - decay) * p, ema, params)
