"""Gradient of a batch's loss, computed at once or by microbatches.

A metric is a pair (sum, weight), and the loss is a mean over the whole batch. So the
gradient of a microbatch is divided by the weight of the whole batch: however a batch
is split, its gradient is the same up to rounding.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from training.metrics import WeightedMetrics

Loss = Callable[[PyTree, PyTree, PyTree, jax.Array], tuple[WeightedMetrics, PyTree]]
Weights = dict[str, Float[Array, ""]]


def total_loss(
    metrics: WeightedMetrics, weights: Weights | None = None
) -> Float[Array, ""]:
    """Returns the minimized loss: the mean loss plus each mean auxiliary loss.

    A mean divides by the weight, or by 1 where the weight is less.

    Args:
      weights: those of the whole batch, where the metrics are of a microbatch.
    """
    weights = weights or {name: weight for name, (_, weight) in metrics.items()}
    names = ["loss", *(name for name in metrics if name.startswith("auxiliary/"))]
    return sum(metrics[name][0] / jnp.maximum(weights[name], 1) for name in names)


def gradients(
    loss: Loss,
    params: PyTree,
    carry: PyTree,
    batch: PyTree,
    rng,
    *,
    num_microbatches: int = 1,
    axis_name: str | None = None,
) -> tuple[PyTree, WeightedMetrics, PyTree]:
    """Returns the gradient of `total_loss`, the metrics and the next carry.

    Args:
      loss: (variables, carry, batch, rng) -> (metrics, carry).
      num_microbatches: parts of the batch, one after another, which saves memory.
      axis_name: mapped axis over which each device has its own rows of the batch;
        None: the program sees all rows.
    """
    inputs = loss, params, carry, batch
    if axis_name is None:
        return _gradients(*inputs, rng, num_microbatches, lambda tree: tree)
    rng = jax.random.fold_in(rng, jax.lax.axis_index(axis_name))

    def psum(tree):
        return jax.lax.psum(tree, axis_name)

    # Sums of all devices by the weight of all rows, not a mean of their means.
    grads, metrics, new_carry = _gradients(*inputs, rng, num_microbatches, psum)
    return psum(grads), psum(metrics), new_carry


def _gradients(loss, params, carry, batch, rng, num_microbatches, psum):
    """Computes `gradients` of local rows; `psum` adds weights over devices."""

    def total_weights(metrics):
        weights = {name: weight for name, (_, weight) in metrics.items()}
        return psum(jax.lax.stop_gradient(weights))

    def objective(params, carry, batch, rng, weights):
        metrics, new_carry = loss({"params": params}, carry, batch, rng)
        weights = weights or total_weights(metrics)
        return total_loss(metrics, weights), (metrics, new_carry)

    gradient = jax.grad(objective, has_aux=True)
    if num_microbatches == 1:
        grads, (metrics, new_carry) = gradient(params, carry, batch, rng, None)
        return grads, metrics, new_carry

    # No weight depends on parameters: of this pass the compiler keeps only them.
    whole, _ = loss({"params": params}, carry, batch, rng)
    weights = total_weights(whole)

    def add(sums, microbatch):
        index, carry, batch = microbatch
        key = jax.random.fold_in(rng, index)
        grads, (metrics, new_carry) = gradient(params, carry, batch, key, weights)
        return jax.tree.map(jnp.add, sums, (grads, metrics)), new_carry

    zeros = jax.tree.map(jnp.zeros_like, (params, whole))
    microbatches = (
        jnp.arange(num_microbatches),
        split_microbatches(carry, num_microbatches),
        split_microbatches(batch, num_microbatches),
    )
    (grads, metrics), new_carry = jax.lax.scan(add, zeros, microbatches)
    return grads, metrics, merge_microbatches(new_carry)


def split_microbatches(tree: PyTree, num_microbatches: int) -> PyTree:
    """Splits leaves [B, ...] into [N, B / N, ...] for N microbatches.

    Microbatch i has the rows i, i + N, ..., so that every device, which holds
    consecutive rows, has its share of each. Leaves without rows are repeated.
    """

    def split(leaf):
        if not jnp.ndim(leaf):
            return jnp.broadcast_to(leaf, num_microbatches)
        rows = leaf.reshape(-1, num_microbatches, *leaf.shape[1:])
        return jnp.moveaxis(rows, 1, 0)

    return jax.tree.map(split, tree)


def merge_microbatches(tree: PyTree) -> PyTree:
    """Joins microbatches again, the inverse of `split_microbatches`."""

    def merge(leaf):
        if leaf.ndim == 1:  # without rows: the same in each microbatch
            return leaf[-1]
        return jnp.moveaxis(leaf, 0, 1).reshape(-1, *leaf.shape[2:])

    return jax.tree.map(merge, tree)
