"""The encoder of BERT (Devlin et al. 2019, "BERT: Pre-training of Deep Bidirectional
Transformers for Language Understanding").

As published with `position_encoding="learned"`, `activation="gelu"`, `norm="post"` and
`norm_epsilon=1e-12`; the other options are those of the Transformer's other models.
"""

from jaxtyping import Array, Bool, Float, Int, PyTree

from models import api
from models.common.layers import Embedding, LayerNorm
from models.transformer.config import Config
from models.transformer.model import (
    make_embedding,
    make_position_embedding,
    prepend_memory_mask,
)
from models.transformer.stack import Stack


class Encoder(api.Encoder):
    """Bidirectional Transformer with segment embeddings (Devlin et al. 2019, fig. 2).

    The carry is (), or a memory of layer inputs in `models/transformer_xl/encoder.py`.
    """

    config: Config

    def setup(self):
        config = self.config
        self.embedding = make_embedding(config, self.vocab_size)
        self.segment_embedding = Embedding(
            2, config.width, config.embedding_init, (None, "embed")
        )
        self.position_embedding = make_position_embedding(config)
        self.embedding_norm = LayerNorm(config.norm_epsilon)
        self.stack = Stack(config, cross=False)

    def __call__(
        self,
        tokens: Int[Array, "B T"],
        segment_ids: Int[Array, "B T"],
        mask: Bool[Array, "B T"],
        carry: PyTree,
        *,
        train: bool,
    ) -> tuple[Float[Array, "B T D"], PyTree]:
        length = tokens.shape[1]
        context = self.stack.attention_context(
            prepend_memory_mask(carry, mask[:, None]),
            length,
            min_relative_position=1 - length,
            train=train,
        )
        x = self.embed(tokens, segment_ids, context.positions)
        past = carry.hidden if carry else None
        x, inputs, _ = self.stack(x, context, past=past, train=train)
        if carry:
            carry = carry.append(inputs, mask.sum(axis=1, dtype="int32"))
        return x, carry

    def embed(
        self,
        tokens: Int[Array, "B T"],
        segment_ids: Int[Array, "B T"],
        positions: Int[Array, "#B #T"],
    ) -> Float[Array, "B T D"]:
        """Computes LayerNorm(E[token] + E'[segment] + PE).

        Deviation: sinusoids, whose size is fixed, would hide the small embeddings; with
        them, these are scaled by sqrt(D) as in Vaswani et al. (2017, section 3.4).
        """
        x = self.embed_tokens(tokens, segment_ids)
        if self.config.position_encoding == "sinusoidal":
            x *= self.config.embedding_scale
        return self.embedding_norm(self.position_embedding(x, positions))

    def embed_tokens(
        self, tokens: Int[Array, "B T"], segment_ids: Int[Array, "B T"]
    ) -> Float[Array, "B T D"]:
        """Computes E[token] + E'[segment]."""
        dtype = self.config.compute_dtype
        return self.embedding(tokens, dtype) + self.segment_embedding(
            segment_ids, dtype
        )
