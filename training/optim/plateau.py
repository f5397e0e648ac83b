"""A learning rate that falls when validations no longer get better.

Its state is a part of the optimiser's state, so that it is saved and resumed with
the rest; `averaging.observe` tells it of every validation.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PyTree


class Plateau(NamedTuple):
    """What is known of validations so far, and what is made of it.

    Attributes:
      factor: of the learning rate, 1 at first.
      best: the lowest loss; inf before the first validation.
      waited: validations since the best, or since the factor last fell.
      cut: what the factor is multiplied by.
      patience: so many validations without a better one lower the factor.
      least: below which the factor never falls.
    """

    factor: Float[Array, ""]
    best: Float[Array, ""]
    waited: Int[Array, ""]
    cut: Float[Array, ""]
    patience: Int[Array, ""]
    least: Float[Array, ""]


def first_plateau(cut: float, patience: int, least: float = 0.0) -> Plateau:
    """Nothing validated."""
    return Plateau(
        factor=jnp.ones(()),
        best=jnp.full((), jnp.inf, jnp.float32),
        waited=jnp.zeros((), jnp.int32),
        cut=jnp.asarray(cut, jnp.float32),
        patience=jnp.asarray(patience, jnp.int32),
        least=jnp.asarray(least, jnp.float32),
    )


def judged(plateau: Plateau, loss: Float[Array, ""]) -> Plateau:
    """After a validation; nan and what equals the best are not better."""
    better = loss < plateau.best
    waited = jnp.where(better, 0, plateau.waited + 1)
    over = waited >= plateau.patience
    lower = jnp.maximum(plateau.factor * plateau.cut, plateau.least)
    return plateau._replace(
        factor=jnp.where(over, lower, plateau.factor),
        best=jnp.where(better, loss, plateau.best),
        waited=jnp.where(over, 0, waited),
    )


def rate_factor(opt_state: PyTree) -> Float[Array, ""] | float:
    """What validations have made of the learning rate; 1 without a plateau."""
    nodes = jax.tree.leaves(opt_state, is_leaf=_is_plateau)
    factors = [node.factor for node in nodes if _is_plateau(node)]
    return factors[0] if factors else 1.0


def _is_plateau(node: PyTree) -> bool:
    return isinstance(node, Plateau)
