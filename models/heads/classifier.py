"""Classification of a text or a pair of texts."""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PyTree

from models.common.dropout import Dropout
from models.common.dtypes import upcast_to_f32
from models.common.layers import Dense
from models.heads.base import EncoderModel
from models.heads.pooling import Pooling


class Classifier(EncoderModel):
    """Encoder, pooling, dropout and a linear layer (Devlin et al. 2019, section 3.2).

    With `head.compare_pair` the vectors u and v of two texts are pooled apart, and the
    layer reads [u; v; |u - v|; u * v] (Conneau et al. 2017, section 3.1). The encoder
    still reads both texts as one sequence, so each sees the other.

    Attributes:
      num_outputs: number of classes (C), or 1 for a graded label.
    """

    num_outputs: int

    def setup(self):
        super().setup()
        self.pooler = Pooling(self.head_config.pooling, self.encoder.hidden_width)
        self.drop = Dropout(self.head_dropout)
        self.head = Dense((self.num_outputs,), ("embed", None))

    def __call__(
        self,
        tokens: Int[Array, "B T"],
        segment_ids: Int[Array, "B T"],
        mask: Bool[Array, "B T"],
        carry: PyTree,
        *,
        train: bool,
    ) -> tuple[Float[Array, "B C"], PyTree]:
        """Returns the logits of the classes, in float32, and the next carry."""
        hidden, carry = self.encode(tokens, segment_ids, mask, carry, train=train)
        if self.head_config.compare_pair:
            u, v = (self.pooler(hidden, mask & (segment_ids == k)) for k in (0, 1))
            pooled = jnp.concatenate([u, v, abs(u - v), u * v], axis=-1)
        else:
            pooled = self.pooler(hidden, mask)
        pooled = self.drop(pooled, deterministic=not train)
        return upcast_to_f32(self.head(pooled)), carry
