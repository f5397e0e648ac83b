"""Parameters as a model computes with them, where no gradient is wanted."""

import jax
import jax.numpy as jnp
from jaxtyping import PyTree


def cast_params(model, variables: PyTree) -> PyTree:
    """Matrices in the model's type, once and before the loop over tokens.

    The model casts them where it uses them, so that nothing else changes. Gains and
    biases of one axis stay as they are: some are used in float32.
    """
    dtype = model.config.compute_dtype

    def cast(leaf):
        is_matrix = leaf.ndim > 1 and jnp.issubdtype(leaf.dtype, jnp.floating)
        return leaf.astype(dtype) if is_matrix else leaf

    return jax.tree.map(cast, variables)
