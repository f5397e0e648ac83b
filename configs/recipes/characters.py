"""Byte-level language models, trained as Transformer-XL in Dai et al. (2019)."""

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
        "attention_window": 0,
        "dropout": 0.1,
    },
    "transformer": {**STACK, "attention_dropout": 0.0},
    "transformer_xl": {**STACK, "memory_length": 512},
}

TRANSFORMER_XL_24L = {
    "layers": 24,
    "width": 1024,
    "heads": 8,
    "feed_forward": 3072,
    "dropout": 0.15,
    "attention_dropout": 0.15,
    "memory_length": 768,
}


def byte_level_lm(
    corpus: str,
    model: str,
    sizes: dict,
    *,
    batch_size: int,
    segment_length: int,
    warmup: int,
) -> ConfigDict:
    """Returns the experiment of a language model of a corpus's bytes.

    Args:
      model: name of the architecture.
      sizes: keys of `model` that differ from their defaults.
    """
    cfg = base.get_config(model)
    cfg.model.update(sizes)
    cfg.task = "language_modeling"
    cfg.steps = 400_000
    cfg.data.name = corpus
    cfg.data.tokenizer = "byte"
    cfg.data.batch_size = batch_size
    cfg.data.segment_length = segment_length
    cfg.optim.name = "adam"
    cfg.optim.lr = 2.5e-4
    cfg.optim.warmup = warmup
    cfg.optim.b2 = 0.999
    cfg.optim.eps = 1e-8
    cfg.optim.clip_norm = 0.25
    cfg.every.eval = 4000
    cfg.every.checkpoint = 4000
    return cfg


def set_published_eval(
    cfg: ConfigDict, segment_length: int, memory_length: int, clamp_length: int
) -> ConfigDict:
    """Sets Transformer-XL's evaluation: short segments, a long memory per token."""
    cfg.eval.segment_length = segment_length
    cfg.eval.memory_length = memory_length
    cfg.eval.clamp_length = clamp_length
    cfg.eval.same_length = True
    return cfg
