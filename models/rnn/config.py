"""Config keys of the recurrent models, and their initializers."""

import dataclasses
import functools
from typing import Annotated, ClassVar

import jax

from models.api import ModelConfig
from models.common.dropout import rate_if_enabled
from models.common.dtypes import Scalar
from models.common.layers import Initializer, normal, zeros
from models.rnn.cells import CELLS, orthogonal_per_gate

SCORES = ("additive", "dot", "scaled_dot", "bilinear")

Penalty = Annotated[float, "0 or more"]


@dataclasses.dataclass(frozen=True)
class Initialization:
    """Initializers of weights; all biases are 0.

    Attributes:
      table: initializer of embeddings.
      kernel: initializer of linear maps; None: Glorot uniform.
      attention: initializer of query and key projections; None: Glorot uniform.
      score: initializer of the additive score's v; None: Glorot uniform.
      recurrent: initializer of recurrent weights.
    """

    table: Initializer
    kernel: Initializer | None = None
    attention: Initializer | None = None
    score: Initializer | None = None
    recurrent: Initializer = orthogonal_per_gate


INITIALIZATIONS = {
    "default": Initialization(normal(0.1)),  # large: gates soon differ from 1/2
    # Bahdanau et al. (2015), appendix B.1
    "published": Initialization(normal(0.01), normal(0.01), normal(0.001), zeros),
}


def uniform(scale: float) -> Initialization:
    """Returns uniform initializers between -scale and scale (Zaremba et al. 2014)."""
    draw = functools.partial(jax.random.uniform, minval=-scale, maxval=scale)
    return Initialization(*5 * [draw])


@dataclasses.dataclass(frozen=True)
class Config(ModelConfig):
    """Keys of `cfg.model` of the recurrent models."""

    cell: str
    score: str
    attention_width: int
    attention_window: int
    readout: str
    maxout_width: int
    input_feeding: bool
    conditional_gru: bool
    initialization: str
    init_scale: float
    dropout_input: float
    dropout_hidden: float
    dropout_embedding: float
    weight_dropout: float
    variational_dropout: bool
    activation_regularization: Penalty
    temporal_activation_regularization: Penalty

    choices: ClassVar[dict[str, tuple[str, ...]]] = {
        "cell": tuple(CELLS),
        "score": SCORES,
        "readout": ("tanh", "maxout", "none"),
        "initialization": (*INITIALIZATIONS, "uniform"),
    }

    def __post_init__(self):
        super().__post_init__()
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
    def init(self) -> Initialization:
        """Initializers of the parameters."""
        if self.initialization == "uniform":
            return uniform(self.init_scale)
        return INITIALIZATIONS[self.initialization]

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
