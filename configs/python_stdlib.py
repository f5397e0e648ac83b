"""Source code of the running Python's standard library, read as bytes.

    python train.py --config=configs/python_stdlib.py --workdir=runs/stdlib

It needs no network. Bits per byte and times are in docs/results.md.
"""

from ml_collections import ConfigDict

from configs import base

STACK = {"layers": 4, "width": 256, "heads": 8, "feed_forward": 1024, "norm": "pre"}
MODELS = {
    "rnn": {"width": 512, "embedding_width": 128, "attention_width": 128},
    "transformer": STACK,
    "transformer_xl": {**STACK, "memory_length": 128},
}


def get_config(model: str = "transformer_xl") -> ConfigDict:
    """Returns the experiment for one of the MODELS."""
    cfg = base.get_config(model)
    cfg.task = "language_modeling"
    cfg.model.update(MODELS[model])
    cfg.steps = 2000
    cfg.data.name = "python_stdlib"
    cfg.data.tokenizer = "byte"
    cfg.data.batch_size = 16
    cfg.data.segment_length = 128
    cfg.optim.lr = 1e-3
    cfg.optim.warmup = 100
    cfg.every.log = 50
    cfg.every.eval = 500
    cfg.every.checkpoint = 500
    return cfg
