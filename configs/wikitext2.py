"""WikiText-2 by words (Merity et al. 2017): 2,088,628 tokens, 33,278 types.

    python train.py --config=configs/wikitext2.py:rnn --workdir=runs/wt2-rnn

Without a network, --config.data.source_dir=DIR reads wiki.{train,valid,test}.tokens.
Perplexities and times are in docs/results.md.

`:awd_lstm` is the AWD-LSTM of Merity et al. (2017) with 33M parameters, and
`:awd_lstm_attention` adds attention over its last 10 outputs; configs/recipes/words.py
names the deviations.
"""

from ml_collections import ConfigDict

from configs.recipes.words import RECIPES, awd_lstm, set_word_corpus, small_model

VARIANTS = tuple(RECIPES)  # further names of models
# dropouti, dropouth in the authors' code
DROPOUT = {"dropout_input": 0.65, "dropout_hidden": 0.2}


def get_config(model: str = "transformer_xl") -> ConfigDict:
    """Returns the experiment for an architecture or one of the VARIANTS."""
    if model in RECIPES:  # 750 epochs
        cfg = awd_lstm(
            model, steps=279_750, steps_per_epoch=373, batch_size=80, **DROPOUT
        )
    else:
        cfg = small_model(model)
    # 33,278 words, padding and <bos>.
    return set_word_corpus(cfg, "wikitext2", vocab_size=33_280)
