"""Transformer-XL (Dai et al. 2019, "Attentive Language Models Beyond a
Fixed-Length Context").

`LanguageModel` is the paper's model: relative attention over a segment and a memory
of earlier segments. `Seq2Seq`, which the paper does not have, is the Transformer's
encoder-decoder with relative self-attention; with `memory_length` above 0 each side
has a memory of earlier sentences.

As in the authors' code: u and v are shared between layers unless `untie_biases`;
embeddings are scaled by sqrt(D); dropout also applies to the position encodings and
the last layer's output. Deviation: with `norm="pre"` there is one more
normalisation after the last layer, unless `final_norm` is off.
"""

import dataclasses
from typing import ClassVar

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from models.attention.kv_cache import DecodeState, PrefixCache
from models.attention.positions import ABSOLUTE_SCHEMES
from models.common.layers import Initializer, normal
from models.common.masks import (
    NO_WINDOW,
    causal_mask,
    sliding_window_mask,
    valid_memory_mask,
)
from models.transformer.config import StackConfig
from models.transformer.memory import (
    KVMemory,
    Memory,
    Seq2SeqMemory,
    init_kv_memory,
    init_memory,
    update_memory,
)
from models.transformer.model import EncodedSource
from models.transformer.model import LanguageModel as TransformerLM
from models.transformer.model import Seq2Seq as TransformerSeq2Seq
from utils.errors import UserError

INIT = normal(0.02)  # of the authors' scripts


@dataclasses.dataclass(frozen=True)
class Config(StackConfig):
    """Keys of `cfg.model`; `configs/base.py` explains each."""

    memory_length: int
    same_length: bool
    attend_empty_memory: bool

    attention_bias: ClassVar[bool] = False
    output_dropout: ClassVar[bool] = True

    def __post_init__(self):
        super().__post_init__()
        if self.position_encoding in ABSOLUTE_SCHEMES and self.memory_length:
            raise ValueError(
                f"model.memory_length={self.memory_length} needs relative positions: "
                f"model.position_encoding={self.position_encoding!r} counts from the "
                "start of each segment; set memory_length to 0"
            )

    @property
    def kernel_init(self) -> Initializer:
        """Initializer of linear maps."""
        return INIT

    @property
    def embedding_init(self) -> Initializer:
        """Initializer of token embeddings."""
        return INIT


Carry = Memory | KVMemory | tuple[()]


class LanguageModel(TransformerLM):
    """Language model with segment recurrence (Dai et al. 2019, section 3.2).

    The carry is a `Memory` of layer inputs in training and a `KVMemory` of keys and
    values in evaluation; () without memory.
    """

    config: Config

    def initial_carry(
        self,
        batch_size: int,
        *,
        train: bool,
        memory_length: int | None = None,
        segment_length: int | None = None,
    ) -> Carry:
        """Returns an empty memory; () if it has no slots.

        Args:
          memory_length: number of slots; None: as configured.
          segment_length: maximum length of the segments of an evaluation, which
            gives a `KVMemory`; None: a `Memory`.
        """
        config = self.config
        length = config.memory_length if memory_length is None else memory_length
        if not length:
            return ()
        dtype = config.compute_dtype
        # Keys of an empty memory are those of LayerNorm(0), which parameters define.
        has_initial_keys = config.attend_empty_memory and config.norm == "pre"
        if train or segment_length is None or has_initial_keys:
            return init_memory(batch_size, length, config.layers, config.width, dtype)
        head = (config.heads, config.resolved_head_dim)
        return init_kv_memory(
            batch_size, length, segment_length, config.layers, *head, dtype
        )

    def initial_eval_carry(self, batch_size: int, segment_length: int) -> Carry:
        """Returns an empty memory for the segments of an evaluation."""
        return self.initial_carry(
            batch_size, train=False, segment_length=segment_length
        )

    def __call__(
        self, tokens: Int[Array, "B T"], carry: Carry, *, train: bool
    ) -> tuple[Float[Array, "B T D"], Carry]:
        """Computes hidden states of a segment and the next memory."""
        if isinstance(carry, KVMemory):
            return self._read_segment(tokens, carry)
        batch_size, length = tokens.shape
        mask = self._attention_mask(carry, length, num_slots(carry) + length)
        attention_context = self.stack.attention_context(mask, length, train=train)
        x = self.embed(tokens, attention_context.positions)
        memory = carry.hidden if carry else None
        x, inputs, _ = self.stack(x, attention_context, memory=memory, train=train)
        if not carry:
            return x, carry
        num_new = jnp.full(batch_size, length, jnp.int32)
        return x, update_memory(carry, inputs, num_new)

    def _read_segment(self, tokens, memory: KVMemory):
        """Reads a segment of an evaluation into the ring buffer."""
        length, slots = tokens.shape[1], memory.num_slots
        if slots < memory.length + length:
            raise ValueError(
                f"a segment of {length} tokens exceeds segment_length="
                f"{slots - memory.length} of initial_carry"
            )
        attention_context = self.stack.attention_context(
            self._attention_mask(memory, length, slots),
            length,
            first_position=memory.next_position,
            train=False,
        )
        x = self.embed(tokens, attention_context.positions)
        relative_keys = self._precomputed_relative_keys(slots)
        x, kv = self.stack.read_segment(x, memory, attention_context, relative_keys)
        return x, memory.append(kv, length)

    def precompute(self, carry: Carry) -> dict:
        """Projects the relative positions of all slots, once for all segments."""
        if not isinstance(carry, KVMemory):
            return {}
        relative_keys = self.stack.project_relative_positions(carry.num_slots - 1)
        return {"precomputed": {"relative_keys": relative_keys}}

    def _precomputed_relative_keys(self, slots):
        keys = self.get_variable("precomputed", "relative_keys")
        if keys is None or keys[0] is None or len(keys[0]) != slots:
            return None
        return keys

    def _attention_mask(self, carry, length, slots):
        """Returns the mask of T queries over memory and segment."""
        mask = causal_mask(length, slots)
        mask &= sliding_window_mask(length, slots, self.window(carry))
        if not carry:
            return mask
        return mask & valid_memory_mask(self._valid_length(carry) + length, slots)

    def window(self, carry: Carry) -> int:
        """Returns M with `same_length`: all queries attend to as many keys."""
        return num_slots(carry) if self.config.same_length and carry else NO_WINDOW

    def _valid_length(self, carry):
        """Returns the number of slots that are attended to, [B]."""
        if self.config.attend_empty_memory:
            return jnp.full_like(carry.valid_length, carry.length)
        return carry.valid_length

    def prefix_cache(self, carry: Carry, batch_size: int) -> PrefixCache:
        """Returns the memory's keys and values, oldest first."""
        if not carry:
            return super().prefix_cache(carry, batch_size)
        if isinstance(carry, KVMemory):
            kv, end = carry.unroll(), carry.next_position
        else:
            kv, end = self.stack.project_memory(carry.hidden), carry.length
        valid = valid_memory_mask(self._valid_length(carry), carry.length)[:, 0]
        next_position = jnp.broadcast_to(jnp.asarray(end), (batch_size,))
        return PrefixCache(kv, valid, next_position)


def num_slots(carry: Carry) -> int:
    """Returns the memory length (M); 0 without memory."""
    return carry.length if carry else 0


class Seq2Seq(TransformerSeq2Seq):
    """Encoder-decoder with relative self-attention and memories of both sides.

    The memories hold layer inputs in evaluation too, because the sentences of a
    batch differ in length and so in the slots that they occupy.

    Raises UserError for `same_length` and `attend_empty_memory`.
    """

    config: Config

    def __post_init__(self):
        for key in ("same_length", "attend_empty_memory"):
            if getattr(self.config, key):
                raise UserError(
                    f"{key}=True (of model or eval) is for language models; set it "
                    "to False: translation attends to the valid part of its memory"
                )
        super().__post_init__()

    def initial_carry(
        self, batch_size: int, *, train: bool, memory_length: int | None = None
    ) -> Seq2SeqMemory | tuple:
        """Returns two empty memories; () if they have no slots."""
        config = self.config
        length = config.memory_length if memory_length is None else memory_length
        if not length:
            return ()
        size = (config.layers, config.width)
        empty = init_memory(batch_size, length, *size, config.compute_dtype)
        return Seq2SeqMemory(empty, empty)

    def __call__(
        self,
        source: Int[Array, "B S"],
        source_mask: Bool[Array, "B S"],
        target_in: Int[Array, "B T"],
        target_mask: Bool[Array, "B T"],
        carry: Seq2SeqMemory | tuple,
        *,
        train: bool,
    ) -> tuple[Float[Array, "B T D"], Seq2SeqMemory | tuple]:
        """Computes hidden states of the target and the next memories."""
        memory = carry or Seq2SeqMemory(None, None)
        encoded, source_inputs = self.encode(
            source, source_mask, memory.encoder, train=train
        )
        x, target_inputs = self.decode(
            encoded, source_mask, target_in, target_mask, memory.decoder, train=train
        )
        if not carry:
            return x, carry
        source_length = source_mask.sum(axis=1, dtype=jnp.int32)
        target_length = target_mask.sum(axis=1, dtype=jnp.int32)
        encoder = update_memory(carry.encoder, source_inputs, source_length)
        decoder = update_memory(carry.decoder, target_inputs, target_length)
        return x, Seq2SeqMemory(encoder, decoder)

    def start(
        self,
        source: Int[Array, "B S"],
        source_mask: Bool[Array, "B S"],
        carry: Seq2SeqMemory | tuple,
        *,
        max_steps: int = 256,
    ) -> tuple[EncodedSource, DecodeState]:
        """Encodes a source sentence after the memories.

        Args:
          max_steps: maximum number of tokens in the translation.
        """
        if not carry:
            return super().start(source, source_mask, carry, max_steps=max_steps)
        memory = carry.decoder
        prefix = PrefixCache(
            self.decoder.project_memory(memory.hidden),
            valid_memory_mask(memory.valid_length, memory.length)[:, 0],
            jnp.full(len(source), memory.length),
        )
        return self.start_after(source, source_mask, carry.encoder, prefix, max_steps)
