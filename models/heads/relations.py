"""Classification of the relation between two marked entities of a text."""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PyTree

from models.common.dropout import Dropout
from models.common.dtypes import upcast_to_f32
from models.common.layers import Dense
from models.heads.base import EncoderModel
from models.heads.pooling import Pooling


class RelationClassifier(EncoderModel):
    """Linear layer on the hidden states of the markers that begin both entities.

    The "entity start" states of Baldini Soares et al. (2019, section 3.2), next to the
    pooled text, which they leave out.

    Attributes:
      num_outputs: number of classes (C).
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
        entities: Int[Array, "B 2"],
        carry: PyTree,
        *,
        train: bool,
    ) -> tuple[Float[Array, "B C"], PyTree]:
        """Returns the logits of the classes, in float32, and the next carry.

        Args:
          entities: positions of the markers <e1> and <e2>; 0: cut off.
        """
        hidden, carry = self.encode(tokens, segment_ids, mask, carry, train=train)
        markers = jnp.take_along_axis(hidden, entities[..., None], axis=1)
        parts = markers[:, 0], markers[:, 1], self.pooler(hidden, mask)
        features = self.drop(jnp.concatenate(parts, axis=1), deterministic=not train)
        return upcast_to_f32(self.head(features)), carry
