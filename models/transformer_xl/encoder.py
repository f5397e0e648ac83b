"""Bidirectional encoder with the attention and the memory of Transformer-XL.

Dai et al. (2019) have language models only. Here a query attends to all of its segment,
at relative positions of both signs, and to a memory of the segments before, so that a
document is read segment by segment.
"""

from jaxtyping import Array, Float, Int

from models.transformer import encoder as transformer
from models.transformer_xl.model import Config, Memory, init_memory
from utils.errors import UserError


class Encoder(transformer.Encoder):
    """Encoder with relative positions and a memory of the segments before.

    The carry is a `Memory`, also in evaluation, because the texts of a batch differ in
    length and so in the slots that they occupy; () without memory.

    Raises UserError for `same_length` and `attend_empty_memory`.
    """

    config: Config

    def __post_init__(self):
        for key in ("same_length", "attend_empty_memory"):
            if getattr(self.config, key):
                raise UserError(
                    f"{key}=True (of model or eval) is for language models; set it "
                    "to False: an encoder attends to the valid part of its memory"
                )
        super().__post_init__()

    def initial_carry(
        self, batch_size: int, *, train: bool, memory_length: int | None = None
    ) -> Memory | tuple[()]:
        length = self.config.memory_length if memory_length is None else memory_length
        return init_memory(self.config, batch_size, length) if length else ()

    def embed(
        self,
        tokens: Int[Array, "B T"],
        segment_ids: Int[Array, "B T"],
        positions: Int[Array, "#B #T"],
    ) -> Float[Array, "B T D"]:
        """Computes s (E[token] + E'[segment]) + PE, s = `embedding_scale`."""
        x = self.embed_tokens(tokens, segment_ids) * self.config.embedding_scale
        return self.position_embedding(x, positions)
