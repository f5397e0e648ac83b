"""Norms of parameters, gradients and updates by group of parameters (`every.watch`).

A group is a layer, such as "encoder/layers_0", or a module outside of layers, such as
"embedding". The numbers of a step are computed from its inputs, by a program that
repeats the step without changing anything.
"""

import re
from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PyTree

from training.gradients import Loss, gradients
from training.optim.param_groups import named_leaves
from training.step import TrainState, apply_gradients

Numbers = dict[str, Float[Array, ""]]

NUMBERED = re.compile(r"_\d+$")  # "layers_0", "cells_1"
MAX_DEPTH = 2  # of a group outside of layers


def group_name(modules: list[str]) -> str:
    """Returns the group of a module's path: its layer, or its first two modules."""
    for depth, module in enumerate(modules, start=1):
        if NUMBERED.search(module):
            return "/".join(modules[:depth])
    return "/".join(modules[:MAX_DEPTH])


def group_norms(tree: PyTree) -> Numbers:
    """Returns the L2 norm of each group of a tree of parameters, in float32."""
    squares: Numbers = {}
    for name, leaf in named_leaves(tree).items():
        group = group_name(name.split("/")[:-1])
        total = jnp.square(leaf.astype(jnp.float32)).sum()
        squares[group] = squares.get(group, jnp.zeros(())) + total
    return {group: jnp.sqrt(total) for group, total in squares.items()}


def make_norms(
    loss: Loss,
    optimizer: optax.GradientTransformationExtraArgs,
    seed: int,
    *,
    grad_accum_steps: int = 1,
    axis_name: str | None = None,
) -> Callable[[TrainState, PyTree, PyTree], Numbers]:
    """Returns (state, carry, batch) -> norms that the step of these inputs has.

    They are `<kind>_norm/<group>` of the kinds parameter, gradient (before clipping)
    and update, and `update_ratio/<group>`, the norm of the update over that of the
    parameters.

    Args: those of `training.step.make_step`.
    """
    options = {"num_microbatches": grad_accum_steps, "axis_name": axis_name}

    def norms(state, carry, batch):
        rng = jax.random.fold_in(jax.random.key(seed), state.step)
        grads, _, _ = gradients(loss, state.params, carry, batch, rng, **options)
        new = apply_gradients(state, grads, optimizer, 0.0)
        update = jax.tree.map(jnp.subtract, new.params, state.params)
        kinds = {"parameter": state.params, "gradient": grads, "update": update}
        by_kind = {kind: group_norms(tree) for kind, tree in kinds.items()}
        numbers = {
            f"{kind}_norm/{group}": norm
            for kind, groups in by_kind.items()
            for group, norm in groups.items()
        }
        for group, norm in by_kind["update"].items():
            parameter_norm = by_kind["parameter"][group]
            ratio = jnp.where(parameter_norm > 0, norm / parameter_norm, 0)
            numbers[f"update_ratio/{group}"] = ratio
        return numbers

    return norms
