"""Penn Treebank by words (Mikolov et al. 2010): 929,589 tokens, 10,000 types.

    python train.py --config=configs/ptb.py:rnn --workdir=runs/ptb-rnn

Without a network, --config.data.source_dir=DIR reads ptb.{train,valid,test}.txt.
Perplexities and times are in docs/results.md.

`:awd_lstm` is the AWD-LSTM of Merity et al. (2017) with 24M parameters, and
`:awd_lstm_attention` adds attention over its last 10 outputs; configs/recipes/words.py
names the deviations.

`:transformer_xl_24m` has as many parameters as the Transformer-XL of Dai et al. (2019,
table 5; perplexity 54.52). The authors released no sizes and dropouts: these are ours.
"""

from ml_collections import ConfigDict

from configs import base
from configs.recipes.transformer_xl import set_published_adam
from configs.recipes.words import (
    MODELS,
    RECIPES,
    awd_lstm,
    set_word_corpus,
    small_model,
)

TRANSFORMER_XL = {  # 24M parameters
    "layers": 16,
    "width": 380,
    "heads": 10,
    "feed_forward": 700,
    "dropout": 0.45,
    "attention_dropout": 0.15,
    "memory_length": 150,
}

VARIANTS = (*RECIPES, "transformer_xl_24m")  # further names of models
# dropouti, dropouth in the authors' code
DROPOUT = {"dropout_input": 0.4, "dropout_hidden": 0.25}


def transformer_xl_24m() -> ConfigDict:
    """Returns a Transformer-XL with as many parameters as the AWD-LSTM."""
    cfg = base.get_config("transformer_xl")
    cfg.model.update(TRANSFORMER_XL)
    cfg.steps = 100_000
    cfg.data.batch_size = 20
    set_published_adam(cfg, warmup=4000)
    cfg.eval.same_length = True
    return cfg


def get_config(model: str = "transformer_xl") -> ConfigDict:
    """Returns the experiment for one of the MODELS or VARIANTS."""
    if model in RECIPES:  # 500 epochs
        cfg = awd_lstm(
            model, steps=331_500, steps_per_epoch=663, batch_size=20, **DROPOUT
        )
    else:
        cfg = small_model(model) if model in MODELS else transformer_xl_24m()
    # 10,000 words, padding and <bos>.
    return set_word_corpus(cfg, "ptb", vocab_size=10_002)
