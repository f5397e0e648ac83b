"""Small models of text pairs, trained from scratch on a CPU."""

from ml_collections import ConfigDict

from configs import base

STACK = {
    "layers": 2,
    "width": 128,
    "heads": 4,
    "feed_forward": 512,
    "norm": "pre",
    "dropout": 0.2,
}
MODELS = {
    "rnn": {
        "width": 192,
        "embedding_width": 128,
        "attention_width": 128,
        "conditional_gru": True,
        "input_feeding": True,
        "dropout": 0.3,
    },
    "transformer": STACK,
    "transformer_xl": {**STACK, "memory_length": 0},  # pairs have no order
}


def text_pairs(
    model: str,
    corpus: str,
    source: str,
    target: str,
    *,
    metrics: tuple[str, ...] = (),
    epoch: int,
    epochs: int,
    longest: int = 64,
    **data,
) -> ConfigDict:
    """Returns the experiment of a small model from one column to another.

    Args:
      model: one of MODELS.
      source, target: names of the columns.
      metrics: `eval.metrics`, of which the first one selects checkpoints.
      epoch: steps of an epoch, about.
      epochs: number of epochs; a validation follows each, or 30 in all.
      longest: most tokens of an output.
      data: keys of `cfg.data`.
    """
    cfg = base.get_config(model)
    cfg.task = "text_to_text"
    cfg.model.update(MODELS[model])
    cfg.steps = epochs * epoch
    cfg.label_smoothing = 0.1
    cfg.data.name = corpus
    cfg.data.source_column = source
    cfg.data.target_column = target
    cfg.data.buckets = 4
    cfg.data.update(data)
    cfg.optim.lr = 1e-3 if model == "rnn" else 2e-3
    cfg.optim.schedule = "cosine"
    cfg.optim.warmup = cfg.get_ref("steps") // 10  # also of steps set later
    cfg.every.log = max(1, epoch // 2)
    cfg.every.eval = cfg.every.checkpoint = epoch * max(1, epochs // 30)
    cfg.eval.metrics = metrics
    cfg.decode.max_length = longest
    cfg.decode.max_length_ratio = float(longest)  # a source may be a word
    return cfg


def english_problems(
    model: str, corpus: str, *, epoch: int, epochs: int = 60
) -> ConfigDict:
    """Returns the experiment of English word problems; see `text_pairs`."""
    return text_pairs(
        model,
        corpus,
        "question",
        "equation",
        metrics=("answer_accuracy", "exact_match"),
        epoch=epoch,
        epochs=epochs,
        longest=32,
        tokenizer="word",
        lowercase=True,
        min_count=2,
        tokens_per_batch=2048,
    )
