"""The Transformer (Vaswani et al. 2017, "Attention Is All You Need").

As a Seq2Seq it is the paper's encoder-decoder; as a LanguageModel its decoder
without cross-attention. It remembers nothing from call to call: its carry is
empty.

Deviations from the paper, all by config: `norm="pre"` normalises before each
sublayer and once more after the last; attention weights have a dropout of their
own (`attention_dropout`), as in the authors' code; projections have biases.
"""

import dataclasses

from jaxtyping import Array, Bool, Float, Int

from models.attention.kv_cache import DecodeState, PrefixCache, empty_prefix
from models.common.masks import causal_mask
from models.transformer.config import StackConfig
from models.transformer.decoder_only import DecoderOnly
from models.transformer.encoder_decoder import EncodedSource, EncoderDecoder


@dataclasses.dataclass(frozen=True)
class Config(StackConfig):
    """The keys of `cfg.model`; `configs/base.py` says what each means."""


class LanguageModel(DecoderOnly):
    """The decoder alone, over a segment of text; see the contract in README.md."""

    config: Config

    def initial_carry(
        self, batch_size: int, *, train: bool, memory_length: int | None = None
    ) -> tuple:
        """Empty: nothing is remembered from segment to segment."""
        return ()

    def __call__(
        self, tokens: Int[Array, "B T"], carry: tuple, *, train: bool
    ) -> tuple[Float[Array, "B T D"], tuple]:
        """Hidden states of a segment, each of what stands before it."""
        length = tokens.shape[1]
        attention_context = self.stack.attention_context(
            causal_mask(length, length), length, train=train
        )
        x = self.embed(tokens, attention_context.positions)
        return self.stack(x, attention_context, train=train)[0], carry

    def past(self, carry: tuple, rows: int) -> PrefixCache:
        """Nothing."""
        config = self.config
        head = (config.heads, config.resolved_head_dim)
        return empty_prefix(rows, config.layers, *head, config.compute_dtype)


class Seq2Seq(EncoderDecoder):
    """The encoder-decoder; see the contract in README.md."""

    config: Config

    def initial_carry(
        self, batch_size: int, *, train: bool, memory_length: int | None = None
    ) -> tuple:
        """Empty: nothing is remembered from sentence to sentence."""
        return ()

    def __call__(
        self,
        source: Int[Array, "B S"],
        source_mask: Bool[Array, "B S"],
        target_in: Int[Array, "B T"],
        target_mask: Bool[Array, "B T"],
        carry: tuple,
        *,
        train: bool,
    ) -> tuple[Float[Array, "B T D"], tuple]:
        """Hidden states of the target, each of the source and what stands before."""
        encoded, _ = self.encode(source, source_mask, None, train=train)
        x, _ = self.decode(
            encoded, source_mask, target_in, target_mask, None, train=train
        )
        return x, carry

    def start(
        self,
        source: Int[Array, "B S"],
        source_mask: Bool[Array, "B S"],
        carry: tuple,
        *,
        max_steps: int = 256,
    ) -> tuple[EncodedSource, DecodeState]:
        """Encodes a sentence; its translation may have `max_steps` tokens."""
        return self.begin(source, source_mask, None, None, max_steps)
