"""Small encoders of labelled texts, trained from scratch on a CPU."""

from ml_collections import ConfigDict

from configs import base

STACK = {
    "layers": 2,
    "width": 128,
    "heads": 4,
    "feed_forward": 512,
    "activation": "gelu",
    "norm": "pre",
    "dropout": 0.2,
}
MODELS = {
    # Width of each direction; attention of every position to all (Liu and Lane 2016).
    "rnn": {
        "cell": "lstm",
        "width": 200,
        "embedding_width": 200,
        "attention_width": 100,
        "dropout": 0.5,
    },
    "transformer": STACK,
    "transformer_xl": {**STACK, "memory_length": 0},  # a text is one segment
}
LEARNED_POSITIONS = {"position_encoding": "learned", "max_positions": 512}
# Encoders of about 1, 3 and 10 million parameters with 8,000 tokens, such as
# "transformer_3m": layers of the RNN, layers of the others, and their width.
SIZES = {"1m": (1, 2, 96), "3m": (2, 3, 192), "10m": (2, 4, 384)}
# Those of "rnn" were chosen on the validation splits of ATIS and TREC.
LEARNING_RATES = {"rnn": 2e-3, "transformer": 5e-4, "transformer_xl": 5e-4}


def labeled_texts(
    model: str, task: str, corpus: str, *, epoch: int, epochs: int, **data
) -> ConfigDict:
    """Returns the experiment of a small encoder on labelled texts.

    Args:
      model: one of MODELS, or with one of SIZES, such as "rnn_3m".
      epoch: steps of an epoch, about; each ends with a validation.
      epochs: number of epochs.
      data: keys of `cfg.data`.
    """
    cfg = sized_config(model)
    cfg.task = task
    cfg.steps = epochs * epoch
    cfg.data.name = corpus
    cfg.data.buckets = 4
    cfg.data.update(data)
    cfg.head.pooling = "attention"
    cfg.optim.lr = LEARNING_RATES[cfg.model.name]
    cfg.optim.schedule = "linear"
    cfg.optim.warmup = cfg.get_ref("steps") // 10  # also of steps set later
    cfg.optim.weight_decay = 0.0 if cfg.model.name == "rnn" else 0.01
    cfg.every.log = max(1, epoch // 2)
    cfg.every.eval = cfg.every.checkpoint = epoch
    cfg.eval.batch_size = 64
    return cfg


def masked_texts(model: str, corpus: str, **data) -> ConfigDict:
    """Returns the experiment of pre-training a small encoder on documents.

    The Transformer is BERT's (Devlin et al. 2019) but for the order of normalisation,
    which lets it start without a long warm-up. Transformer-XL reads documents in order,
    with a memory of the segment before. With a size, all three have next sentences to
    predict, and no memory.

    Args:
      model: one of MODELS, or with one of SIZES, such as "rnn_3m".
      data: keys of `cfg.data`.
    """
    cfg = sized_config(model)
    cfg.task = "masked_language_modeling"
    cfg.model.dropout = 0.1
    if model == "transformer":
        cfg.model.update(LEARNED_POSITIONS)
    if model == "rnn":
        cfg.model.update(width=256, embedding_width=256)
    elif model in MODELS:
        cfg.model.update(layers=4, width=256, feed_forward=1024)
    if model == "transformer_xl":
        cfg.model.memory_length = 128
        cfg.data.document_order = True  # False, to set mlm.next_sentence
    cfg.steps = 10_000
    cfg.data.name = corpus
    cfg.data.batch_size = 32
    cfg.data.update(data)
    cfg.optim.lr = 5e-4 if model in ("transformer", "transformer_xl") else 1e-3
    cfg.optim.schedule = "linear"
    cfg.optim.warmup = 500
    cfg.optim.weight_decay = 0.01
    cfg.every.eval = cfg.every.checkpoint = 1000
    cfg.eval.batch_size = 64
    if model not in MODELS:  # with a size
        cfg.mlm.next_sentence = True
        cfg.steps = 2400
        cfg.optim.warmup = cfg.every.eval = cfg.every.checkpoint = 240
    return cfg


def sized_config(model: str) -> ConfigDict:
    """Returns the default experiment with an encoder, perhaps of one of SIZES."""
    name, _, size = model.rpartition("_")
    if size not in SIZES:
        cfg = base.get_config(model)
        cfg.model.update(MODELS[model])
        return cfg
    cfg = base.get_config(name)
    cfg.model.update(MODELS[name])
    rnn_layers, layers, width = SIZES[size]
    if name == "rnn":  # without attention of every position to all, which takes longest
        cfg.model.update(layers=rnn_layers, width=width, embedding_width=width)
        cfg.model.update(readout="none", attention_window=0)
    else:
        cfg.model.update(layers=layers, width=width, feed_forward=4 * width)
    if name == "transformer":
        cfg.model.update(LEARNED_POSITIONS)
    return cfg
