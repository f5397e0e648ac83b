"""Learning-rate reduction at a plateau of the validation loss.

The state is part of the optimiser state, so it is saved and resumed with it;
`nt_asgd.on_validation` updates it. `optax.contrib.reduce_on_plateau` is not used
because its factor cannot be traced, and several trials that train under vmap may differ
in it.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PyTree


class Plateau(NamedTuple):
    """State of the reduction and its constants.

    Attributes:
      scale: current factor of the learning rate, 1 at first.
      best: lowest validation loss; inf before the first validation.
      num_bad_evals: validations since the best one or since the last reduction.
      factor: factor of `scale` at a reduction.
      patience: validations without improvement before a reduction.
      min_scale: lower bound of `scale`.
    """

    scale: Float[Array, ""]
    best: Float[Array, ""]
    num_bad_evals: Int[Array, ""]
    factor: Float[Array, ""]
    patience: Int[Array, ""]
    min_scale: Float[Array, ""]


def init_plateau(factor: float, patience: int, min_scale: float = 0.0) -> Plateau:
    """Returns the state before the first validation."""
    return Plateau(
        scale=jnp.ones(()),
        best=jnp.full((), jnp.inf, jnp.float32),
        num_bad_evals=jnp.zeros((), jnp.int32),
        factor=jnp.asarray(factor, jnp.float32),
        patience=jnp.asarray(patience, jnp.int32),
        min_scale=jnp.asarray(min_scale, jnp.float32),
    )


def update_plateau(plateau: Plateau, loss: Float[Array, ""]) -> Plateau:
    """Returns the state after a validation; NaN and an equal loss do not improve."""
    is_better = loss < plateau.best
    num_bad_evals = jnp.where(is_better, 0, plateau.num_bad_evals + 1)
    is_over = num_bad_evals >= plateau.patience
    reduced = jnp.maximum(plateau.scale * plateau.factor, plateau.min_scale)
    return plateau._replace(
        scale=jnp.where(is_over, reduced, plateau.scale),
        best=jnp.where(is_better, loss, plateau.best),
        num_bad_evals=jnp.where(is_over, 0, num_bad_evals),
    )


def lr_scale(opt_state: PyTree) -> Float[Array, ""] | float:
    """Returns the factor of the learning rate in an optimiser state; 1 without one."""
    nodes = jax.tree.leaves(opt_state, is_leaf=_is_plateau)
    scales = [node.scale for node in nodes if _is_plateau(node)]
    return scales[0] if scales else 1.0


def _is_plateau(node: PyTree) -> bool:
    return isinstance(node, Plateau)
