"""Penn Treebank by characters (Mikolov et al. 2012): 5,017,482 tokens of 50 types.

    python train.py --config=configs/ptb_char.py:transformer_xl --workdir=runs/ptb-char

Without a network, --config.data.source_dir=DIR reads ptb.char.{train,valid,test}.txt.
Bits per character and times are in docs/results.md.

`:rnn` has the sizes of the AWD-LSTM of Merity et al. (2018, "An Analysis of Neural
Language Modeling at Multiple Scales", 1.175 bits per character), with the deviations in
configs/recipes/words.py. Its dropout rates and the sizes of the other models are ours.
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


def get_config(model: str = "transformer_xl") -> ConfigDict:
    """Returns the experiment for one of the MODELS."""
    cfg = base.get_config(model)
    cfg.task = "language_modeling"
    cfg.model.update(MODELS[model])
    cfg.steps = 60_000
    cfg.data.name = "ptb_char"
    cfg.data.tokenizer = "char"
    if model == "rnn":
        cfg.data.update({"batch_size": 128, "segment_length": 150})
        cfg.optim.update({"lr": 2e-3, "weight_decay": 1.2e-6})
    else:
        cfg.data.update({"batch_size": 32, "segment_length": 256})
        cfg.optim.update({"lr": 5e-4, "warmup": 1000})
    cfg.optim.clip_norm = 0.25
    cfg.every.eval = 1000
    cfg.every.checkpoint = 1000
    return cfg
