"""The gradient of a batch's loss, whole or gathered part by part.

A metric is a pair (sum, weight), and what is minimised is a mean over the whole
batch. So a part's gradient counts by the whole batch's weight, not by its own:
however a batch is cut, its gradient is the same to rounding.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from training.metrics import WeightedMetrics

Loss = Callable[[PyTree, PyTree, PyTree, jax.Array], tuple[WeightedMetrics, PyTree]]
Weights = dict[str, Float[Array, ""]]


def total_loss(
    pairs: WeightedMetrics, weights: Weights | None = None
) -> Float[Array, ""]:
    """What a step minimises: the mean loss and the mean of each auxiliary one.

    Args:
      weights: of the whole batch, where the pairs are those of a part.
    """
    weights = weights or {name: weight for name, (_, weight) in pairs.items()}
    names = ["loss", *(name for name in pairs if name.startswith("auxiliary/"))]
    return sum(pairs[name][0] / jnp.maximum(weights[name], 1) for name in names)


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
    """Gradient of `total_loss`, pairs and the next carry.

    Args:
      loss: (variables, carry, batch, rng) -> (pairs, carry).
      num_microbatches: parts of the batch, one after another, which saves memory.
      axis_name: over which devices hold the batch's rows, each its own program;
        None: one program sees all of them.
    """
    if axis_name is None:
        return _gradients(
            loss, params, carry, batch, rng, num_microbatches, lambda x: x
        )
    rng = jax.random.fold_in(rng, jax.lax.axis_index(axis_name))

    def summed(tree):
        return jax.lax.psum(tree, axis_name)

    # Sums of what devices count by the weight of all rows, not means of their means.
    grads, pairs, after = _gradients(
        loss, params, carry, batch, rng, num_microbatches, summed
    )
    return summed(grads), summed(pairs), after


def _gradients(loss, params, carry, batch, rng, num_microbatches, summed):
    """Those of the rows that are here; `summed` adds weights up over devices."""

    def weights_of(pairs):
        found = {name: weight for name, (_, weight) in pairs.items()}
        return summed(jax.lax.stop_gradient(found))

    def objective(params, carry, batch, rng, weights):
        pairs, after = loss({"params": params}, carry, batch, rng)
        return total_loss(pairs, weights or weights_of(pairs)), (pairs, after)

    gradient = jax.grad(objective, has_aux=True)
    if num_microbatches == 1:
        grads, (pairs, after) = gradient(params, carry, batch, rng, None)
        return grads, pairs, after

    # No weight depends on parameters: of this pass the compiler keeps only them.
    whole, _ = loss({"params": params}, carry, batch, rng)
    weights = weights_of(whole)

    def add(sums, part):
        number, carry, batch = part
        key = jax.random.fold_in(rng, number)
        grads, (pairs, after) = gradient(params, carry, batch, key, weights)
        return jax.tree.map(jnp.add, sums, (grads, pairs)), after

    zeros = jax.tree.map(jnp.zeros_like, (params, whole))
    inputs = (
        jnp.arange(num_microbatches),
        split_microbatches(carry, num_microbatches),
        split_microbatches(batch, num_microbatches),
    )
    (grads, pairs), after = jax.lax.scan(add, zeros, inputs)
    return grads, pairs, merge_microbatches(after)


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
    """What `split_microbatches` cut."""

    def join(leaf):
        if leaf.ndim == 1:  # without rows: each part found the same
            return leaf[-1]
        return jnp.moveaxis(leaf, 0, 1).reshape(-1, *leaf.shape[2:])

    return jax.tree.map(join, tree)
