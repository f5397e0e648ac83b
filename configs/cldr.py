"""Phrases of Unicode CLDR in two languages: dates, units, currencies, lists.

    python train.py --config=configs/cldr.py:rnn --workdir=runs/cldr-rnn

Made on the spot by Babel, so it needs no network; any two of en de fr es zh ja
ru: --config.data.name=cldr/ja-fr. Minutes, device and BLEU: see docs/results.md.
"""

from ml_collections import ConfigDict

from configs import base

MODELS = {
    "rnn": {"width": 160, "embedding_width": 128, "attention_width": 128},
    "transformer": {
        "layers": 2,
        "width": 128,
        "heads": 4,
        "feed_forward": 512,
        "norm": "pre",
    },
    "transformer_xl": {
        "layers": 2,
        "width": 128,
        "heads": 4,
        "feed_forward": 512,
        "norm": "pre",
        "memory_length": 0,  # phrases come in no order
    },
}


def get_config(model: str = "transformer") -> ConfigDict:
    """The experiment for one of the MODELS."""
    cfg = base.get_config(model)
    cfg.model.update(MODELS[model])
    cfg.model.dropout = 0.0  # one or two passes over the phrases: nothing to overfit
    cfg.steps = 1300
    cfg.data.name = "cldr/en-de"
    cfg.data.vocab_size = 1000
    cfg.data.tokens_per_batch = 512  # on a CPU many small steps learn faster
    cfg.data.buckets = 2  # compiling a shape takes as long as 50 steps
    cfg.data.max_length = 32
    cfg.optim.lr = 3e-3 if model == "rnn" else 1.5e-3
    cfg.optim.schedule = "linear"
    cfg.optim.warmup = 100
    cfg.every.log = 100
    cfg.every.eval = 325
    cfg.every.checkpoint = 650
    cfg.decode.max_length = 64
    return cfg
