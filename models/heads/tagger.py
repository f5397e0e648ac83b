"""Tagging of words, and joint classification of their sentence."""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PyTree

from models.common.dropout import Dropout
from models.common.dtypes import upcast_to_f32
from models.common.layers import Dense
from models.heads.base import EncoderModel
from models.heads.crf import CRF
from models.heads.pooling import Pooling


class Tagger(EncoderModel):
    """Encoder with a linear layer at the first token of each word.

    It is followed by a softmax (Devlin et al. 2019, section 5.3) or a conditional
    random field. With intents, the pooled text is classified too (Liu and Lane 2016).

    Attributes:
      num_tags: number of tags (L).
      num_intents: number of classes of a sentence (I); 0: it has none.
    """

    num_tags: int
    num_intents: int = 0

    def setup(self):
        super().setup()
        self.drop = Dropout(self.head_dropout)
        self.head = Dense((self.num_tags,), ("embed", None))
        if self.head_config.crf:
            self.crf = CRF(self.num_tags)
        if self.num_intents:
            width = self.encoder.hidden_width
            self.pooler = Pooling(self.head_config.pooling, width)
            self.intent_drop = Dropout(self.head_dropout)
            self.intent_head = Dense((self.num_intents,), ("embed", None))

    def __call__(
        self,
        tokens: Int[Array, "B T"],
        segment_ids: Int[Array, "B T"],
        mask: Bool[Array, "B T"],
        word_starts: Int[Array, "B N"],
        carry: PyTree,
        *,
        train: bool,
    ) -> tuple[tuple[Float[Array, "B N L"], Float[Array, "B I"] | None], PyTree]:
        """Returns the logits of tags and of intents, in float32, and the next carry.

        Args:
          word_starts: position of the first token of each word; 0: there is none.
        """
        hidden, carry = self.encode(tokens, segment_ids, mask, carry, train=train)
        words = jnp.take_along_axis(hidden, word_starts[..., None], axis=1)
        words = self.drop(words, deterministic=not train)
        tags = upcast_to_f32(self.head(words))
        if not self.num_intents:
            return (tags, None), carry
        pooled = self.pooler(hidden, mask)
        pooled = self.intent_drop(pooled, deterministic=not train)
        return (tags, upcast_to_f32(self.intent_head(pooled))), carry

    def log_prob(
        self,
        logits: Float[Array, "B N L"],
        labels: Int[Array, "B N"],
        mask: Bool[Array, "B N"],
    ) -> Float[Array, "B"]:
        """Computes the log probability of the tags of each sentence by the CRF."""
        return self.crf.log_prob(logits, labels, mask)

    def decode(
        self,
        logits: Float[Array, "B N L"],
        mask: Bool[Array, "B N"],
        forbidden: Bool[Array, "L1 L"],
    ) -> tuple[Int[Array, "B N"], Float[Array, "B"]]:
        """Returns the most probable tags by the CRF; see `CRF.decode`."""
        return self.crf.decode(logits, mask, forbidden)
