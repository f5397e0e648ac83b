"""text8: enwik8 as the letters a to z and spaces (Mahoney); 90 + 5 + 5 million.

    python train.py --config=configs/text8.py:24l --workdir=runs/text8-24l

`:24l` is Transformer-XL as in Dai et al. (2019, table 3), published at 1.08 bits per
character, with the sizes and the recipe of enwik8's 24 layers, "without further
tuning". The architectures' names give 12 layers of each.
"""

from ml_collections import ConfigDict

from configs import base

STACK = {"layers": 12, "width": 512, "heads": 8, "feed_forward": 2048, "dropout": 0.1}

MODELS = {
    "rnn": {
        "cell": "lstm",
        "layers": 3,
        "width": 1840,
        "embedding_width": 400,
        "readout": "none",
        "memory_length": 0,
        "dropout": 0.1,
    },
    "transformer": {**STACK, "attention_dropout": 0.0},
    "transformer_xl": {**STACK, "memory_length": 512},
}

LARGE = {
    "layers": 24,
    "width": 1024,
    "heads": 8,
    "feed_forward": 3072,
    "dropout": 0.15,
    "attention_dropout": 0.15,
    "memory_length": 768,
}
VARIANTS = ("24l",)  # what `get_config` takes beside the MODELS


def get_config(model: str = "24l") -> ConfigDict:
    """The experiment for one of the MODELS or VARIANTS."""
    large = model in VARIANTS
    cfg = base.get_config("transformer_xl" if large else model)
    cfg.model.update(LARGE if large else MODELS[model])
    cfg.task = "language_modeling"
    cfg.steps = 400_000
    cfg.data.name = "text8"
    cfg.data.tokenizer = "byte"
    cfg.data.batch_rows = 64 if large else 22
    cfg.data.segment_length = 768 if large else 512
    cfg.optim.name = "adam"
    cfg.optim.lr = 2.5e-4
    cfg.optim.warmup = 4000 if large else 0
    cfg.optim.b2 = 0.999
    cfg.optim.eps = 1e-8
    cfg.optim.clip = 0.25
    cfg.every.eval = 4000
    cfg.every.checkpoint = 4000
    if large:
        cfg.eval.segment_length = 128
        cfg.eval.memory_length = 3800
        cfg.eval.clamp_length = 1000
        cfg.eval.same_length = True
    return cfg
