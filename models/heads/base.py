"""An encoder with a head: base class of the models of language understanding."""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PyTree

from models import api
from models.common.dtypes import Scalar


@dataclasses.dataclass(frozen=True)
class HeadConfig:
    """Keys of `cfg.head` that a model needs; `configs/base.py` explains each."""

    pooling: str = "cls"
    compare_pair: bool = False
    crf: bool = False
    dropout: Scalar | None = None


class EncoderModel(api.Model):
    """Base class of an encoder with a head, whose `setup` calls this class's.

    Parameters of the encoder are named `encoder/...` in all subclasses, so that a
    pre-trained encoder can be the start of another task (`init_params_pattern`).

    Attributes:
      encoder_class: class `Encoder` of an architecture.
      head_config: the config of the head.
      segment_length: number of tokens that an encoder with a memory reads at once.
    """

    encoder_class: type[api.Encoder]
    vocab_size: int
    head_config: HeadConfig
    segment_length: int

    def setup(self):
        self.encoder = self.encoder_class(self.config, self.vocab_size)

    def initial_carry(
        self, batch_size: int, *, train: bool, memory_length: int | None = None
    ) -> PyTree:
        """Returns the encoder's carry before the first segment."""
        encoder = self.encoder_class(self.config, self.vocab_size, parent=None)
        return encoder.initial_carry(
            batch_size, train=train, memory_length=memory_length
        )

    @property
    def head_dropout(self) -> Scalar:
        """Dropout rate before the output layer: head.dropout or model.dropout."""
        rate = self.head_config.dropout
        return self.config.dropout if rate is None else rate

    def encode(
        self,
        tokens: Int[Array, "B T"],
        segment_ids: Int[Array, "B T"],
        mask: Bool[Array, "B T"],
        carry: PyTree,
        *,
        train: bool,
    ) -> tuple[Float[Array, "B T D"], PyTree]:
        """Reads a text, in segments of `segment_length` if there is a memory.

        Gradients do not flow from one segment into those before it.
        """
        length = tokens.shape[1]
        if not jax.tree.leaves(carry) or length <= self.segment_length:
            return self.encoder(tokens, segment_ids, mask, carry, train=train)
        outputs = []
        for start in range(0, length, self.segment_length):
            part = slice(start, start + self.segment_length)
            inputs = (tokens[:, part], segment_ids[:, part], mask[:, part])
            hidden, carry = self.encoder(*inputs, carry, train=train)
            outputs.append(hidden)
        return jnp.concatenate(outputs, axis=1), carry
