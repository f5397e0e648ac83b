"""WikiText-2, words (Merity et al. 2017): 2,088,628 tokens, 33,278 words.

    python train.py --config=configs/wikitext2.py:rnn --workdir=runs/wt2-rnn

Without a network: --config.data.source_dir=DIR with wiki.{train,valid,test}.tokens.
Perplexity and time: see docs/results.md.

`:awd_lstm` is the AWD-LSTM of Merity et al. (2017), 33M parameters, and
`:awd_lstm_attention` the same with attention over its last 10 outputs; deviations are
named in configs/recipes/words.py.
"""

from ml_collections import ConfigDict

from configs.recipes.words import RECIPES, awd_lstm, on_words, plain

VARIANTS = tuple(RECIPES)  # what `get_config` takes beside the architectures' names
DROPOUT = {"dropout_input": 0.65, "dropout_hidden": 0.2}  # dropouti, dropouth


def get_config(model: str = "transformer_xl") -> ConfigDict:
    """The experiment for an architecture's name or one of the VARIANTS."""
    if model in RECIPES:  # 750 epochs
        cfg = awd_lstm(model, steps=279_750, epoch=373, rows=80, **DROPOUT)
    else:
        cfg = plain(model)
    # The corpus's 33,278, padding and <bos>.
    return on_words(cfg, "wikitext2", vocab_size=33_280)
