"""Config keys of the recurrent models."""

import dataclasses
from typing import Annotated

from models.common.dropout import rate_if_enabled
from models.common.dtypes import DTYPES, DType, Scalar
from models.common.layers import check_field_ranges
from models.rnn.attention import SCORES
from models.rnn.cells import CELLS, INITIALIZATIONS

CHOICES = {
    "cell": tuple(CELLS),
    "score": SCORES,
    "readout": ("tanh", "maxout", "none"),
    "initialization": tuple(INITIALIZATIONS),
    "dtype": tuple(DTYPES),
}

Penalty = Annotated[float, "0 or more"]


@dataclasses.dataclass(frozen=True)
class RNNConfig:
    """Keys of `cfg.model`; `configs/base.py` explains each.

    Raises ValueError for unknown names and values out of range.
    """

    name: str
    cell: str
    layers: int
    width: int
    embedding_width: int
    score: str
    attention_width: int
    attention_window: int
    readout: str
    maxout_width: int
    input_feeding: bool
    conditional_gru: bool
    initialization: str
    tie_embeddings: bool
    dropout: float
    dropout_input: float
    dropout_hidden: float
    dropout_embedding: float
    weight_dropout: float
    variational_dropout: bool
    activation_regularization: Penalty
    temporal_activation_regularization: Penalty
    dtype: str
    remat: bool

    def __post_init__(self):
        check_field_ranges(self)
        for key, known in CHOICES.items():
            value = getattr(self, key)
            if value not in known:
                raise ValueError(
                    f"Unknown model.{key} {value!r}; choose one of {', '.join(known)}"
                )
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.type is Penalty and not value >= 0:
                raise ValueError(f"model.{field.name}={value} must be 0 or more")
        if self.embedding_width < 1:
            raise ValueError("model.embedding_width=0 must be 1 or more")
        if self.readout == "none" and self.attention_window:
            raise ValueError(
                f"model.attention_window={self.attention_window} must be 0 with "
                "model.readout='none', which has no attention; or set model.readout "
                "to 'tanh' or 'maxout'"
            )
        if self.tie_embeddings and self.output_width != self.embedding_width:
            raise ValueError(
                f"model.maxout_width={self.maxout_width} must equal "
                f"model.embedding_width={self.embedding_width} with "
                "model.tie_embeddings=True"
            )

    @property
    def compute_dtype(self) -> DType:
        """Type of activations and states; parameters are float32."""
        return DTYPES[self.dtype]

    @property
    def widths(self) -> tuple[int, ...]:
        """Width of each layer of a language model.

        A last layer without a readout and with a tied head is as wide as an embedding.
        """
        is_tied_to_last = self.readout == "none" and self.tie_embeddings
        last = self.embedding_width if is_tied_to_last else self.width
        return (self.width,) * (self.layers - 1) + (last,)

    @property
    def output_width(self) -> int:
        """Width of the hidden states that the output head reads."""
        return {
            "tanh": self.embedding_width,
            "maxout": self.maxout_width,
            "none": self.widths[-1],
        }[self.readout]

    def rate(self, key: str) -> Scalar:
        """Returns the dropout rate of a key; 0 if model.dropout is 0."""
        return rate_if_enabled(self.dropout, getattr(self, key))
