"""Masked language modeling and next-sentence prediction (Devlin et al. 2019).

The objectives of BERT, section 3.1 of the paper, for the encoder of any architecture.
"""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PyTree

from models.common.dtypes import upcast_to_f32
from models.common.layers import ACTIVATIONS, Dense, LayerNorm
from models.common.output_head import make_head
from models.heads.base import EncoderModel
from models.heads.pooling import Pooling


class MaskedLanguageModel(EncoderModel):
    """Encoder with the two output layers of BERT's pre-training.

        logits_i = E LayerNorm(gelu(W h_i + b)) + b'      of a masked token i
        next     = W_n tanh(W_p h_1 + b_p) + b_n          of a pair of texts

    E is the token embedding if `model.tie_embeddings`. `logits` and `log_prob` take
    the hidden states that a call returns.

    Attributes:
      next_sentence: whether there is the second layer.
    """

    next_sentence: bool

    def setup(self):
        super().setup()
        config, embedding = self.config, self.encoder.embedding
        self.transform = Dense((embedding.width,), ("embed", "mlp"))
        self.transform_norm = LayerNorm(getattr(config, "norm_epsilon", 1e-5))
        self.head = make_head(config, self.vocab_size, embedding)
        if self.next_sentence:
            self.pooler = Pooling("cls", self.encoder.hidden_width)
            self.next_head = Dense((2,), ("embed", None))

    def __call__(
        self,
        tokens: Int[Array, "B T"],
        segment_ids: Int[Array, "B T"],
        mask: Bool[Array, "B T"],
        positions: Int[Array, "B P"],
        carry: PyTree,
        *,
        train: bool,
    ) -> tuple[tuple[Float[Array, "B P E"], Float[Array, "B 2"] | None], PyTree]:
        """Returns the inputs of the output layers, and the next carry.

        Args:
          positions: those of the tokens to predict.

        Returns:
          The hidden states of the tokens to predict, for `logits`, and the logits in
          float32 of [other text, next text] or None without `next_sentence`; then the
          next carry.
        """
        encoded, carry = self.encode(tokens, segment_ids, mask, carry, train=train)
        chosen = jnp.take_along_axis(encoded, positions[..., None], axis=1)
        hidden = ACTIVATIONS["gelu"](self.transform(chosen))
        hidden = self.transform_norm(hidden)
        if not self.next_sentence:
            return (hidden, None), carry
        pooled = self.pooler(encoded, mask)
        return (hidden, upcast_to_f32(self.next_head(pooled))), carry
