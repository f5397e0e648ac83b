"""Optimiser state that validations update: that of NT-ASGD and of plateaus.

Such a node of an optimiser state has a method `after_validation(loss)` that returns
the next one. It is saved and resumed with the optimiser state.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree


def depends_on_validation(node: PyTree) -> bool:
    """Whether a node of an optimiser state has the method `after_validation`."""
    return hasattr(node, "after_validation")


def lr_scale(opt_state: PyTree) -> Float[Array, ""] | float:
    """Returns the factor of the learning rate (plateau.py) in a state, or else 1."""
    nodes = jax.tree.leaves(opt_state, is_leaf=depends_on_validation)
    return next((node.scale for node in nodes if hasattr(node, "scale")), 1.0)


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
    average = getattr(state.opt_state, "average", None)  # of nt_asgd.py
    return average.mean if average and int(average.count) else state.params
