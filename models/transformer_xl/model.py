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
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Float, Int, PyTree

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


# --- Memories: layer inputs while training, their keys and values in evaluation -------


class Memory(NamedTuple):
    """The last M inputs of each layer, oldest first and aligned to the right.

    Attributes:
      hidden: inputs of each layer, [B, M, D]; no gradient flows into them.
      valid_length: number of slots in use, the last ones, [B].
    """

    hidden: tuple[Float[Array, "B M D"], ...]
    valid_length: Int[Array, "B"]

    @property
    def length(self) -> int:
        """Number of slots (M)."""
        return self.hidden[0].shape[1]

    def append(
        self, inputs: tuple[Float[Array, "B T D"], ...], num_new: Int[Array, "B"]
    ) -> "Memory":
        """Appends a segment's layer inputs and keeps the last M.

        Args:
          num_new: number of tokens in each row; padding after them is dropped.
        """

        def keep_last(old, new):
            both = jnp.concatenate([old, new], axis=1)
            slots = num_new[:, None] + jnp.arange(self.length)
            return jnp.take_along_axis(both, slots[:, :, None], axis=1)

        hidden = jax.tree.map(keep_last, self.hidden, inputs)
        valid_length = jnp.minimum(self.valid_length + num_new, self.length)
        return Memory(jax.lax.stop_gradient(hidden), valid_length)


class Seq2SeqMemory(NamedTuple):
    """Memories of both sides of an encoder-decoder."""

    encoder: Memory
    decoder: Memory


def init_memory(config: Config, batch_size: int, length: int) -> Memory:
    """Returns an empty memory of M slots."""
    slots = jnp.zeros((batch_size, length, config.width), config.compute_dtype)
    return Memory((slots,) * config.layers, jnp.zeros(batch_size, jnp.int32))


@struct.dataclass
class KVMemory:
    """Ring buffer of each layer's keys and values, for evaluation.

    The R = M + T slots hold the memory and one segment. A segment overwrites the
    oldest slots, so nothing is moved or projected twice. The content is valid for
    one set of parameters.

    Attributes:
      kv: keys and values of each layer, [B, H, R, K].
      valid_length: number of the M slots before the next segment in use, [B].
      next_position: position of the next token, which goes to slot next_position % R.
      length: memory length (M).
    """

    kv: PyTree
    valid_length: PyTree
    next_position: PyTree
    length: int = struct.field(pytree_node=False)

    @property
    def num_slots(self) -> int:
        """Number of slots of the ring (R)."""
        return self.kv[0][0].shape[2]

    def append(self, kv: PyTree, num_new: int) -> "KVMemory":
        """Returns the memory after `num_new` tokens that `kv` already contains."""
        return self.replace(
            kv=kv,
            valid_length=jnp.minimum(self.valid_length + num_new, self.length),
            next_position=self.next_position + num_new,
        )

    def unroll(self) -> PyTree:
        """Returns the keys and values of the last M slots, oldest first."""
        start = self.next_position % self.num_slots

        def in_order(slots):
            return jnp.roll(slots, -start, axis=2)[:, :, self.num_slots - self.length :]

        return jax.tree.map(in_order, self.kv)


def init_kv_memory(config: Config, batch_size: int, segment_length: int) -> KVMemory:
    """Returns an empty ring buffer for segments of at most `segment_length` tokens."""
    slots, dtype = config.memory_length + segment_length, config.compute_dtype
    shape = (batch_size, config.heads, slots, config.resolved_head_dim)
    kv = tuple(
        (jnp.zeros(shape, dtype), jnp.zeros(shape, dtype)) for _ in range(config.layers)
    )
    valid_length = jnp.zeros(batch_size, jnp.int32)
    return KVMemory(kv, valid_length, jnp.zeros((), jnp.int32), config.memory_length)


# --- Models --------------------------------------------------------------------------

Carry = Memory | KVMemory | tuple[()]


class LanguageModel(transformer.LanguageModel):
    """Language model with segment recurrence (Dai et al. 2019, section 3.2).

    The carry is a `Memory` of layer inputs in training and a `KVMemory` of keys and
    values in evaluation; () without memory.
    """

    config: Config

    def initial_carry(
        self, batch_size: int, *, train: bool, memory_length: int | None = None
    ) -> Carry:
        length = self.config.memory_length if memory_length is None else memory_length
        return init_memory(self.config, batch_size, length) if length else ()

    def initial_eval_carry(self, batch_size: int, segment_length: int) -> Carry:
        """Returns an empty ring buffer for segments of at most this length.

        It is a `Memory` where keys of the empty memory depend on the parameters: those
        of LayerNorm(0).
        """
        config = self.config
        has_initial_keys = config.attend_empty_memory and config.norm == "pre"
        if not config.memory_length or has_initial_keys:
            return self.initial_carry(batch_size, train=False)
        return init_kv_memory(config, batch_size, segment_length)

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
            carry = carry.append(inputs, jnp.full(tokens.shape[0], length, jnp.int32))
        return x, carry

    def _read_segment(self, tokens, memory: KVMemory):
        """Reads a segment of an evaluation into the ring buffer."""
        length, slots = tokens.shape[1], memory.num_slots
        if slots < memory.length + length:
            raise ValueError(
                f"a segment of {length} tokens exceeds segment_length="
                f"{slots - memory.length} of initial_eval_carry"
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
        length = self.config.memory_length if memory_length is None else memory_length
        if not length:
            return ()
        empty = init_memory(self.config, batch_size, length)
        return Seq2SeqMemory(empty, empty)
