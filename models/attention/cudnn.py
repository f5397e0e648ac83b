"""Attention by cuDNN for NVIDIA GPUs, which stores no logits.

cuDNN has neither relative positions nor dropout of weights (config validation rejects
both), computes in bfloat16, and takes even lengths only, so that odd ones are padded.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from models.attention.dot_product import AttentionInputs
from models.common.dropout import Keys
from models.common.dtypes import Scalar


def cudnn_attention(
    inputs: AttentionInputs,
    value: Float[Array, "B H S K"],
    mask: Bool[Array, "#B 1 #T S"],
    dropout_keys: Keys | None,
    dropout_rate: Scalar,
) -> Float[Array, "B H T K"]:
    """Computes `xla_attention` in the precision of cuDNN.

    Raises:
      ValueError: there are relative keys or dropout.
    """
    if inputs.relative_keys is not None or dropout_keys is not None:
        raise ValueError(
            "attention_impl='cudnn' supports neither relative positions nor dropout"
        )
    num_queries, num_keys = inputs.query.shape[2], value.shape[2]
    mask = jnp.broadcast_to(mask, (*mask.shape[:2], num_queries, num_keys))
    query_padding, key_padding = num_queries % 2, num_keys % 2
    padded_mask = jnp.pad(mask, ((0, 0), (0, 0), (0, query_padding), (0, key_padding)))

    def pad_transposed(x, padding):
        x = jnp.swapaxes(x, 1, 2)
        return jnp.pad(x, ((0, 0), (0, padding), (0, 0), (0, 0)))

    output = jax.nn.dot_product_attention(
        pad_transposed(inputs.query, query_padding),
        pad_transposed(inputs.key, key_padding),
        pad_transposed(value, key_padding),
        mask=padded_mask,
        implementation="cudnn",
    )
    output = jnp.swapaxes(output[:, :num_queries], 1, 2)
    return jnp.where(mask.any(axis=3, keepdims=True), output, 0)
