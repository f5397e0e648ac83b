"""Transformer-XL (Dai et al. 2019, "Attentive Language Models Beyond a
Fixed-Length DecodeContext").

As a LanguageModel it is the paper's: relative attention over the segment and a
memory of the segments before. As a Seq2Seq, which the paper does not have, both
encoder and decoder attend relatively, the decoder also to the encoder's output
by ordinary multi-head attention; each side remembers the sentences before when
`memory_length` is not 0.

As in the authors' code: u and v are shared between layers unless `untie_biases`;
embeddings are scaled by sqrt(D); dropout also meets the position encodings and
the last layer's output. Deviation: with `norm="pre"` there is one more
normalisation after the last layer, unless `final_norm` is off.
"""

import dataclasses
from typing import ClassVar

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from models.attention.kv_cache import DecodeState, PrefixCache, empty_prefix
from models.attention.positions import ABSOLUTE_SCHEMES
from models.common.layers import Initializer, normal
from models.common.masks import (
    NO_WINDOW,
    causal_mask,
    sliding_window_mask,
    valid_memory_mask,
)
from models.transformer.config import StackConfig
from models.transformer.decoder_only import DecoderOnly
from models.transformer.encoder_decoder import EncodedSource, EncoderDecoder
from models.transformer.memory import (
    KVMemory,
    Memory,
    Seq2SeqMemory,
    init_kv_memory,
    init_memory,
    update_memory,
)
from utils.errors import UserError

INIT = normal(0.02)


@dataclasses.dataclass(frozen=True)
class Config(StackConfig):
    """The keys of `cfg.model`; `configs/base.py` says what each means."""

    memory_length: int
    same_length: bool
    attend_empty_memory: bool

    attention_bias: ClassVar[bool] = False
    output_dropout: ClassVar[bool] = True

    def __post_init__(self):
        super().__post_init__()
        if self.position_encoding in ABSOLUTE_SCHEMES and self.memory_length:
            raise ValueError(
                f"model.memory_length={self.memory_length}: places counted from the "
                "start of a segment (model.position_encoding="
                f"{self.position_encoding!r}) mean nothing in a memory; set it to 0"
            )

    @property
    def kernel_init(self) -> Initializer:
        """As in the authors' scripts."""
        return INIT

    @property
    def embedding_init(self) -> Initializer:
        """The same."""
        return INIT


Carry = Memory | KVMemory | tuple[()]


def size_of(carry: Carry) -> int:
    """M."""
    return carry.length if carry else 0


class LanguageModel(DecoderOnly):
    """The paper's model; see the contract in README.md."""

    config: Config

    def initial_carry(
        self,
        batch_size: int,
        *,
        train: bool,
        memory_length: int | None = None,
        segment_length: int | None = None,
    ) -> Carry:
        """An empty memory of `memory_length` slots; () where it has none.

        With a `segment_length` one for evaluation: it holds keys and values, for
        one set of parameters, and takes segments of at most so many tokens.
        """
        config = self.config
        length = config.memory_length if memory_length is None else memory_length
        if not length:
            return ()
        dtype = config.compute_dtype
        if train or segment_length is None or self._starts_with_keys:
            return init_memory(batch_size, length, config.layers, config.width, dtype)
        head = (config.heads, config.resolved_head_dim)
        return init_kv_memory(
            batch_size, length, segment_length, config.layers, *head, dtype
        )

    @property
    def _starts_with_keys(self) -> bool:
        """Whether an empty memory has keys that only the parameters know."""
        config = self.config
        return config.attend_empty_memory and config.norm == "pre"

    def __call__(
        self,
        tokens: Int[Array, "B T"],
        carry: Carry,
        *,
        train: bool,
    ) -> tuple[Float[Array, "B T D"], Carry]:
        """Hidden states of a segment, each of its memory and what stands before."""
        if isinstance(carry, KVMemory):
            return self._stream(tokens, carry)
        rows, length = tokens.shape
        attention_context = self.stack.attention_context(
            self._mask(carry, length, size_of(carry) + length), length, train=train
        )
        x = self.embed(tokens, attention_context.positions)
        hidden = carry.hidden if carry else None
        x, inputs, _ = self.stack(x, attention_context, memory=hidden, train=train)
        if not carry:
            return x, carry
        return x, update_memory(carry, inputs, jnp.full(rows, length, jnp.int32))

    def _mask(self, carry, length, slots):
        """Who sees whom of as many slots, of which a segment takes the last."""
        mask = causal_mask(length, slots)
        mask &= sliding_window_mask(length, slots, self.window(carry))
        if not carry:
            return mask
        return mask & valid_memory_mask(self._filled(carry) + length, slots)

    def _stream(self, tokens, carry):
        """A segment of an evaluation; its keys and values take the oldest slots."""
        length, slots = tokens.shape[1], carry.num_slots
        if slots < carry.length + length:
            raise ValueError(
                f"a segment of {length} tokens after a memory made for "
                f"{slots - carry.length}; see segment_length of initial_carry"
            )
        mask = self._mask(carry, length, slots)
        attention_context = self.stack.attention_context(
            mask, length, first=carry.num_written, train=False
        )
        x = self.embed(tokens, attention_context.positions)
        x, kept = self.stack.read_segment(
            x, carry, attention_context, self._precomputed(slots)
        )
        return x, carry.append(kept, length)

    def initial_eval_carry(self, batch_size: int, segment_length: int) -> Carry:
        """A memory of keys and values."""
        return self.initial_carry(
            batch_size, train=False, segment_length=segment_length
        )

    def precompute(self, carry: Carry) -> dict:
        """The projected distances of all slots, the same for every segment."""
        if not isinstance(carry, KVMemory):
            return {}
        distances = self.stack.project_relative_positions(carry.num_slots - 1)
        return {"precomputed": {"relative_keys": distances}}

    def _precomputed(self, slots):
        found = self.get_variable("precomputed", "relative_keys")
        if found is None or found[0] is None or len(found[0]) != slots:
            return None
        return found

    def window(self, carry: Carry) -> int:
        """M with `same_length`: each query then sees the same number of keys."""
        return size_of(carry) if self.config.same_length and carry else NO_WINDOW

    def _filled(self, carry):
        """How many slots are seen: of an empty memory all, where it is attended."""
        if self.config.attend_empty_memory:
            return jnp.full_like(carry.valid_length, carry.length)
        return carry.valid_length

    def past(self, carry: Carry, rows: int) -> PrefixCache:
        """The memory's keys and values, oldest first."""
        config = self.config
        if not carry:
            head = (config.heads, config.resolved_head_dim)
            return empty_prefix(rows, config.layers, *head, config.compute_dtype)
        if isinstance(carry, KVMemory):
            kept, end = carry.unroll(), carry.num_written
        else:
            kept, end = self.stack.project_memory(carry.hidden), carry.length
        seen = valid_memory_mask(self._filled(carry), carry.length)[:, 0]
        return PrefixCache(kept, seen, jnp.broadcast_to(jnp.asarray(end), (rows,)))


class Seq2Seq(EncoderDecoder):
    """Encoder-decoder with relative attention; see the contract in README.md.

    Its memories are hidden states in evaluation too, since sentences of a batch
    differ in length and so do the slots that they fill.

    Raises UserError for what only a text's memory can be asked for.
    """

    config: Config

    def __post_init__(self):
        for key in ("same_length", "attend_empty_memory"):
            if getattr(self.config, key):
                raise UserError(
                    f"{key}=True (of model or eval) is for language models; in "
                    "translation all that is remembered is seen, and nothing else"
                )
        super().__post_init__()

    def initial_carry(
        self, batch_size: int, *, train: bool, memory_length: int | None = None
    ) -> Seq2SeqMemory | tuple:
        """Two empty memories; () where the memory has no slots."""
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
        """Hidden states of the target, each of the source and what stands before."""
        memories = carry or Seq2SeqMemory(None, None)
        encoded, source_inputs = self.encode(
            source, source_mask, memories.encoder, train=train
        )
        x, target_inputs = self.decode(
            encoded, source_mask, target_in, target_mask, memories.decoder, train=train
        )
        if not carry:
            return x, carry
        lengths = [m.sum(axis=1, dtype=jnp.int32) for m in (source_mask, target_mask)]
        encoder = update_memory(carry.encoder, source_inputs, lengths[0])
        decoder = update_memory(carry.decoder, target_inputs, lengths[1])
        return x, Seq2SeqMemory(encoder, decoder)

    def start(
        self,
        source: Int[Array, "B S"],
        source_mask: Bool[Array, "B S"],
        carry: Seq2SeqMemory | tuple,
        *,
        max_steps: int = 256,
    ) -> tuple[EncodedSource, DecodeState]:
        """Encodes a sentence; its translation may have `max_steps` tokens."""
        if not carry:
            return self.begin(source, source_mask, None, None, max_steps)
        memory = carry.decoder
        past = PrefixCache(
            self.decoder.project_memory(memory.hidden),
            valid_memory_mask(memory.valid_length, memory.length)[:, 0],
            jnp.full(len(source), memory.length),
        )
        return self.begin(source, source_mask, carry.encoder, past, max_steps)
