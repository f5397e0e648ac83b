"""RNNsearch: a recurrent encoder-decoder with attention."""

from jaxtyping import Array, Bool, Float, Int

from models.common.layers import Embedding
from models.common.output_head import OutputHead, SequenceModel
from models.rnn.cells import INITIALIZATIONS, Bidirectional
from models.rnn.config import RNNConfig
from models.rnn.decoder import Decoder, DecoderState, EncodedSource
from utils.errors import UserError


class Seq2Seq(SequenceModel):
    """RNNsearch; see the contract in README.md.

    Attributes:
      shared_vocab: whether source and target have one vocabulary; with
        `tie_embeddings` they then share one table with the output layer.

    Raises UserError for a config without a readout.
    """

    config: RNNConfig
    source_vocab_size: int
    target_vocab_size: int
    shared_vocab: bool

    def __post_init__(self):
        if self.config.readout == "none":
            raise UserError(
                "model.readout='none' is for language models; a translation's words "
                "are predicted through 'tanh' or 'maxout'"
            )
        super().__post_init__()

    def setup(self):
        config = self.config
        init = INITIALIZATIONS[config.initialization]
        width = config.embedding_width
        self.target_embedding = Embedding(self.target_vocab_size, width, init.table)
        if config.tie_embeddings and self.shared_vocab:
            self.source_embedding = self.target_embedding
        else:
            self.source_embedding = Embedding(self.source_vocab_size, width, init.table)
        self.encoder = Bidirectional(
            config.cell, config.layers, config.width, config.dropout, init.kernel
        )
        self.decoder = Decoder(
            cell=config.cell,
            layers=config.layers,
            width=config.width,
            score=config.score,
            attention_width=config.attention_width,
            readout=config.readout,
            readout_width=config.output_width,
            input_feeding=config.input_feeding,
            conditional_gru=config.conditional_gru,
            initialization=config.initialization,
            dropout=config.dropout,
            remat=config.remat,
        )
        tied = self.target_embedding if config.tie_embeddings else None
        self.head = OutputHead(
            self.target_vocab_size, config.output_width, init.table, tied
        )

    def initial_carry(
        self, batch_size: int, *, train: bool, memory_length: int | None = None
    ) -> tuple:
        """Empty: nothing is remembered from sentence to sentence."""
        return ()

    def _encode(self, source, source_mask, *, train):
        embedded = self.source_embedding(source, self.config.compute_dtype)
        annotations, backward = self.encoder(embedded, source_mask, train=train)
        context = self.decoder.prepare_source(annotations, source_mask)
        return context, self.decoder.start(backward)

    def __call__(
        self,
        source: Int[Array, "B S"],
        source_mask: Bool[Array, "B S"],
        target_in: Int[Array, "B T"],
        target_mask: Bool[Array, "B T"],
        carry: tuple,
        *,
        train: bool,
    ) -> tuple[Float[Array, "B T O"], tuple]:
        """Hidden states of the target, each of the source and what stands before."""
        context, state = self._encode(source, source_mask, train=train)
        embedded = self.target_embedding(target_in, self.config.compute_dtype)
        return self.decoder(embedded, state, context, train=train), carry

    def start(
        self,
        source: Int[Array, "B S"],
        source_mask: Bool[Array, "B S"],
        carry: tuple,
        *,
        max_steps: int = 256,
    ) -> tuple[EncodedSource, DecoderState]:
        """Encodes a sentence; its translation may have any length."""
        return self._encode(source, source_mask, train=False)

    def step(
        self, context: EncodedSource, state: DecoderState, token: Int[Array, "B N"]
    ) -> tuple[DecoderState, Float[Array, "B N V"]]:
        """Feeds a token to each hypothesis and scores the next."""
        embedded = self.target_embedding(token, self.config.compute_dtype)
        state, hidden = self.decoder.step(state, embedded, context)
        return state, self.logits(hidden)

    def alignment(self, intermediates: dict) -> Float[Array, "B T S"]:
        """The attention to the source of what was sown."""
        (weights,) = intermediates["decoder"]["attention"]
        return weights
