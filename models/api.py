"""Base classes of the architectures, and the legend of array shapes.

An architecture (`models/registry.py`) has four classes, `Config`, `LanguageModel`,
`Seq2Seq` and `Encoder`, subclasses of those below, whose docstrings are the contract.
`tests/models/test_contracts.py` and `test_encoders.py` check each of them.

Shapes, in annotations and in einsums:

    B  batch size                       D  width of hidden states
    T  target or query length           H  attention heads
    S  source or key length             K  width of a head
    E  source length, next to another   F  width of the feed-forward layer
       key length                       V  vocabulary size
    M  memory length                    N  beams of a sentence
    P  prompt length                    G  beam groups of a batch
    C  slots of a prefix cache          W  beams of a group, B N = G W
    L  decoding steps

    A and O are the widths of the RNN's attention and output, Q and J the queries and
    keys of a block of attention. In heads, C counts classes, L tags, I intents, N words
    and P predicted positions; in relative attention, C counts relative positions.

States of a model:

- A carry passes from segment to segment. It is explicit, since models are stateless;
  its leaves are [B, ...] or have no axes. A model without memory has the carry ().
- A context is what does not change while tokens are generated. It is never tiled over
  beams.
- A decoding state belongs to the beams. Its leaves are [B, N, ...] or have no axes,
  except nodes with methods `expand_to_beams` and `gather_beams` of their own, such as
  `models.attention.kv_cache.DecodeState`.

While training, a model may sow losses of its own in "losses" as (sum [B], weight [B]);
they are logged as auxiliary/<name>. If "intermediates" is mutable, it sows attention
weights there; while tokens are generated, only those of the source.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar

import flax.linen as nn
from jaxtyping import Array, Bool, Float, Int, PyTree

from models.common.blockwise_cross_entropy import LogProbAndLogZ
from models.common.dtypes import DTYPES, DType, Scalar

MAY_BE_ZERO = (
    "attention_window",
    "memory_length",
    "clamp_length",
    "head_dim",
    "embedding_width",
)


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """Keys of `cfg.model` of all architectures; `configs/base.py` explains each.

    Raises ValueError for an unknown name; a size (`int`) below 1, or below 0 if it is
    in MAY_BE_ZERO; or a rate (`float`, possibly None) that is not in [0, 1).
    """

    name: str
    layers: int
    width: int
    embedding_width: int
    tie_embeddings: bool
    dropout: float
    dtype: str
    remat: bool

    choices: ClassVar[dict[str, tuple[str, ...]]] = {}  # allowed values, by key

    def __post_init__(self):
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            smallest = 0 if field.name in MAY_BE_ZERO else 1
            if field.type is int and value < smallest:
                raise ValueError(
                    f"model.{field.name}={value}: it must be {smallest} or more"
                )
            is_rate = field.type in (float, float | None) and value is not None
            if is_rate and not 0 <= value < 1:
                raise ValueError(
                    f"model.{field.name}={value}: it must be at least 0 and below 1"
                )
        for key, known in {**self.choices, "dtype": tuple(DTYPES)}.items():
            value = getattr(self, key)
            if value not in known:
                raise ValueError(
                    f"Unknown model.{key} {value!r}; choose one of {', '.join(known)}"
                )

    @property
    def compute_dtype(self) -> DType:
        """Type of activations, states and memory; parameters are float32."""
        return DTYPES[self.dtype]


class Model(nn.Module):
    """Base class of models with an output head, `self.head`, that `setup` creates."""

    config: Any

    def initial_carry(
        self, batch_size: int, *, train: bool, memory_length: int | None = None
    ) -> PyTree:
        """Returns the carry before the first segment; () without a memory.

        Args:
          memory_length: slots of the memory; None: as configured.
        """
        return ()

    def initial_eval_carry(self, batch_size: int, segment_length: int) -> PyTree:
        """Returns the initial carry of an evaluation by segments of this length.

        It may be valid for one set of parameters only (keys and values).
        """
        return self.initial_carry(batch_size, train=False)

    def precompute(self, carry: PyTree) -> PyTree:
        """Returns collections of what an evaluation needs of the parameters alone."""
        return {}

    def logits(self, hidden: Float[Array, "... D"]) -> Float[Array, "... V"]:
        """Computes unnormalised log probabilities of the next token, in float32."""
        return self.head.logits(hidden)

    def log_prob(
        self,
        hidden: Float[Array, "B T D"],
        labels: Int[Array, "B T"],
        *,
        smoothing: Scalar = 0.0,
    ) -> Float[Array, "B T"]:
        """Computes the log probability of labels, see `OutputHead.log_prob`."""
        return self.head.log_prob(hidden, labels, smoothing=smoothing)

    def log_prob_and_log_z(
        self,
        hidden: Float[Array, "B T D"],
        labels: Int[Array, "B T"],
        *,
        smoothing: Scalar = 0.0,
    ) -> LogProbAndLogZ:
        """Computes `log_prob` and log Z, see `OutputHead.log_prob_and_log_z`."""
        return self.head.log_prob_and_log_z(hidden, labels, smoothing=smoothing)

    def step(
        self, context: PyTree, state: PyTree, token: Int[Array, "B N"]
    ) -> tuple[PyTree, Float[Array, "B N V"]]:
        """Feeds a token to each beam; returns the next state and the next logits."""
        raise NotImplementedError


class LanguageModel(Model):
    """Model of the next token of a text, which is read segment by segment."""

    vocab_size: int

    def __call__(
        self, tokens: Int[Array, "B T"], carry: PyTree, *, train: bool
    ) -> tuple[Float[Array, "B T D"], PyTree]:
        """Returns the hidden states of a segment and the next carry."""
        raise NotImplementedError

    def start(
        self,
        prompt: Int[Array, "B P"],
        prompt_mask: Bool[Array, "B P"],
        carry: PyTree,
        *,
        max_steps: int,
    ) -> tuple[PyTree, PyTree]:
        """Reads a prompt; returns the context and the decoding state of one beam.

        Args:
          max_steps: maximum number of generated tokens.
        """
        raise NotImplementedError


class Encoder(Model):
    """Model of a whole text that reads it in both directions, without an output head.

    The heads of `models/heads` are for its hidden states. A carry, if there is one, is
    a memory of the segments before, so that a document can be longer than a segment.
    """

    vocab_size: int

    @property
    def hidden_width(self) -> int:
        """Width of the hidden states (D)."""
        return self.config.width

    def __call__(
        self,
        tokens: Int[Array, "B T"],
        segment_ids: Int[Array, "B T"],
        mask: Bool[Array, "B T"],
        carry: PyTree,
        *,
        train: bool,
    ) -> tuple[Float[Array, "B T D"], PyTree]:
        """Returns the hidden states of a text and the next carry.

        Args:
          segment_ids: 0 in a text or the first of a pair of texts, 1 in the second.
          mask: False at padding, which is on the right. The hidden states of padding
            are finite and arbitrary; those of tokens do not depend on it.
        """
        raise NotImplementedError


class Seq2Seq(Model):
    """Model of a target sentence given its source.

    Attributes:
      shared_vocab: whether source and target have one vocabulary; with
        `tie_embeddings` they then share one table with the output head.
    """

    source_vocab_size: int
    target_vocab_size: int
    shared_vocab: bool

    def create_embeddings(self, create: Callable[[int], nn.Module]) -> nn.Module | None:
        """Creates both embeddings in `setup`; returns that of a tied output head."""
        is_tied = self.config.tie_embeddings
        self.target_embedding = create(self.target_vocab_size)
        if is_tied and self.shared_vocab:
            self.source_embedding = self.target_embedding
        else:
            self.source_embedding = create(self.source_vocab_size)
        return self.target_embedding if is_tied else None

    def __call__(
        self,
        source: Int[Array, "B S"],
        source_mask: Bool[Array, "B S"],
        target_in: Int[Array, "B T"],
        target_mask: Bool[Array, "B T"],
        carry: PyTree,
        *,
        train: bool,
    ) -> tuple[Float[Array, "B T D"], PyTree]:
        """Returns the hidden states of the target and the next carry."""
        raise NotImplementedError

    def start(
        self,
        source: Int[Array, "B S"],
        source_mask: Bool[Array, "B S"],
        carry: PyTree,
        *,
        max_steps: int,
    ) -> tuple[PyTree, PyTree]:
        """Encodes a source; returns the context and the decoding state of one beam."""
        raise NotImplementedError

    def alignment(self, intermediates: dict) -> Float[Array, "B T S"]:
        """Returns the attention to the source, from the sown attention weights."""
        raise NotImplementedError
