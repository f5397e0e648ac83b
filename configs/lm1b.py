"""One Billion Word (Chelba et al. 2013): shuffled sentences, 793,471 word types.

    python train.py --config=configs/lm1b.py:base --workdir=runs/lm1b-base

`:base` and `:large` are the Transformer-XL models of Dai et al. (2019, table 4),
published at perplexities 23.5 and 21.8. The sizes of `:base` are the paper's (20
layers, feed-forward width 6,144, 0.46 billion parameters); the released script has
smaller ones.
"""

from ml_collections import ConfigDict

from configs import base
from configs.recipes.transformer_xl import set_published_adam

CUTOFFS = (60_000, 100_000, 640_000)
ADAPTIVE = {"cutoffs": CUTOFFS, "div_val": 4, "tie_projections": False}
STANDARD = {
    "layers": 20,
    "width": 1024,
    "heads": 8,
    "feed_forward": 6144,
    "dropout": 0.0,
    **ADAPTIVE,
}
MODELS = {
    "rnn": {
        "cell": "lstm",
        "layers": 2,
        "width": 2048,
        "embedding_width": 512,
        "readout": "none",
        "attention_window": 0,
        "dropout": 0.1,
    },
    "transformer": {**STANDARD, "attention_dropout": 0.0},
    "transformer_xl": {**STANDARD, "memory_length": 32},
}
LARGE = {
    "layers": 24,
    "width": 1280,
    "heads": 16,
    "feed_forward": 8192,
    "dropout": 0.05,
    "attention_dropout": 0.05,
    "memory_length": 32,
    **ADAPTIVE,
}
VARIANTS = ("base", "large")  # further names of models


def get_config(model: str = "base") -> ConfigDict:
    """Returns the experiment for one of the MODELS or VARIANTS."""
    is_large = model == "large"
    cfg = base.get_config("transformer_xl" if model in VARIANTS else model)
    cfg.model.update(LARGE if is_large else MODELS[cfg.model.name])
    cfg.task = "language_modeling"
    cfg.steps = 1_200_000 if is_large else 500_000
    cfg.data.name = "lm1b"
    cfg.data.tokenizer = "word"
    cfg.data.vocab_size = 793_475  # 793,471 words and the special tokens
    cfg.data.batch_size = 512 if is_large else 224
    cfg.data.segment_length = 32
    lr, warmup = (1e-4, 30_000) if is_large else (2.5e-4, 20_000)
    set_published_adam(cfg, lr=lr, warmup=warmup)
    cfg.every.eval = 10_000
    cfg.every.checkpoint = 10_000
    if model in VARIANTS:
        cfg.eval.segment_length = 32
        cfg.eval.memory_length = 128
        cfg.eval.same_length = True
    return cfg
