"""The keys of recurrent models, and what they cannot be."""

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
    """The keys of `cfg.model`; `configs/base.py` says what each means.

    Raises ValueError for values that no such model can have.
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
                raise ValueError(f"model.{key}={value!r}: there are {', '.join(known)}")
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.type is Penalty and not value >= 0:
                raise ValueError(f"model.{field.name}={value}: it must be 0 or more")
        if self.embedding_width < 1:
            raise ValueError("model.embedding_width=0: it must be 1 or more")
        if self.readout == "none" and self.attention_window:
            raise ValueError(
                f"model.readout='none' has no room for the attention that "
                f"model.attention_window={self.attention_window} asks for: "
                "set it to 0, or readout to 'tanh' or 'maxout'"
            )
        if self.tie_embeddings and self.output_width != self.embedding_width:
            raise ValueError(
                f"model.maxout_width={self.maxout_width} is not model.embedding_width="
                f"{self.embedding_width}, which model.tie_embeddings needs"
            )

    @property
    def compute_dtype(self) -> DType:
        """Of activations and of states; parameters are float32."""
        return DTYPES[self.dtype]

    @property
    def widths(self) -> tuple[int, ...]:
        """Of each layer of a language model, whose last may itself predict."""
        straight = self.readout == "none" and self.tie_embeddings
        last = self.embedding_width if straight else self.width
        return (self.width,) * (self.layers - 1) + (last,)

    @property
    def output_width(self) -> int:
        """Of what predicts a token."""
        return {
            "tanh": self.embedding_width,
            "maxout": self.maxout_width,
            "none": self.widths[-1],
        }[self.readout]

    def rate(self, key: str) -> Scalar:
        """One of the dropouts; `dropout=0` switches off every one."""
        return rate_if_enabled(self.dropout, getattr(self, key))
