"""Recurrent networks with attention.

`Seq2Seq` is the encoder-decoder of Bahdanau et al. (2015, "Neural Machine
Translation by Jointly Learning to Align and Translate"); the config
`configs/wmt14.py:rnnsearch50` is the published one. `LanguageModel` is a recurrent
language model that attends to its last states (Daniluk et al. 2017, "Frustratingly
Short Attention Spans in Neural Language Modeling") or, with `readout="none"`, the
AWD-LSTM (Merity et al. 2017, "Regularizing and Optimizing LSTM Language Models",
`configs/ptb.py:awd_lstm`).

The defaults deviate from Bahdanau et al.: the reset gate acts after the product
(`cell="gru"`), so that one product serves all gates; the readout is the tanh of a
sum with the new state, not a maxout with the old; there is dropout.
"""

import dataclasses

from models.rnn.config import RNNConfig
from models.rnn.language_model import LanguageModel
from models.rnn.seq2seq import Seq2Seq

__all__ = ["Config", "LanguageModel", "Seq2Seq"]


@dataclasses.dataclass(frozen=True)
class Config(RNNConfig):
    """Keys of `cfg.model`; `configs/base.py` explains each."""
