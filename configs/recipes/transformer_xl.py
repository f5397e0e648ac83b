"""Models, training and scoring of Dai et al. (2019) that several configs share."""

from ml_collections import ConfigDict

STACK = {"layers": 12, "width": 512, "heads": 8, "feed_forward": 2048, "dropout": 0.1}
BYTE_MODELS = {  # of enwik8, with 12 layers
    "rnn": {
        "cell": "lstm",
        "layers": 3,
        "width": 1840,
        "embedding_width": 400,
        "readout": "none",
        "attention_window": 0,
        "dropout": 0.1,
    },
    "transformer": {**STACK, "attention_dropout": 0.0},
    "transformer_xl": {**STACK, "memory_length": 512},
}


def set_published_adam(cfg: ConfigDict, lr: float = 2.5e-4, warmup: int = 0) -> None:
    """Sets the optimiser of the authors' scripts."""
    cfg.optim.update({"name": "adam", "lr": lr, "warmup": warmup})
    cfg.optim.update({"b2": 0.999, "eps": 1e-8, "clip_norm": 0.25})


def set_published_eval(
    cfg: ConfigDict, segment_length: int, memory_length: int, clamp_length: int
) -> None:
    """Sets the evaluation: short segments, a long memory of equal length per token."""
    cfg.eval.segment_length = segment_length
    cfg.eval.memory_length = memory_length
    cfg.eval.clamp_length = clamp_length
    cfg.eval.same_length = True
