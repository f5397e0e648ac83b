"""Norms and histograms of parameters, gradients and updates (`every.watch`).

They are by group of parameters: a layer, such as "encoder/layers_0", or a module
outside of layers, such as "embedding". The numbers of a step are computed from its
inputs, by a program that repeats the step without changing anything.
"""

import re
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, PyTree

from training.gradients import Loss, gradients
from training.optim.param_groups import named_leaves
from training.step import TrainState, apply_gradients, step_key

Numbers = dict[str, Float[Array, ""]]

NUMBERED = re.compile(r"_\d+$")  # "layers_0", "cells_1"
MAX_DEPTH = 2  # of a group outside of layers
BUCKETS = 30  # of a histogram, as TensorBoard draws it


class Histogram(NamedTuple):
    """Counts in BUCKETS buckets of one width between the extremes."""

    counts: Int[Array, "N"]
    smallest: Float[Array, ""]
    largest: Float[Array, ""]
    total: Float[Array, ""]
    total_of_squares: Float[Array, ""]


def group_name(modules: list[str]) -> str:
    """Returns the group of a module's path: its layer, or its first two modules."""
    for depth, module in enumerate(modules, start=1):
        if NUMBERED.search(module):
            return "/".join(modules[:depth])
    return "/".join(modules[:MAX_DEPTH])


def group_leaves(tree: PyTree) -> dict[str, list[Float[Array, "..."]]]:
    """Returns the leaves of a tree of parameters by group, in float32."""
    groups: dict[str, list] = {}
    for name, leaf in named_leaves(tree).items():
        group = group_name(name.split("/")[:-1])
        groups.setdefault(group, []).append(leaf.astype(jnp.float32))
    return groups


def histogram(leaves: list[Float[Array, "..."]]) -> Histogram:
    """Returns the histogram of all entries of some arrays."""
    smallest = jnp.stack([leaf.min() for leaf in leaves]).min()
    largest = jnp.stack([leaf.max() for leaf in leaves]).max()
    inner_limits = jnp.linspace(smallest, largest, BUCKETS + 1)[1:-1]
    # Sums of comparisons, not a scatter, are fast and sharded on every device.
    below = sum(
        (leaf[..., None] < inner_limits).sum(axis=range(leaf.ndim)) for leaf in leaves
    )
    size = sum(leaf.size for leaf in leaves)
    total = sum(leaf.sum() for leaf in leaves)
    squares = sum(jnp.square(leaf).sum() for leaf in leaves)
    counts = jnp.diff(below, prepend=0, append=size)
    return Histogram(counts, smallest, largest, total, squares)


def make_norms(
    optimizer: optax.GradientTransformationExtraArgs,
) -> Callable[[TrainState, PyTree], tuple[Numbers, dict[str, Histogram]]]:
    """Returns (state, gradients) -> norms and histograms of the step.

    Norms are `<kind>_norm/<group>` of the kinds parameter, gradient (before clipping)
    and update, and `update_ratio/<group>`, the norm of the update over that of the
    parameters. Histograms are `<kind>/<group>`.
    """

    def norms(state, grads):
        new = apply_gradients(state, grads, optimizer, 0.0)
        update = jax.tree.map(jnp.subtract, new.params, state.params)
        trees = {"parameter": state.params, "gradient": grads, "update": update}
        numbers, histograms = {}, {}
        for kind, tree in trees.items():
            for group, leaves in group_leaves(tree).items():
                found = histogram(leaves)
                histograms[f"{kind}/{group}"] = found
                numbers[f"{kind}_norm/{group}"] = jnp.sqrt(found.total_of_squares)
        for group in group_leaves(update):
            norm = numbers[f"parameter_norm/{group}"]
            ratio = numbers[f"update_norm/{group}"] / norm
            numbers[f"update_ratio/{group}"] = jnp.where(norm > 0, ratio, 0)
        return numbers, histograms

    return norms


def make_watch_program(
    loss: Loss,
    optimizer: optax.GradientTransformationExtraArgs,
    activation_statistics: Callable[[PyTree, PyTree, PyTree, jax.Array], Numbers],
    seed: int,
    *,
    grad_accum_steps: int = 1,
    axis_name: str | None = None,
) -> Callable[[TrainState, PyTree, PyTree], tuple[Numbers, dict[str, Histogram]]]:
    """Returns (state, carry, batch) -> numbers and histograms of the step.

    Args:
      activation_statistics: (params, carry, batch, rng) -> numbers.
      loss, optimizer, seed, grad_accum_steps, axis_name: those of
        `training.step.make_step`.
    """
    options = {"num_microbatches": grad_accum_steps, "axis_name": axis_name}
    norms = make_norms(optimizer)

    def program(state, carry, batch):
        rng = step_key(seed, state.step)
        grads, _, _ = gradients(loss, state.params, carry, batch, rng, **options)
        numbers, histograms = norms(state, grads)
        numbers |= activation_statistics(state.params, carry, batch, rng)
        return numbers, histograms

    return program
