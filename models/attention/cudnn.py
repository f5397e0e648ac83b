"""Attention by cuDNN for NVIDIA GPUs, which stores no logits.

cuDNN has neither relative positions nor dropout of weights (config validation rejects
both), computes in bfloat16, and takes even lengths only, so that odd ones are padded.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from models.attention.dot_product import AttentionInputs
from models.common.dropout import DropoutMask


def cudnn_attention(
    inputs: AttentionInputs,
    mask: Bool[Array, "#B 1 #T S"],
    dropout: DropoutMask | None = None,
) -> Float[Array, "B H T K"]:
    """Computes `xla_attention` in the precision of cuDNN.

    Raises:
      ValueError: there are relative keys or dropout.
    """
    if inputs.relative_keys is not None or dropout is not None:
        raise ValueError(
            "attention_impl='cudnn' supports neither relative positions nor dropout"
        )
    num_queries, num_keys = inputs.query.shape[2], inputs.key.shape[2]
    mask = jnp.broadcast_to(mask, (*mask.shape[:2], num_queries, num_keys))
    padding = ((0, 0), (0, 0), (0, num_queries % 2), (0, num_keys % 2))

    def pad_transposed(x):
        x = jnp.swapaxes(x, 1, 2)
        return jnp.pad(x, ((0, 0), (0, x.shape[1] % 2), (0, 0), (0, 0)))

    output = jax.nn.dot_product_attention(
        *map(pad_transposed, inputs[:3]),
        mask=jnp.pad(mask, padding),
        implementation="cudnn",
    )
    output = jnp.swapaxes(output[:, :num_queries], 1, 2)
    return jnp.where(mask.any(axis=3, keepdims=True), output, 0)
