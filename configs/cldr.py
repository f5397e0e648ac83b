"""Unicode CLDR: phrases in two languages (dates, units, currencies, lists).

    python train.py --config=configs/cldr.py:rnn --workdir=runs/cldr-rnn

Babel generates the corpus, without a network. Any two of en de fr es zh ja ru form a
pair: --config.data.name=cldr/ja-fr. Times and BLEU are in docs/results.md.
"""

from ml_collections import ConfigDict

from configs import base

STACK = {"layers": 2, "width": 128, "heads": 4, "feed_forward": 512, "norm": "pre"}
MODELS = {
    "rnn": {"width": 160, "embedding_width": 128, "attention_width": 128},
    "transformer": STACK,
    # The order of phrases has no meaning.
    "transformer_xl": {**STACK, "memory_length": 0},
}


def get_config(model: str = "transformer") -> ConfigDict:
    """Returns the experiment for one of the MODELS."""
    cfg = base.get_config(model)
    cfg.model.update(MODELS[model])
    cfg.model.dropout = 0.0  # one or two epochs do not overfit
    cfg.steps = 1300
    cfg.data.name = "cldr/en-de"
    cfg.data.vocab_size = 1000
    cfg.data.tokens_per_batch = 512  # small batches converge faster on a CPU
    cfg.data.buckets = 2  # compiling for a shape takes as long as 50 steps
    cfg.data.max_length = 32
    cfg.optim.lr = 3e-3 if model == "rnn" else 1.5e-3
    cfg.optim.schedule = "linear"
    cfg.optim.warmup = 100
    cfg.every.log = 100
    cfg.every.eval = 325
    cfg.every.checkpoint = 650
    cfg.decode.max_length = 64
    return cfg
