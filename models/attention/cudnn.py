"""Attention by cuDNN, NVIDIA's library: no scores in memory, but a mask of all heads.

It has neither distances nor dropout of weights (a config with
either is refused), computes in bfloat16, and takes even lengths alone, so that odd
ones are filled up.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from models.attention.dot_product import AttentionInputs
from models.common.dropout import Keys
from models.common.dtypes import Scalar


def cudnn_attention(
    inputs: AttentionInputs,
    values: Float[Array, "B H S Dh"],
    mask: Bool[Array, "#B 1 #T S"],
    dropout_keys: Keys | None,
    dropout: Scalar,
) -> Float[Array, "B H T Dh"]:
    """What `attended` finds, in cuDNN's precision.

    Raises ValueError for distances and for dropout.
    """
    if inputs.relative_keys is not None or dropout_keys is not None:
        raise ValueError("cuDNN has neither distances nor dropout of weights")
    num_queries, num_keys = inputs.query.shape[2], values.shape[2]
    mask = jnp.broadcast_to(mask, (*mask.shape[:2], num_queries, num_keys))
    more_queries, more_keys = num_queries % 2, num_keys % 2
    filled = jnp.pad(mask, ((0, 0), (0, 0), (0, more_queries), (0, more_keys)))

    def turned(x, more):
        return jnp.pad(jnp.swapaxes(x, 1, 2), ((0, 0), (0, more), (0, 0), (0, 0)))

    found = jax.nn.dot_product_attention(
        turned(inputs.query, more_queries),
        turned(inputs.key, more_keys),
        turned(values, more_keys),
        mask=filled,
        implementation="cudnn",
    )
    found = jnp.swapaxes(found[:, :num_queries], 1, 2)
    return jnp.where(mask.any(axis=3, keepdims=True), found, 0)
