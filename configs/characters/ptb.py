"""Penn Treebank by characters (Mikolov et al. 2012): 5,017,482 tokens of 50 types.

    python train.py --config=configs/characters/ptb.py:rnn --workdir=runs/ptb-char

Without a network, --config.data.source_dir=DIR reads ptb.char.{train,valid,test}.txt.
Bits per character and times are in docs/results.md.

`:rnn` has the sizes of the AWD-LSTM of Merity et al. (2018, "An Analysis of Neural
Language Modeling at Multiple Scales", 1.175 bits per character), with the deviations in
configs/recipes/words.py. Its dropout rates and the sizes of the other models are ours.

`:rnn_small`, `:transformer_small` and `:transformer_xl_small` have 1.8M parameters and
a budget of about 2 hours on one core each. Their sizes and recipes are ours.
"""

from ml_collections import ConfigDict

from configs import base

STACK = {
    "layers": 8,
    "width": 384,
    "heads": 8,
    "feed_forward": 1536,
    "norm": "pre",
    "dropout": 0.25,
    "attention_dropout": 0.1,
}

MODELS = {
    "rnn": {
        "cell": "lstm",
        "layers": 3,
        "width": 1000,
        "embedding_width": 200,
        "readout": "none",
        "attention_window": 0,
        "tie_embeddings": True,
        "dropout": 0.1,
        "dropout_input": 0.1,
        "dropout_hidden": 0.25,
        "weight_dropout": 0.5,
        "variational_dropout": True,
    },
    "transformer": STACK,
    "transformer_xl": {**STACK, "memory_length": 256},
}

SMALL_STACK = {
    "layers": 4,
    "width": 192,
    "heads": 4,
    "feed_forward": 768,
    "norm": "pre",
    "dropout": 0.05,
    "attention_dropout": 0.0,
}
SMALL_MODELS = {  # 1.8M parameters
    "rnn_small": {
        "cell": "lstm",
        "layers": 2,
        "width": 368,
        "embedding_width": 64,
        "readout": "none",
        "attention_window": 0,
        "tie_embeddings": False,
        "dropout": 0.05,
        "dropout_input": 0.0,
        "dropout_hidden": 0.05,
    },
    "transformer_small": SMALL_STACK,
    "transformer_xl_small": SMALL_STACK | {"feed_forward": 672, "memory_length": 128},
}
SMALL_STEPS = {  # in 2 hours on one core
    "rnn_small": 8000,
    "transformer_small": 7500,
    "transformer_xl_small": 6000,
}

VARIANTS = tuple(SMALL_MODELS)  # further names of models


def small_model(model: str) -> ConfigDict:
    """Returns one of the SMALL_MODELS, without the keys of the corpus."""
    cfg = base.get_config(model.removesuffix("_small"))
    cfg.model.update(SMALL_MODELS[model])
    cfg.steps = SMALL_STEPS[model]
    cfg.data.update({"batch_size": 32, "segment_length": 128})
    cfg.optim.update({"lr": 2e-3, "warmup": 200})
    cfg.every.eval = 500
    cfg.every.checkpoint = 500
    return cfg


def published_size(model: str) -> ConfigDict:
    """Returns one of the MODELS, without the keys of the corpus."""
    cfg = base.get_config(model)
    cfg.model.update(MODELS[model])
    cfg.steps = 60_000
    if model == "rnn":
        cfg.data.update({"batch_size": 128, "segment_length": 150})
        cfg.optim.update({"lr": 2e-3, "weight_decay": 1.2e-6})
    else:
        cfg.data.update({"batch_size": 32, "segment_length": 256})
        cfg.optim.update({"lr": 5e-4, "warmup": 1000})
    cfg.every.eval = 1000
    cfg.every.checkpoint = 1000
    return cfg


def get_config(model: str = "transformer_xl") -> ConfigDict:
    """Returns the experiment for one of the MODELS or VARIANTS."""
    cfg = small_model(model) if model in SMALL_MODELS else published_size(model)
    cfg.task = "language_modeling"
    cfg.data.name = "ptb_char"
    cfg.data.tokenizer = "char"
    cfg.optim.clip_norm = 0.25
    return cfg
