"""enwik8: the first 100 MB of Wikipedia (Mahoney), by bytes; 90 + 5 + 5 million.

    python train.py --config=configs/enwik8.py:12l --workdir=runs/enwik8-12l

`:12l`, `:18l` and `:24l` are Transformer-XL's rows of Dai et al. (2019, table 2),
published at 1.06, 1.03 and 0.99 bits per character. 12 and 24 layers follow the
authors' scripts; those of 18 layers were not released, so its sizes are ours, fitted
to the 88M parameters of the table. The architectures' names give 12 layers of each.
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

VARIANTS = ("12l", "18l", "24l")  # what `get_config` takes beside the MODELS

# Model, rows, tokens of a segment, warm-up; eval: segment, memory, clamp.
PUBLISHED = {
    "12l": ({**STACK, "memory_length": 512}, 22, 512, 0, (80, 2100, 820)),
    "18l": (
        {
            "layers": 18,
            "width": 640,
            "heads": 8,
            "feed_forward": 2200,
            "dropout": 0.15,
            "attention_dropout": 0.15,
            "memory_length": 784,
        },
        64,
        784,
        4000,
        (128, 3800, 1000),
    ),
    "24l": (
        {
            "layers": 24,
            "width": 1024,
            "heads": 8,
            "feed_forward": 3072,
            "dropout": 0.15,
            "attention_dropout": 0.15,
            "memory_length": 768,
        },
        64,
        768,
        4000,
        (128, 3800, 1000),
    ),
}


def get_config(model: str = "12l") -> ConfigDict:
    """The experiment for one of the MODELS or VARIANTS."""
    cfg = base.get_config("transformer_xl" if model in VARIANTS else model)
    rest = ({}, 22, 512, 0, (512, None, None))
    sizes, rows, length, warmup, protocol = PUBLISHED.get(model, rest)
    cfg.model.update(sizes or MODELS[model])
    cfg.task = "language_modeling"
    cfg.steps = 400_000
    cfg.data.name = "enwik8"
    cfg.data.tokenizer = "byte"
    cfg.data.batch_rows = rows
    cfg.data.segment_length = length
    cfg.optim.name = "adam"
    cfg.optim.lr = 2.5e-4
    cfg.optim.warmup = warmup
    cfg.optim.b2 = 0.999
    cfg.optim.eps = 1e-8
    cfg.optim.clip = 0.25
    cfg.every.eval = 4000
    cfg.every.checkpoint = 4000
    cfg.eval.segment_length, cfg.eval.memory_length, cfg.eval.clamp_length = protocol
    cfg.eval.same_length = True if model in VARIANTS else None
    return cfg
