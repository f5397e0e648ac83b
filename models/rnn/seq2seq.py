"""RNNsearch: recurrent encoder-decoder with attention (Bahdanau et al. 2015)."""

from jaxtyping import Array, Bool, Float, Int

from models.common.layers import Embedding
from models.common.output_head import OutputHead, SequenceModel
from models.rnn.cells import INITIALIZATIONS, Bidirectional
from models.rnn.config import RNNConfig
from models.rnn.decoder import Decoder, DecoderState, EncodedSource
from utils.errors import UserError


class Seq2Seq(SequenceModel):
    """RNNsearch; `models/api.py` defines the interface.

    Attributes:
      shared_vocab: whether source and target have one vocabulary; with
        `tie_embeddings` they then share one table with the output head.

    Raises UserError for a config without a readout.
    """

    config: RNNConfig
    source_vocab_size: int
    target_vocab_size: int
    shared_vocab: bool

    def __post_init__(self):
        if self.config.readout == "none":
            raise UserError(
                "model.readout='none' is for language models; choose 'tanh' or "
                "'maxout' for translation"
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
        """Returns (): sentences are independent."""
        return ()

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
        """Computes hidden states of the target given the source."""
        encoded, state = self._encode(source, source_mask, train=train)
        embedded = self.target_embedding(target_in, self.config.compute_dtype)
        return self.decoder(embedded, state, encoded, train=train), carry

    def _encode(self, source, source_mask, *, train):
        embedded = self.source_embedding(source, self.config.compute_dtype)
        annotations, backward = self.encoder(embedded, source_mask, train=train)
        encoded = self.decoder.prepare_source(annotations, source_mask)
        return encoded, self.decoder.start(backward)

    def start(
        self,
        source: Int[Array, "B S"],
        source_mask: Bool[Array, "B S"],
        carry: tuple,
        *,
        max_steps: int = 256,
    ) -> tuple[EncodedSource, DecoderState]:
        """Encodes a source sentence; `max_steps` is not needed."""
        return self._encode(source, source_mask, train=False)

    def step(
        self, context: EncodedSource, state: DecoderState, token: Int[Array, "B N"]
    ) -> tuple[DecoderState, Float[Array, "B N V"]]:
        """Feeds a token to each beam and returns logits of the next."""
        embedded = self.target_embedding(token, self.config.compute_dtype)
        state, hidden = self.decoder.decode_step(state, embedded, context)
        return state, self.logits(hidden)

    def alignment(self, intermediates: dict) -> Float[Array, "B T S"]:
        """Returns the attention weights over the source."""
        (weights,) = intermediates["decoder"]["attention"]
        return weights
