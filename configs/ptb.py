"""Penn Treebank, words (Mikolov et al. 2010): 929,589 tokens, 10,000 words.

    python train.py --config=configs/ptb.py:rnn --workdir=runs/ptb-rnn

Without a network: --config.data.source_dir=DIR with ptb.{train,valid,test}.txt.
Perplexity and time: see docs/results.md.

`:awd_lstm` is the AWD-LSTM of Merity et al. (2017), 24M parameters, and
`:awd_lstm_attention` the same with attention over its last 10 outputs; deviations are
named in configs/recipes/words.py.

`:transformer_xl_24m` has the size of Transformer-XL's row in Dai et al. (2019, table
5; perplexity 54.52). Its sizes and dropouts were never released: these are ours.
"""

from ml_collections import ConfigDict

from configs import base
from configs.recipes.words import MODELS, RECIPES, awd_lstm, on_words, plain

TRANSFORMER_XL = {  # 24M parameters
    "layers": 16,
    "width": 380,
    "heads": 10,
    "feed_forward": 700,
    "dropout": 0.45,
    "attention_dropout": 0.15,
    "memory_length": 150,
}

VARIANTS = (*RECIPES, "transformer_xl_24m")  # what `get_config` takes beside the MODELS
DROPOUT = {"dropout_input": 0.4, "dropout_hidden": 0.25}  # dropouti, dropouth


def transformer_xl_24m() -> ConfigDict:
    """Transformer-XL as large as the AWD-LSTM."""
    cfg = base.get_config("transformer_xl")
    cfg.model.update(TRANSFORMER_XL)
    cfg.steps = 100_000
    cfg.data.batch_size = 20
    cfg.optim.name = "adam"
    cfg.optim.lr = 2.5e-4
    cfg.optim.warmup = 4000
    cfg.optim.b2 = 0.999
    cfg.optim.eps = 1e-8
    cfg.eval.same_length = True
    return cfg


def get_config(model: str = "transformer_xl") -> ConfigDict:
    """The experiment for one of the MODELS or VARIANTS."""
    if model in RECIPES:  # 500 epochs
        cfg = awd_lstm(model, steps=331_500, epoch=663, rows=20, **DROPOUT)
    else:
        cfg = plain(model) if model in MODELS else transformer_xl_24m()
    # The corpus's 10,000, padding and <bos>.
    return on_words(cfg, "ptb", vocab_size=10_002)
