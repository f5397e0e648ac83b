"""The loss over a vocabulary: log p(y) without an array of all logits.

A loss over a large vocabulary is where a model's memory goes. So words are taken in
blocks: forwards a running log Z (Milakov and Gimelshein 2018), backwards a block's
logits once more, whose gradients are the table's rows of the block and, added up,
the hidden states'. What a table's gradient sends between devices is sent once, since
no block meets a row of another.

Few enough logits are one block, and are kept for the backward pass.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from models.common.dtypes import Scalar, make_logits

CHUNK_LOGITS = 2**24  # logits in a block: 64 MiB of float32

LogProbAndLogZ = tuple[Float[Array, "B T"], Float[Array, "B T"]]


class VocabChunk(NamedTuple):
    """Words of a block: each n-th of the vocabulary, the first at `first`.

    Neighbours are in different blocks, so that a table spread over devices gives
    each of them a share of every block. Words that only fill a block up have the
    bias -inf and so the probability 0.
    """

    first: Int[Array, ""]
    table: Float[Array, "W D"]
    bias: Float[Array, "W"]


def split_vocab(
    table: Float[Array, "V D"], bias: Float[Array, "V"], number: int
) -> VocabChunk:
    """All blocks, side by side."""
    spare = -len(table) % number
    table = jnp.pad(table, ((0, spare), (0, 0)))
    bias = jnp.pad(bias, (0, spare), constant_values=-jnp.inf)
    return VocabChunk(
        jnp.arange(number),
        jnp.swapaxes(table.reshape(-1, number, table.shape[1]), 0, 1),
        jnp.swapaxes(bias.reshape(-1, number), 0, 1),
    )


def merge_vocab(blocks: Float[Array, "N W ..."], size: int) -> Float[Array, "V ..."]:
    """The rows of all blocks in order."""
    return jnp.swapaxes(blocks, 0, 1).reshape(-1, *blocks.shape[2:])[:size]


def num_chunks(tokens: int, words: int) -> int:
    """As few blocks as keep each within CHUNK_LOGITS."""
    return min(words, -(-tokens * words // CHUNK_LOGITS))


def blockwise_log_prob(
    hidden: Float[Array, "B T D"],
    labels: Int[Array, "B T"],
    table: Float[Array, "V D"],
    bias: Float[Array, "V"],
    smoothing: Scalar,
) -> LogProbAndLogZ:
    """Log probability of each label, see `Head.log_prob`, and log Z."""
    is_none = isinstance(smoothing, int | float) and smoothing == 0
    return _scores(hidden, labels, table, bias, None if is_none else smoothing)


@jax.custom_vjp
def _scores(hidden, labels, table, bias, smoothing):
    """Args: smoothing: None where there is none."""
    return _forward(hidden, labels, table, bias, smoothing)[0]


def _forward(hidden, labels, table, bias, smoothing):
    number = num_chunks(labels.size, len(table))
    blocks = split_vocab(table, bias, number)

    def add(found, rows):
        logits = make_logits(hidden, rows.table, rows.bias)
        largest, total, chosen = found
        new = jnp.maximum(largest, logits.max(axis=-1))
        total = total * jnp.exp(largest - new)
        total += jnp.exp(logits - new[..., None]).sum(axis=-1)
        label = jnp.take_along_axis(logits, labels[..., None] // number, axis=-1)
        chosen = jnp.where(labels % number == rows.first, label[..., 0], chosen)
        return (new, total, chosen), logits

    def only_sums(found, rows):
        return add(found, rows)[0], None

    zeros = jnp.zeros(labels.shape, logits_dtype(hidden))
    start = (zeros - jnp.inf, zeros, zeros)
    if number == 1:
        found, logits = add(start, jax.tree.map(lambda leaf: leaf[0], blocks))
    else:
        (found, _), logits = jax.lax.scan(only_sums, start, blocks), None
    largest, total, chosen = found
    log_z = largest + jnp.log(total)
    if smoothing is not None:
        mean = make_logits(hidden, table.mean(axis=0)[None], bias.mean()[None])
        chosen = (1 - smoothing) * chosen + smoothing * mean[..., 0]
    return (chosen - log_z, log_z), (
        hidden,
        labels,
        table,
        bias,
        smoothing,
        log_z,
        logits,
    )


def _backward(saved, gradients):
    hidden, labels, table, bias, smoothing, log_z, logits = saved
    smoothing = 0.0 if smoothing is None else smoothing
    by_score, by_log_z = gradients
    number = num_chunks(labels.size, len(table))
    wide = {"preferred_element_type": logits_dtype(hidden)}

    def add(by_hidden, rows, logits):
        p = jnp.exp(logits - log_z[..., None])
        word = jnp.arange(len(rows.bias)) * number + rows.first
        target = jnp.where(labels[..., None] == word, 1 - smoothing, 0)
        target += jnp.where(word < len(table), smoothing / len(table), 0)
        by_logit = by_score[..., None] * target + (by_log_z - by_score)[..., None] * p
        by_bias = by_logit.sum(axis=(0, 1))
        by_logit = by_logit.astype(hidden.dtype)
        if (
            hidden.dtype == wide["preferred_element_type"]
        ):  # see models/common/matmul.py
            by_table = jnp.einsum("BTD,BTW->DW", hidden, by_logit).T
        else:  # of which XLA's CPU client has no such product
            by_table = jnp.einsum("BTW,BTD->WD", by_logit, hidden, **wide)
        narrow = rows.table.astype(hidden.dtype)
        by_hidden += jnp.einsum("BTW,WD->BTD", by_logit, narrow, **wide)
        return by_hidden, (by_table, by_bias)

    def again(by_hidden, rows):
        return add(by_hidden, rows, make_logits(hidden, rows.table, rows.bias))

    blocks = split_vocab(table, bias, number)
    start = jnp.zeros(hidden.shape, logits_dtype(hidden))
    if number == 1:
        rows = jax.tree.map(lambda leaf: leaf[0], blocks)
        by_hidden, (by_table, by_bias) = add(start, rows, logits)
    else:
        by_hidden, found = jax.lax.scan(again, start, blocks)
        by_table, by_bias = (merge_vocab(leaf, len(table)) for leaf in found)
    return (
        by_hidden.astype(hidden.dtype),
        None,
        by_table.astype(table.dtype),
        by_bias.astype(bias.dtype),
        None,
    )


_scores.defvjp(_forward, _backward)


def logits_dtype(hidden: Float[Array, "..."]) -> jnp.dtype:
    """float32, or float64 of hidden states that are."""
    return jnp.promote_types(hidden.dtype, jnp.float32)
