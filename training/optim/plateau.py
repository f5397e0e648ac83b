"""Reduction of the learning rate after validations without improvement.

`optax.contrib.reduce_on_plateau` is not used because its factor cannot be traced, and
trials that train under vmap may differ in it.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float, Int


class Plateau(NamedTuple):
    """State of the reduction and its constants."""

    scale: Float[Array, ""]  # current factor of the learning rate, 1 at first
    best: Float[Array, ""]  # lowest validation loss; inf before the first
    num_bad_evals: Int[Array, ""]  # validations since the best one or a reduction
    factor: Float[Array, ""]  # of `scale` at a reduction
    patience: Int[Array, ""]  # validations without improvement before a reduction
    min_scale: Float[Array, ""]  # lower bound of `scale`

    @classmethod
    def create(cls, factor: float, patience: int, min_scale: float) -> "Plateau":
        """Returns the state before the first validation."""
        return cls(
            scale=jnp.ones(()),
            best=jnp.full((), jnp.inf, jnp.float32),
            num_bad_evals=jnp.zeros((), jnp.int32),
            factor=jnp.asarray(factor, jnp.float32),
            patience=jnp.asarray(patience, jnp.int32),
            min_scale=jnp.asarray(min_scale, jnp.float32),
        )

    def after_validation(self, loss: Float[Array, ""]) -> "Plateau":
        """Returns the next state; NaN and an equal loss do not improve."""
        is_better = loss < self.best
        num_bad_evals = jnp.where(is_better, 0, self.num_bad_evals + 1)
        is_over = num_bad_evals >= self.patience
        reduced = jnp.maximum(self.scale * self.factor, self.min_scale)
        return self._replace(
            scale=jnp.where(is_over, reduced, self.scale),
            best=jnp.where(is_better, loss, self.best),
            num_bad_evals=jnp.where(is_over, 0, num_bad_evals),
        )
