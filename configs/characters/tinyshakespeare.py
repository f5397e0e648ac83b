"""Tiny Shakespeare (Karpathy 2015) by characters: 1,003,854 of 65 kinds for training.

    python train.py --config=configs/characters/tinyshakespeare.py --workdir=runs/tiny

Without a network, --config.data.source_dir=DIR reads input.txt, plain or .gz.

`:transformer` has the size and the recipe that nanoGPT's README gives for a CPU
(validation loss 1.88), and `:transformer_6layers` those of its
config/train_shakespeare_char.py (1.4697, its best validation). Losses are in nats per
character. `:transformer_xl` and `:rnn` are ours; their steps take as much time as those
of `:transformer`.

Deviations from nanoGPT: linear maps and normalisations have biases; initial values of
linear maps are Glorot's instead of normal with a deviation of 0.02; batches are 12 or
64 streams through the text instead of windows at random places; the validation loss is
that of the whole split, cut into segments that do not overlap.
"""

from ml_collections import ConfigDict

from configs import base

STACK = {
    "layers": 4,
    "width": 128,
    "heads": 4,
    "feed_forward": 512,
    "norm": "pre",
    "activation": "gelu",
    # Tied embeddings times sqrt(D) make each token's own logit sqrt(D) at first.
    "scale_embeddings": False,
    "dropout": 0.0,
}
POSITIONS = {"position_encoding": "learned"}
MODELS = {
    "rnn": {
        "width": 256,
        "embedding_width": 256,
        "readout": "none",
        "attention_window": 0,
        "dropout": 0.0,
    },
    "transformer": {**STACK, **POSITIONS, "max_positions": 64},
    "transformer_xl": {**STACK, "memory_length": 64},
    "transformer_6layers": {
        **STACK,
        **POSITIONS,
        "layers": 6,
        "width": 384,
        "heads": 6,
        "feed_forward": 1536,
        "dropout": 0.2,
        "attention_dropout": 0.2,
        # nanoGPT drops only the outputs of attention and feed-forward layers.
        "feed_forward_dropout": 0.0,
        "max_positions": 256,
    },
}
STEPS = {
    "rnn": 4700,
    "transformer": 2000,
    "transformer_xl": 1500,
    "transformer_6layers": 5000,
}
VARIANTS = ("transformer_6layers",)  # further names of models


def get_config(model: str = "transformer") -> ConfigDict:
    """Returns the experiment for one of the MODELS."""
    cfg = base.get_config(model.removesuffix("_6layers"))
    cfg.task = "language_modeling"
    cfg.model.update(MODELS[model])
    cfg.steps = STEPS[model]
    cfg.data.name = "tinyshakespeare"
    cfg.data.tokenizer = "char"
    is_large = model == "transformer_6layers"
    cfg.data.batch_size = 64 if is_large else 12
    cfg.data.segment_length = 256 if is_large else 64
    cfg.grad_accum_steps = 8 if is_large else 1  # 13 GB of memory without
    cfg.optim.update({"lr": 1e-3, "warmup": 100, "final_lr_ratio": 0.1})
    cfg.optim.update({"b2": 0.99, "eps": 1e-8, "weight_decay": 0.1})
    cfg.eval.batch_size = 64
    cfg.every.log = 50
    cfg.every.eval = 250
    cfg.every.checkpoint = 250
    return cfg
