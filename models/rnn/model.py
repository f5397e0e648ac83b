"""Recurrent networks with attention.

As a Seq2Seq: the encoder-decoder of Bahdanau et al. (2015, "Neural Machine
Translation by Jointly Learning to Align and Translate"), which the config
`configs/wmt14.py:rnnsearch50` gives as published. As a LanguageModel: recurrent
layers whose output also attends to its own last states (as Daniluk et al. 2017,
"Frustratingly Short Attention Spans in Neural Language Modeling") or, with
`readout="none"`, the AWD-LSTM of Merity et al. (2017, "Regularizing and
Optimizing LSTM Language Models", `configs/ptb.py:awd_lstm`).

The defaults deviate from Bahdanau et al.: the reset gate acts after the product
(`cell="gru"`), which lets one product serve all gates; the output layer is the
tanh of a sum with the new state, not a maxout with the old; valid is dropout.
"""

import dataclasses

from models.rnn.config import RNNConfig
from models.rnn.language_model import LanguageModel
from models.rnn.seq2seq import Seq2Seq

__all__ = ["Config", "LanguageModel", "Seq2Seq"]


@dataclasses.dataclass(frozen=True)
class Config(RNNConfig):
    """The keys of `cfg.model`; `configs/base.py` says what each means."""
