"""Phrases of Unicode CLDR in two languages: dates, units, currencies, lists.

    python train.py --config=configs/cldr.py:rnn --workdir=runs/cldr-rnn

Made on the spot by Babel, so it needs no network; any two of en de fr es zh ja
ru: --config.data.name=cldr/ja-fr. Minutes, device and BLEU: see RESULTS.md.
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
    cfg.steps = 2000
    cfg.data.name = "cldr/en-de"
    cfg.data.vocab_size = 1000
    cfg.data.batch_tokens = 2048
    cfg.data.buckets = 4
    cfg.data.max_length = 64
    cfg.optim.lr = 3e-3
    cfg.optim.warmup = 200
    cfg.every.log = 100
    cfg.every.eval = 1000
    cfg.every.checkpoint = 1000
    cfg.decode.max_length = 64
    return cfg
