"""Language models of words, for corpora of a few million: plain ones and AWD-LSTM.

The AWD-LSTM is that of Merity et al. (2017, "Regularizing and Optimizing LSTM Language
Models"): 3 layers, weights tied, NT-ASGD; `awd_lstm_attention` the same with attention
over its last 10 outputs. Deviations: segments of 70 tokens instead of random lengths
about 70, so that one step is compiled, and with them no learning rate by length;
initial values are ours (close: Glorot for their uniform, orthogonal recurrent weights,
biases 0); one bias a gate instead of two that add up; no finetuning, no cache.
"""

from ml_collections import ConfigDict

from configs import base

MODELS = {
    "rnn": {
        "layers": 2,
        "width": 400,
        "embedding_width": 400,
        "attention_width": 200,
        "dropout": 0.4,
        "dropout_input": 0.4,
        "dropout_hidden": 0.4,
    },
    "transformer": {
        "layers": 4,
        "width": 256,
        "heads": 8,
        "feed_forward": 1024,
        "norm": "pre",
        "dropout": 0.4,
    },
    "transformer_xl": {
        "layers": 4,
        "width": 256,
        "heads": 8,
        "feed_forward": 1024,
        "norm": "pre",
        "memory_length": 70,
        "dropout": 0.4,
    },
}

AWD_LSTM = {  # Merity et al. (2017), section 5; names of their code behind the keys
    "cell": "lstm",
    "layers": 3,
    "width": 1150,
    "embedding_width": 400,
    "attention_window": 0,
    "readout": "none",
    "tie_embeddings": True,
    "dropout": 0.4,
    "dropout_embedding": 0.1,  # dropoute
    "weight_dropout": 0.5,  # wdrop
    "variational_dropout": True,
    "activation_regularization": 2.0,  # alpha
    "temporal_activation_regularization": 1.0,  # beta
}

RECIPES = {
    "awd_lstm": AWD_LSTM,
    "awd_lstm_attention": AWD_LSTM
    | {"readout": "tanh", "attention_window": 10, "attention_width": 400},
}


def awd_lstm(model: str, *, steps: int, epoch: int, rows: int, **changes) -> ConfigDict:
    """One of the RECIPES, trained as published.

    Args:
      epoch: its steps: what NT-ASGD counts.
      changes: of the model, dropouts that differ from corpus to corpus.
    """
    cfg = base.get_config("rnn")
    cfg.model.update(RECIPES[model], **changes)
    cfg.steps = steps
    cfg.data.batch_size = rows
    cfg.optim.name = "nt_asgd"
    cfg.optim.lr = 30.0
    cfg.optim.schedule = "constant"
    cfg.optim.weight_decay = 1.2e-6
    cfg.every.eval = epoch
    cfg.every.checkpoint = epoch
    return cfg


def on_words(cfg: ConfigDict, name: str, vocab_size: int) -> ConfigDict:
    """The task, for the words of the corpus `name`."""
    cfg.task = "language_modeling"
    cfg.data.name = name
    cfg.data.tokenizer = "word"
    cfg.data.vocab_size = vocab_size
    cfg.data.segment_length = 70
    cfg.optim.clip_norm = 0.25
    cfg.eval.batch_size = 10
    return cfg


def plain(model: str) -> ConfigDict:
    """One of the MODELS."""
    cfg = base.get_config(model)
    cfg.model.update(MODELS[model])
    cfg.steps = 20_000
    cfg.data.batch_size = 20
    cfg.optim.lr = 1e-3
    cfg.optim.warmup = 200
    return cfg
