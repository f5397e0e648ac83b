"""Scaled dot-product attention, with the logits of relative positions.

`dot_product_attention` is written as in the papers and returns the attention weights.
`xla_attention` computes the same output with a custom VJP and is the default for
training.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from models.attention.relative import relative_shift
from models.common.dropout import DropoutMask, apply_dropout_mask
from models.common.dtypes import upcast_to_f32
from models.common.masks import masked_softmax
from models.common.matmul import kv_gradient, qk_logits, relative_logits


class AttentionInputs(NamedTuple):
    """Queries, keys and values of attention, with keys of relative positions.

    Attributes:
      query, key: queries of the content and keys, not yet scaled.
      position_query: queries of the relative positions; None without these.
      relative_keys: one key for each relative position, see `relative_shift`.
    """

    query: Float[Array, "B H T K"]
    key: Float[Array, "B H S K"]
    value: Float[Array, "B H S K"]
    position_query: Float[Array, "B H T K"] | None = None
    relative_keys: Float[Array, "C H K"] | None = None


def dot_product_attention(
    inputs: AttentionInputs,
    mask: Bool[Array, "#B 1 #T S"],
    dropout: DropoutMask | None = None,
    ring_start: Int[Array, ""] | None = None,
) -> tuple[Float[Array, "B H T K"], Float[Array, "B H T S"]]:
    """Computes dot-product attention (Vaswani et al. 2017, section 3.2.1).

        A = (Q K^T + shift(P R^T)) / sqrt(d_k)     (Dai et al. 2019, appendix B)
        output = dropout(softmax(A)) V

    A query whose mask is False everywhere gets zeros.

    Returns the output and the attention weights before dropout.
    """
    logits = attention_logits(inputs, ring_start) * inputs.value.shape[-1] ** -0.5
    weights = masked_softmax(logits, mask)
    dropped = _drop(weights, dropout)
    return jnp.einsum("BHTS,BHSK->BHTK", dropped, inputs.value), weights


def attention_logits(
    inputs: AttentionInputs, ring_start: Int[Array, ""] | None = None
) -> Float[Array, "B H T S"]:
    """Computes unscaled logits, Q K^T plus those of the relative positions.

    Args:
      ring_start: slot of the oldest key of a ring buffer; None: slots are in order.
    """
    query, key, _, position_query, relative_keys = inputs
    logits = qk_logits(query, key)
    if relative_keys is None:
        return logits
    relative = jnp.swapaxes(relative_logits(position_query, relative_keys), 0, 1)
    relative = relative_shift(relative, key.shape[2])
    if ring_start is not None:
        relative = jnp.roll(relative, ring_start, axis=-1)
    return logits + relative


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def xla_attention(
    inputs: AttentionInputs,
    mask: Bool[Array, "#B 1 #T S"],
    dropout: DropoutMask | None = None,
    num_queries: int | None = None,
) -> Float[Array, "B H T K"]:
    """Computes the output of `dot_product_attention` with less memory and time.

    The backward pass reads one array of the logits' size, the unnormalised weights e;
    outputs are divided by their sum l, not weights (Milakov and Gimelshein 2018; Dao
    et al. 2022). With the output's gradient g:

        e_j = exp(a_j - max a),   l = sum_j e_j,   output = sum_j e_j v_j / l
        da_j = e_j / l * (g . v_j - g . output)

    Args:
      dropout: mask of the weights, offset to the first of these T queries.
      num_queries: number of all queries of which these are a part; None: T.
    """
    return _forward(inputs, mask, dropout, num_queries)[0]


def _forward(inputs, mask, dropout, num_queries):
    value = inputs.value
    logits, pull = jax.vjp(attention_logits, inputs)
    exps, total = masked_exp(upcast_to_f32(logits * value.shape[-1] ** -0.5), mask)
    exps = exps.astype(value.dtype)
    dropped = _drop(exps, dropout, num_queries)
    output = jnp.einsum("BHTS,BHSK->BHTK", dropped, value)
    output = output * _inverse(total).astype(value.dtype)
    return output, (pull, exps, total, value, output, dropout)


def _backward(num_queries, saved, gradient):
    pull, exps, total, value, output, dropout = saved
    gradient = gradient * _inverse(total).astype(value.dtype)
    dropped = _drop(exps, dropout, num_queries)
    d_value = kv_gradient(gradient, dropped)
    d_exps = jnp.einsum("BHTK,BHSK->BHTS", gradient, value)
    d_exps = upcast_to_f32(_drop(d_exps, dropout, num_queries))
    mean = upcast_to_f32(gradient * output).sum(axis=-1, keepdims=True)
    d_logits = exps * (d_exps - mean) * value.shape[-1] ** -0.5
    (d_inputs,) = pull(d_logits.astype(value.dtype))
    return d_inputs._replace(value=d_value), None, None


xla_attention.defvjp(_forward, _backward)


def masked_exp(
    logits: Float[Array, "B H T S"], mask: Bool[Array, "#B 1 #T S"]
) -> tuple[Float[Array, "B H T S"], Float[Array, "B H T 1"]]:
    """Computes the unnormalised weights e of scaled logits and their sums l."""
    logits = jnp.where(mask, logits, jnp.finfo(logits.dtype).min)
    largest = logits.max(axis=-1, keepdims=True)
    exps = jnp.where(mask, jnp.exp(logits - largest), 0)
    return exps, exps.sum(axis=-1, keepdims=True)


def _drop(weights, dropout, num_queries=None):
    if dropout is None:
        return weights
    batch_size, heads, size, num_keys = weights.shape
    whole = (batch_size, heads, num_queries or size, num_keys)
    return apply_dropout_mask(weights, dropout, weights.shape, whole)


def _inverse(total):
    return jnp.where(total == 0, 0, 1 / total)
