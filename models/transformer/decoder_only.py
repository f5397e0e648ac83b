"""A language model made of a stack: what it reads, and how it goes on.

The models of both Transformers add what they remember.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PyTree

from models.attention.kv_cache import (
    DecodeState,
    PrefixCache,
    init_decode_state,
    step_masks,
)
from models.attention.positions import AbsolutePositionEmbedding
from models.common.masks import NO_WINDOW, causal_mask, pad_right, sliding_window_mask
from models.common.output_head import SequenceModel
from models.transformer.config import StackConfig
from models.transformer.embeddings import make_embedding, make_head
from models.transformer.stack import Stack


class DecodeContext(NamedTuple):
    """What does not change while tokens are generated.

    Attributes:
      past: memory and prompt.
      distances: a layer's projected distances each, the same for all rows.
      window: keys this far away or farther are not seen.
    """

    past: PrefixCache
    distances: tuple
    window: Int[Array, ""]


class DecoderOnly(SequenceModel):
    """Embedding, stack and output distribution; see the contract in README.md."""

    config: StackConfig
    vocab_size: int

    def setup(self):
        config = self.config
        self.embedding = make_embedding(config, self.vocab_size)
        self.position_embedding = AbsolutePositionEmbedding(
            config.position_encoding, config.width, config.max_positions
        )
        self.stack = Stack(config, cross=False)
        tied = self.embedding if config.tie_embeddings else None
        self.head = make_head(config, self.vocab_size, tied)

    def embed(
        self, tokens: Int[Array, "B T"], places: Int[Array, "#B #T"]
    ) -> Float[Array, "B T D"]:
        """sqrt(D) E[token], with its place (Vaswani et al. 2017, section 3.4)."""
        x = self.embedding(tokens, self.config.compute_dtype)
        return self.position_embedding(x * self.config.width**0.5, places)

    def past(self, carry: PyTree, rows: int) -> PrefixCache:
        """The carry as keys and values, oldest first."""
        raise NotImplementedError

    def window(self, carry: PyTree) -> int:
        """Keys this far away or farther are not seen."""
        return NO_WINDOW

    def start(
        self,
        prompt: Int[Array, "B P"],
        prompt_mask: Bool[Array, "B P"],
        carry: PyTree,
        *,
        max_steps: int = 256,
    ) -> tuple[DecodeContext, DecodeState]:
        """Reads a prompt after a carry; `max_steps` tokens may follow it.

        The prompt stands next to what is remembered while it is read; then each
        row moves right over its padding, so that all rows end in the same slot.
        """
        prompt, mask = pad_right(prompt, prompt_mask)
        rows, length = prompt.shape
        before = self.past(carry, rows)
        seen = jnp.concatenate([before.valid, mask], axis=1)
        visible = seen[:, None] & causal_mask(length, seen.shape[1])
        visible &= sliding_window_mask(length, seen.shape[1], self.window(carry))
        attention_context = self.stack.attention_context(
            visible, length, first=before.next_position[0], train=False
        )
        x = self.embed(prompt, attention_context.positions)
        _, _, kept = self.stack(x, attention_context, past=before.kv, train=False)
        padding = length - mask.sum(axis=1)
        turn = jax.vmap(lambda row, by: jnp.roll(row, by, axis=-2))
        kept = jax.tree.map(lambda slots: turn(slots, padding), kept)
        seen = turn(seen[..., None], padding)[..., 0]
        past = PrefixCache(
            kept, seen, before.next_position + length - padding
        ).transpose_keys()
        distances = self.stack.project_relative_positions(
            past.num_slots + max_steps - 1
        )
        window = jnp.asarray(self.window(carry))
        return DecodeContext(past, distances, window), init_decode_state(
            past, max_steps
        )

    def step(
        self, context: DecodeContext, state: DecodeState, token: Int[Array, "B N"]
    ) -> tuple[DecodeState, Float[Array, "B N V"]]:
        """Feeds a token to each hypothesis and scores the next."""
        past, state = context.past, state.begin_step()
        seen = step_masks(past, state, context.distances, context.window)
        x = self.embed(token, seen[0].positions)
        x, caches = self.stack.step(x, past.kv, state.kv, state.step, seen)
        return state.end_step(caches), self.logits(x)
