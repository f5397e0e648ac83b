"""Penn Treebank by words: LSTMs of Zaremba et al. (2014), and Transformers as large.

    python train.py --config=configs/ptb_zaremba.py:rnn --workdir=runs/zaremba

Without a network, --config.data.source_dir=DIR reads ptb.{train,valid,test}.txt.

`:rnn` and `:rnn_medium` are the LSTMs without regularisation and with dropout of
"Recurrent Neural Network Regularization" (section 4.1 and table 1; perplexities 114.5
and 82.7). Gradients there are of the loss G that is summed over the T steps of a
segment and averaged over the batch, clipped to the norm c, with a rate r. Ours are of
the mean over all tokens, L = G / T. The update is the same with the rate r T and the
norm c / T:

    r min(1, c / |grad G|) grad G = (r T) min(1, (c / T) / |grad L|) grad L

for r = 1 and c = 5, hence 20 and 5/20 with T = 20, and 35 and 5/35 with T = 35.
TensorFlow's tutorial (ptb_word_lm.py, perplexities 115.9 and 82.1) has the same sum and
lowers the rate first after 4 epochs, as the paper; the authors' code does so after 5.
Deviations: biases start at 0, as those of the LSTM in the tutorial; each gate has one
bias instead of two that are added; states continue from one epoch to the next; the
vocabulary has padding and <bos>.

`:rnn_attention` adds attention over the last 10 outputs and a readout. `:transformer`
and `:transformer_xl` have as many parameters as `:rnn`, 4.7M, and about as much time
for training. Their recipes are ours.
"""

import math

from ml_collections import ConfigDict

from configs import base
from configs.recipes.words import set_word_corpus, small_model

NUM_TOKENS = 929_589  # of the training split

LSTM = {
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
ATTENTION = {"readout": "tanh", "attention_window": 10, "attention_width": 200}
MEDIUM = {
    "width": 650,
    "embedding_width": 650,
    "init_scale": 0.05,
    "dropout": 0.5,
    "dropout_input": 0.5,
    "dropout_hidden": 0.5,
}
STACK = {"layers": 4, "width": 256, "heads": 4, "norm": "pre", "dropout": 0.2}
MODELS = {
    "rnn": LSTM,
    "rnn_attention": LSTM | ATTENTION,
    "rnn_medium": LSTM | MEDIUM,
    "transformer": STACK | {"feed_forward": 512},
    "transformer_xl": STACK | {"feed_forward": 384, "memory_length": 70},
}
STEPS = {"transformer": 5000, "transformer_xl": 4500}  # in the time of the LSTM
VARIANTS = ("rnn_attention", "rnn_medium")  # further names of models


def get_config(model: str = "rnn") -> ConfigDict:
    """Returns the experiment for one of the MODELS."""
    is_lstm = model not in STEPS
    cfg = base.get_config("rnn") if is_lstm else small_model(model)
    # 10,000 words, padding and <bos>.
    set_word_corpus(cfg, "ptb", vocab_size=10_002)
    cfg.model.update(MODELS[model])
    if is_lstm:
        set_published_training(cfg, is_medium=model == "rnn_medium")
    else:
        cfg.steps = STEPS[model]
        cfg.every.update({"eval": 500, "checkpoint": 500})
    return cfg


def set_published_training(cfg: ConfigDict, *, is_medium: bool) -> None:
    """Sets batches, steps and learning rates of Zaremba et al. (2014)."""
    length, epochs, first_epochs = (35, 39, 6) if is_medium else (20, 13, 4)
    steps_per_epoch = math.ceil(NUM_TOKENS / (20 * length))
    cfg.steps = epochs * steps_per_epoch
    cfg.data.update({"batch_size": 20, "segment_length": length})
    cfg.optim.update({"name": "sgd", "lr": 1.0 * length, "clip_norm": 5 / length})
    cfg.optim.schedule = "step_decay"
    cfg.optim.step_decay_start = first_epochs * steps_per_epoch
    cfg.optim.step_decay_interval = steps_per_epoch
    cfg.optim.step_decay_factor = 1 / 1.2 if is_medium else 1 / 2
    cfg.every.update({"eval": steps_per_epoch, "checkpoint": steps_per_epoch})
