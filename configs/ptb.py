"""Penn Treebank by words (Mikolov et al. 2010): 929,589 tokens, 10,000 types.

    python train.py --config=configs/ptb.py:rnn --workdir=runs/ptb-rnn

Without a network, --config.data.source_dir=DIR reads ptb.{train,valid,test}.txt.
Perplexities and times are in docs/results.md.

`:awd_lstm` is the AWD-LSTM of Merity et al. (2017) with 24M parameters, and
`:awd_lstm_attention` adds attention over its last 10 outputs; configs/recipes/words.py
names the deviations.

`:transformer_xl_24m` has as many parameters as the Transformer-XL of Dai et al. (2019,
table 5; perplexity 54.52). The authors released no sizes and dropouts: these are ours.

`:zaremba_small` and `:zaremba_medium` are the LSTMs without regularisation and with
dropout of Zaremba et al. (2014, "Recurrent Neural Network Regularization", section 4.1
and table 1; perplexities 114.5 and 82.7). Gradients there are of the loss G that is
summed over the T steps of a segment and averaged over the batch, clipped to the norm c,
with a rate r. Ours are of the mean over all tokens, L = G / T. The update is the same
with the rate r T and the norm c / T:

    r min(1, c / |grad G|) grad G = (r T) min(1, (c / T) / |grad L|) grad L

for r = 1 and c = 5, hence 20 and 5/20 with T = 20, and 35 and 5/35 with T = 35.
TensorFlow's tutorial (ptb_word_lm.py, perplexities 115.9 and 82.1) has the same sum and
lowers the rate first after 4 epochs, as the paper; the authors' code does so after 5.
Deviations: biases start at 0, as those of the LSTM in the tutorial; each gate has one
bias instead of two that are added; states continue from one epoch to the next; the
vocabulary has padding and <bos>.

`:zaremba_small_attention` adds attention over the last 10 outputs and a readout.
`:transformer_small` and `:transformer_xl_small` have as many parameters as
`:zaremba_small`, 4.7M, and about as much time for training. Their recipes are ours.
"""

import math

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

NUM_TOKENS = 929_589  # of the training split
VOCAB_SIZE = 10_002  # 10,000 words, padding and <bos>

TRANSFORMER_XL = {  # 24M parameters
    "layers": 16,
    "width": 380,
    "heads": 10,
    "feed_forward": 700,
    "dropout": 0.45,
    "attention_dropout": 0.15,
    "memory_length": 150,
}

ZAREMBA = {
    "cell": "lstm",
    "layers": 2,
    "width": 200,
    "embedding_width": 200,
    "readout": "none",
    "attention_window": 0,
    "tie_embeddings": False,
    "initialization": "uniform",
    "init_scale": 0.1,
    "dropout": 0.0,
}
MEDIUM = {
    "width": 650,
    "embedding_width": 650,
    "init_scale": 0.05,
    "dropout": 0.5,
    "dropout_input": 0.5,
    "dropout_hidden": 0.5,
}
ATTENTION = {"readout": "tanh", "attention_window": 10, "attention_width": 200}
LSTMS = {  # Zaremba et al. (2014), section 4.1
    "zaremba_small": ZAREMBA,
    "zaremba_small_attention": ZAREMBA | ATTENTION,
    "zaremba_medium": ZAREMBA | MEDIUM,
}

SMALL_STACK = {"layers": 4, "width": 256, "heads": 4, "norm": "pre", "dropout": 0.2}
SMALL = {  # 4.7M parameters
    "transformer_small": SMALL_STACK | {"feed_forward": 512},
    "transformer_xl_small": SMALL_STACK | {"feed_forward": 384, "memory_length": 70},
}
# In the time of zaremba_small.
SMALL_STEPS = {"transformer_small": 5000, "transformer_xl_small": 4500}

# Further names of models.
VARIANTS = (*RECIPES, "transformer_xl_24m", *LSTMS, *SMALL)
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


def zaremba(model: str) -> ConfigDict:
    """Returns one of the LSTMS, with the corpus."""
    is_medium = model == "zaremba_medium"
    length, epochs, first_epochs = (35, 39, 6) if is_medium else (20, 13, 4)
    steps_per_epoch = math.ceil(NUM_TOKENS / (20 * length))
    cfg = set_word_corpus(base.get_config("rnn"), "ptb", VOCAB_SIZE)
    cfg.model.update(LSTMS[model])
    cfg.steps = epochs * steps_per_epoch
    cfg.data.batch_size = 20
    cfg.data.segment_length = length
    cfg.optim.update({"name": "sgd", "lr": 1.0 * length, "clip_norm": 5 / length})
    cfg.optim.schedule = "step_decay"
    cfg.optim.step_decay_start = first_epochs * steps_per_epoch
    cfg.optim.step_decay_interval = steps_per_epoch
    cfg.optim.step_decay_factor = 1 / 1.2 if is_medium else 1 / 2
    cfg.every.eval = steps_per_epoch
    cfg.every.checkpoint = steps_per_epoch
    return cfg


def small_transformer(model: str) -> ConfigDict:
    """Returns one of the SMALL Transformers."""
    cfg = small_model(model.removesuffix("_small"))
    cfg.model.update(SMALL[model])
    cfg.steps = SMALL_STEPS[model]
    cfg.every.eval = 500
    cfg.every.checkpoint = 500
    return cfg


def get_config(model: str = "transformer_xl") -> ConfigDict:
    """Returns the experiment for one of the MODELS or VARIANTS."""
    if model in LSTMS:
        return zaremba(model)
    if model in RECIPES:  # 500 epochs
        cfg = awd_lstm(
            model, steps=331_500, steps_per_epoch=663, batch_size=20, **DROPOUT
        )
    elif model in SMALL:
        cfg = small_transformer(model)
    else:
        cfg = small_model(model) if model in MODELS else transformer_xl_24m()
    return set_word_corpus(cfg, "ptb", VOCAB_SIZE)
