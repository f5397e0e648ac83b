"""Cross-entropy over a vocabulary in chunks that bound the stored logits.

The loss over a large vocabulary dominates the memory of a model. So words are split
into chunks: the forward pass keeps a running log Z (Milakov and Gimelshein 2018), the
backward pass recomputes the logits of each chunk. Their gradients give the table's
rows of the chunk and, summed, the gradient of the hidden states. A table's gradient is
sent between devices once, since chunks have no rows in common.

A single chunk, of few enough logits, is stored for the backward pass.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from models.common.dropout import is_zero_rate
from models.common.dtypes import Scalar
from models.common.matmul import make_logits

CHUNK_LOGITS = 2**24  # maximum; 64 MiB of float32

LogProbAndLogZ = tuple[Float[Array, "B T"], Float[Array, "B T"]]


class VocabChunk(NamedTuple):
    """Every n-th word of the vocabulary, beginning with word `first`.

    Neighbouring words are in different chunks, so that each shard of a table that is
    spread over devices holds a part of every chunk. Padding words have the bias -inf
    and so the probability 0.
    """

    first: Int[Array, ""]
    table: Float[Array, "W D"]
    bias: Float[Array, "W"]


def split_vocab(
    table: Float[Array, "V D"], bias: Float[Array, "V"], number: int
) -> VocabChunk:
    """Returns all chunks, with an axis over chunks in front."""
    padding = -len(table) % number
    table = jnp.pad(table, ((0, padding), (0, 0)))
    bias = jnp.pad(bias, (0, padding), constant_values=-jnp.inf)
    split = [x.reshape(-1, number, *x.shape[1:]) for x in (table, bias)]
    return VocabChunk(jnp.arange(number), *(jnp.swapaxes(x, 0, 1) for x in split))


def merge_vocab(chunks: Float[Array, "N W ..."], size: int) -> Float[Array, "V ..."]:
    """Returns the rows of all chunks in the order of the vocabulary."""
    return jnp.swapaxes(chunks, 0, 1).reshape(-1, *chunks.shape[2:])[:size]


def num_chunks(tokens: int, words: int) -> int:
    """Returns the smallest number of chunks within CHUNK_LOGITS each."""
    return min(words, -(-tokens * words // CHUNK_LOGITS))


def blockwise_log_prob(
    hidden: Float[Array, "B T D"],
    labels: Int[Array, "B T"],
    table: Float[Array, "V D"],
    bias: Float[Array, "V"],
    smoothing: Scalar,
) -> LogProbAndLogZ:
    """Computes the log probability of labels, see `OutputHead.log_prob`, and log Z."""
    smoothing = None if is_zero_rate(smoothing) else smoothing
    return _log_prob(hidden, labels, table, bias, smoothing)


@jax.custom_vjp
def _log_prob(hidden, labels, table, bias, smoothing):
    return _forward(hidden, labels, table, bias, smoothing)[0]


def _forward(hidden, labels, table, bias, smoothing):
    number = num_chunks(labels.size, len(table))
    chunks = split_vocab(table, bias, number)

    def add_chunk(sums, chunk):
        logits = make_logits(hidden, chunk.table, chunk.bias)
        largest, total, chosen = sums
        new = jnp.maximum(largest, logits.max(axis=-1))
        total = total * jnp.exp(largest - new)
        total += jnp.exp(logits - new[..., None]).sum(axis=-1)
        label = jnp.take_along_axis(logits, labels[..., None] // number, axis=-1)
        chosen = jnp.where(labels % number == chunk.first, label[..., 0], chosen)
        return (new, total, chosen), logits

    def add_without_logits(sums, chunk):
        return add_chunk(sums, chunk)[0], None

    zeros = jnp.zeros(labels.shape, jnp.promote_types(hidden.dtype, jnp.float32))
    sums = (zeros - jnp.inf, zeros, zeros)
    if number == 1:
        sums, logits = add_chunk(sums, jax.tree.map(lambda leaf: leaf[0], chunks))
    else:
        (sums, _), logits = jax.lax.scan(add_without_logits, sums, chunks), None
    largest, total, chosen = sums
    log_z = largest + jnp.log(total)
    if smoothing is not None:
        mean = make_logits(hidden, table.mean(axis=0)[None], bias.mean()[None])
        chosen = (1 - smoothing) * chosen + smoothing * mean[..., 0]
    saved = (hidden, labels, table, bias, smoothing, log_z, logits)
    return (chosen - log_z, log_z), saved


def _backward(saved, gradients):
    hidden, labels, table, bias, smoothing, log_z, logits = saved
    smoothing = 0.0 if smoothing is None else smoothing
    d_log_prob, d_log_z = gradients
    number = num_chunks(labels.size, len(table))
    dtype = jnp.promote_types(hidden.dtype, jnp.float32)

    def add_chunk(d_hidden, chunk, logits):
        p = jnp.exp(logits - log_z[..., None])
        word = jnp.arange(len(chunk.bias)) * number + chunk.first
        target = jnp.where(labels[..., None] == word, 1 - smoothing, 0)
        target += jnp.where(word < len(table), smoothing / len(table), 0)
        d_logits = d_log_prob[..., None] * target
        d_logits = d_logits + (d_log_z - d_log_prob)[..., None] * p
        d_bias = d_logits.sum(axis=(0, 1))
        d_logits = d_logits.astype(hidden.dtype)
        einsum = functools.partial(jnp.einsum, preferred_element_type=dtype)
        if hidden.dtype == dtype:  # the faster order, see matmul.py
            d_table = einsum("BTD,BTW->DW", hidden, d_logits).T
        else:  # XLA's CPU backend has no such product with sums in float32
            d_table = einsum("BTW,BTD->WD", d_logits, hidden)
        d_hidden += einsum("BTW,WD->BTD", d_logits, chunk.table.astype(hidden.dtype))
        return d_hidden, (d_table, d_bias)

    def recompute_chunk(d_hidden, chunk):
        return add_chunk(d_hidden, chunk, make_logits(hidden, chunk.table, chunk.bias))

    chunks = split_vocab(table, bias, number)
    d_hidden = jnp.zeros(hidden.shape, dtype)
    if number == 1:
        chunk = jax.tree.map(lambda leaf: leaf[0], chunks)
        d_hidden, (d_table, d_bias) = add_chunk(d_hidden, chunk, logits)
    else:
        d_hidden, d_chunks = jax.lax.scan(recompute_chunk, d_hidden, chunks)
        d_table, d_bias = (merge_vocab(leaf, len(table)) for leaf in d_chunks)
    d_table, d_bias = d_table.astype(table.dtype), d_bias.astype(bias.dtype)
    return d_hidden.astype(hidden.dtype), None, d_table, d_bias, None


_log_prob.defvjp(_forward, _backward)
