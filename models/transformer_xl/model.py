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
from jaxtyping import Array, Float, Int

from models.attention.kv_cache import PrefixCache
from models.attention.positions import ABSOLUTE_SCHEMES
from models.common.layers import Initializer, normal
from models.common.masks import (
    NO_WINDOW,
    causal_mask,
    sliding_window_mask,
    valid_memory_mask,
)
from models.transformer import model as transformer
from models.transformer_xl.memory import (
    KVMemory,
    Memory,
    Seq2SeqMemory,
    init_kv_memory,
    init_memory,
)
from utils.errors import UserError

INIT = normal(0.02)  # of the authors' scripts


@dataclasses.dataclass(frozen=True)
class Config(transformer.Config):
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

    embedding_init = kernel_init


Carry = Memory | KVMemory | tuple[()]


class LanguageModel(transformer.LanguageModel):
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
        # Keys of an empty memory are those of LayerNorm(0), which parameters define.
        has_initial_keys = config.attend_empty_memory and config.norm == "pre"
        if train or segment_length is None or has_initial_keys:
            return init_memory(config, batch_size, length)
        return init_kv_memory(config, batch_size, length, segment_length)

    def initial_eval_carry(self, batch_size: int, segment_length: int) -> Carry:
        return self.initial_carry(
            batch_size, train=False, segment_length=segment_length
        )

    def __call__(
        self, tokens: Int[Array, "B T"], carry: Carry, *, train: bool
    ) -> tuple[Float[Array, "B T D"], Carry]:
        if isinstance(carry, KVMemory):
            return self._read_segment(tokens, carry)
        length = tokens.shape[1]
        slots = (carry.length if carry else 0) + length
        mask = self._attention_mask(carry, length, slots)
        context = self.stack.attention_context(mask, length, train=train)
        x = self.embed(tokens, context.positions)
        past = carry.hidden if carry else None
        x, inputs, _ = self.stack(x, context, past=past, train=train)
        if carry:
            carry = carry.append(inputs, jnp.full(len(tokens), length, jnp.int32))
        return x, carry

    def _read_segment(self, tokens, memory: KVMemory):
        """Reads a segment of an evaluation into the ring buffer."""
        length, slots = tokens.shape[1], memory.num_slots
        if slots < memory.length + length:
            raise ValueError(
                f"a segment of {length} tokens exceeds segment_length="
                f"{slots - memory.length} of initial_carry"
            )
        mask, position = (
            self._attention_mask(memory, length, slots),
            memory.next_position,
        )
        context = self.stack.attention_context(
            mask, length, first_position=position, train=False
        )
        context = context._replace(ring_position=position)
        x = self.embed(tokens, context.positions)
        keys = self.get_variable("precomputed", "relative_keys")
        if keys and keys[0] is not None and len(keys[0]) != slots:
            keys = None
        x, _, kv = self.stack(
            x, context, past=memory.kv, relative_keys=keys, train=False
        )
        return x, memory.append(kv, length)

    def precompute(self, carry: Carry) -> dict:
        """Projects the relative positions of all slots, once for all segments."""
        if not isinstance(carry, KVMemory):
            return {}
        relative_keys = self.stack.project_relative_positions(carry.num_slots - 1)
        return {"precomputed": {"relative_keys": relative_keys}}

    def _attention_mask(self, carry, length, slots):
        """Returns the mask of T queries over memory and segment."""
        mask = causal_mask(length, slots)
        mask &= sliding_window_mask(length, slots, self.window(carry))
        if not carry:
            return mask
        valid_length = carry.valid_length
        if self.config.attend_empty_memory:
            valid_length = jnp.full_like(valid_length, carry.length)
        return mask & valid_memory_mask(valid_length + length, slots)

    def window(self, carry: Carry) -> int:
        """Returns M with `same_length`: all queries attend to as many keys."""
        return carry.length if self.config.same_length and carry else NO_WINDOW

    def prefix_cache(self, carry: Carry, batch_size: int) -> PrefixCache:
        if isinstance(carry, KVMemory):
            valid = valid_memory_mask(carry.valid_length, carry.length)[:, 0]
            next_position = jnp.broadcast_to(carry.next_position, (batch_size,))
            prefix = PrefixCache(carry.unroll(), valid, next_position)
        else:
            prefix = super().prefix_cache(carry, batch_size)
        if self.config.attend_empty_memory:
            prefix = prefix._replace(valid=jnp.ones_like(prefix.valid))
        return prefix


class Seq2Seq(transformer.Seq2Seq):
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
        config = self.config
        length = config.memory_length if memory_length is None else memory_length
        if not length:
            return ()
        empty = init_memory(config, batch_size, length)
        return Seq2SeqMemory(empty, empty)
