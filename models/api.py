"""Contract of a model, and the legend of array shapes.

An architecture (`models/registry.py`) is a module with a frozen dataclass `Config` and
the classes `LanguageModel` and `Seq2Seq`, Flax modules that follow the protocols below.
`tests/models/test_contracts.py` checks each of them.

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

from typing import Protocol

from jaxtyping import Array, Bool, Float, Int, PyTree


class OutputDistribution(Protocol):
    """Distribution of the next token, given hidden states."""

    def logits(self, hidden: Float[Array, "... D"]) -> Float[Array, "... V"]:
        """Computes unnormalised log probabilities in float32."""

    def log_prob(
        self,
        hidden: Float[Array, "B T D"],
        labels: Int[Array, "B T"],
        *,
        smoothing: float = 0.0,
    ) -> Float[Array, "B T"]:
        """Computes log probabilities of labels in float32, in chunks if V is large.

        Args:
          smoothing: mass that label smoothing spreads over the vocabulary.
        """

    def log_prob_and_log_z(
        self,
        hidden: Float[Array, "B T D"],
        labels: Int[Array, "B T"],
        *,
        smoothing: float = 0.0,
    ) -> tuple[Float[Array, "B T"], Float[Array, "B T"]]:
        """Computes `log_prob` and the log of the softmax normaliser Z.

        Raises:
          UserError: the softmax is adaptive, with several normalisers.
        """


class LanguageModel(OutputDistribution, Protocol):
    """Model of the next token of a text, which is read segment by segment."""

    def initial_carry(
        self, batch_size: int, *, train: bool, memory_length: int | None = None
    ) -> PyTree:
        """Returns the carry before the first segment.

        Args:
          memory_length: slots of the memory; None: as configured.
        """

    def __call__(
        self, tokens: Int[Array, "B T"], carry: PyTree, *, train: bool
    ) -> tuple[Float[Array, "B T D"], PyTree]:
        """Returns the hidden states of a segment and the next carry."""

    def initial_eval_carry(self, batch_size: int, segment_length: int) -> PyTree:
        """Returns the carry before the first segment of an evaluation.

        It may be valid for one set of parameters only, such as keys and values.
        """

    def precompute(self, carry: PyTree) -> dict:
        """Returns collections of what an evaluation needs of the parameters alone."""

    def start(
        self,
        prompt: Int[Array, "B P"],
        prompt_mask: Bool[Array, "B P"],
        carry: PyTree,
        *,
        max_steps: int,
    ) -> tuple[PyTree, PyTree]:
        """Reads a prompt; returns the context and the decoding state of one beam."""

    def step(
        self, context: PyTree, state: PyTree, token: Int[Array, "B N"]
    ) -> tuple[PyTree, Float[Array, "B N V"]]:
        """Feeds a token to each beam; returns the next state and the next logits."""


class Seq2Seq(OutputDistribution, Protocol):
    """Model of a target sentence given its source."""

    def initial_carry(
        self, batch_size: int, *, train: bool, memory_length: int | None = None
    ) -> PyTree:
        """Returns the carry before the first sentence; () without a memory."""

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

    def start(
        self,
        source: Int[Array, "B S"],
        source_mask: Bool[Array, "B S"],
        carry: PyTree,
        *,
        max_steps: int,
    ) -> tuple[PyTree, PyTree]:
        """Encodes a source; returns the context and the decoding state of one beam."""

    def step(
        self, context: PyTree, state: PyTree, token: Int[Array, "B N"]
    ) -> tuple[PyTree, Float[Array, "B N V"]]:
        """Feeds a token to each beam; returns the next state and the next logits."""

    def alignment(self, intermediates: dict) -> Float[Array, "B T S"]:
        """Returns the attention to the source, from the sown attention weights."""
