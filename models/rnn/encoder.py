"""Bidirectional recurrent encoder with attention of each position to all.

After Liu and Lane (2016, "Attention-Based Recurrent Neural Network Models for Joint
Intent Detection and Slot Filling"), whose tagger joins each state of a bidirectional
RNN with a context over all states.
"""

import functools

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from models import api
from models.common.dropout import Dropout, WordDropout
from models.common.layers import Embedding
from models.rnn.attention import SingleHeadAttention
from models.rnn.cells import Readout
from models.rnn.config import Config
from models.rnn.model import Bidirectional

MAX_SCORE_ENTRIES = 2**24  # of the additive score's hidden layer, computed at once


class ContextAttention(nn.Module):
    """Attention of each state over all states.

        c_t = attention(h_t; h_1 .. h_T)

    The hidden layer of the additive score is [B, T, T, A]. Above MAX_SCORE_ENTRIES
    entries it is computed for one block of queries after another, and again in the
    backward pass; with `remat`, the latter always.
    """

    config: Config

    def setup(self):
        self.alignment = SingleHeadAttention(
            self.config, query_width=2 * self.config.width
        )

    def __call__(
        self, states: Float[Array, "B T D2"], mask: Bool[Array, "B T"]
    ) -> Float[Array, "B T D2"]:
        """Returns the context of each state; `mask` is False at padding."""
        block = self._block_length(*states.shape[:2])
        is_whole = block == states.shape[1]
        attend = ContextAttention._attend
        if self.config.remat or not is_whole:
            attend = nn.remat(attend, prevent_cse=is_whole)
        keys = self.alignment.project_keys(states)
        if is_whole:
            contexts, weights = attend(self, states, keys, states, mask)
        else:
            blocks = split_blocks(states, block)
            others = keys, states, mask
            contexts, weights = self._scan_blocks(attend, blocks, *others)
        self.sow("intermediates", "attention", weights)
        return contexts

    def _scan_blocks(self, attend, blocks, keys, states, mask):
        """Attends from one block of queries after another."""

        def scan_block(module, carry, queries):
            return carry, attend(module, queries, keys, states, mask)

        scan = nn.scan(
            scan_block,
            variable_axes={"intermediates": 0},
            variable_broadcast="params",
            split_rngs={"params": False},
            in_axes=1,
            out_axes=1,
        )
        _, found = scan(self, (), blocks)
        return tuple(join_blocks(part, states.shape[1]) for part in found)

    def _attend(self, queries, keys, states, mask):
        return self.alignment(queries, keys, states, mask[:, None])

    def _block_length(self, batch_size, length):
        """Returns the number of queries of a block; all of them if they fit."""
        if self.config.score != "additive":
            return length
        if not (isinstance(batch_size, int) and isinstance(length, int)):
            return 1  # of an exported program, which is for sizes of any memory
        entries = batch_size * length * self.config.attention_width  # of one query
        return min(max(MAX_SCORE_ENTRIES // entries, 1), length)


def split_blocks(states: Float[Array, "B T D"], block: int) -> Float[Array, "B N Q D"]:
    """Splits an axis into blocks of one length; zeros fill up the last."""
    batch_size, length, width = states.shape
    padded = jnp.pad(states, ((0, 0), (0, -length % block), (0, 0)))
    return padded.reshape(batch_size, -1, block, width)


def join_blocks(blocks: Float[Array, "B N Q S"], length: int) -> Float[Array, "B T S"]:
    """Joins blocks and drops what fills up the last."""
    batch_size, count, block, width = blocks.shape
    return blocks.reshape(batch_size, count * block, width)[:, :length]


class Encoder(api.Encoder):
    """Bidirectional layers, then attention over all positions and a readout.

        h = Bidirectional(E[token] + E'[segment])
        hidden_t = readout(h_t, c_t),   c_t = attention(h_t; h_1 .. h_T)

    or, with `readout="none"`, hidden_t = h_t.
    """

    config: Config

    @property
    def hidden_width(self) -> int:
        """Width of the readout or, without one, of both directions."""
        config = self.config
        return 2 * config.width if config.readout == "none" else config.output_width

    def setup(self):
        config, init = self.config, self.config.init
        width = config.embedding_width
        self.embedding = Embedding(self.vocab_size, width, init.table)
        self.segment_embedding = Embedding(2, width, init.table, (None, "embed"))
        rate = config.rate("dropout_embedding")
        self.drop_words = WordDropout(self.vocab_size, rate)
        self.bidirectional = Bidirectional(config)
        if config.readout != "none":
            self.attention = ContextAttention(config)
            self.readout = Readout(config.readout, config.output_width, init.kernel)
        self.drop = Dropout(config.dropout)

    def __call__(
        self,
        tokens: Int[Array, "B T"],
        segment_ids: Int[Array, "B T"],
        mask: Bool[Array, "B T"],
        carry: tuple,
        *,
        train: bool,
    ) -> tuple[Float[Array, "B T D"], tuple]:
        dtype = self.config.compute_dtype
        x = self.embedding(tokens, dtype)
        x = self.drop_words(x, tokens, train=train)
        x += self.segment_embedding(segment_ids, dtype)
        states, _ = self.bidirectional(x, mask, train=train)
        drop = functools.partial(self.drop, deterministic=not train)
        if self.config.readout == "none":
            return drop(states), carry
        contexts = self.attention(states, mask)
        return drop(self.readout(drop(states), contexts)), carry
