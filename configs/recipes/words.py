"""Word-level language models for corpora of a few million tokens, and the AWD-LSTM.

The AWD-LSTM is that of Merity et al. (2017, "Regularizing and Optimizing LSTM Language
Models"): 3 layers, tied weights, NT-ASGD. `awd_lstm_attention` adds attention over the
last 10 outputs. Deviations:

- Segments have 70 tokens, not random lengths around 70, so that one step is compiled;
  thus the learning rate does not depend on the length.
- Initial values are Glorot instead of uniform, with orthogonal recurrent weights and
  biases of 0.
- Each gate has one bias instead of two that are added.
- There is neither finetuning nor a neural cache.
"""

from ml_collections import ConfigDict

from configs import base

STACK = {
    "layers": 4,
    "width": 256,
    "heads": 8,
    "feed_forward": 1024,
    "norm": "pre",
    "dropout": 0.4,
}
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
    "transformer": STACK,
    "transformer_xl": {**STACK, "memory_length": 70},
}

AWD_LSTM = {  # Merity et al. (2017), section 5; comments: names in their code
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


def awd_lstm(
    model: str, *, steps: int, steps_per_epoch: int, batch_size: int, **dropouts
) -> ConfigDict:
    """Returns one of the RECIPES, trained as published.

    Args:
      steps_per_epoch: interval of validations, in which NT-ASGD counts.
      dropouts: rates of the model that differ from corpus to corpus.
    """
    cfg = base.get_config("rnn")
    cfg.model.update(RECIPES[model], **dropouts)
    cfg.steps = steps
    cfg.data.batch_size = batch_size
    cfg.optim.name = "nt_asgd"
    cfg.optim.lr = 30.0
    cfg.optim.schedule = "constant"
    cfg.optim.weight_decay = 1.2e-6
    cfg.every.eval = steps_per_epoch
    cfg.every.checkpoint = steps_per_epoch
    return cfg


def set_word_corpus(cfg: ConfigDict, name: str, vocab_size: int) -> ConfigDict:
    """Sets the task of modelling a corpus by words."""
    cfg.task = "language_modeling"
    cfg.data.name = name
    cfg.data.tokenizer = "word"
    cfg.data.vocab_size = vocab_size
    cfg.data.segment_length = 70
    cfg.optim.clip_norm = 0.25
    cfg.eval.batch_size = 10
    return cfg


def small_model(model: str) -> ConfigDict:
    """Returns the experiment for one of the MODELS."""
    cfg = base.get_config(model)
    cfg.model.update(MODELS[model])
    cfg.steps = 20_000
    cfg.data.batch_size = 20
    cfg.optim.lr = 1e-3
    cfg.optim.warmup = 200
    return cfg
