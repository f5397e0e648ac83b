"""WikiText-2, words (Merity et al. 2017): 2,088,628 tokens, 33,278 words.

    python train.py --config=configs/wikitext2.py:rnn --workdir=runs/wt2-rnn

Without a network: --config.data.source_dir=DIR with wiki.{train,valid,test}.tokens.
Perplexity and time: see RESULTS.md.

`:awd_lstm` is the AWD-LSTM of Merity et al. (2017, "Regularizing and Optimizing
LSTM Language Models"): 3 layers, weights tied, NT-ASGD, 33M parameters;
`:awd_lstm_attention` the same with attention over its last 10 outputs. Deviations:
segments of 70 tokens instead of random lengths about 70, so that one step is
compiled, and with them no learning rate by length; initial values are ours (close:
Glorot for their uniform, orthogonal recurrent weights, biases 0); one bias a gate
instead of two that add up; no finetuning, no cache.
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
    "memory_length": 0,
    "readout": "none",
    "tie_embeddings": True,
    "dropout": 0.4,
    "dropout_input": 0.65,  # dropouti
    "dropout_hidden": 0.2,  # dropouth
    "dropout_embedding": 0.1,  # dropoute
    "weight_dropout": 0.5,  # wdrop
    "variational": True,
    "activation_regularization": 2.0,  # alpha
    "temporal_activation_regularization": 1.0,  # beta
}

RECIPES = {
    "awd_lstm": AWD_LSTM,
    "awd_lstm_attention": AWD_LSTM
    | {"readout": "tanh", "memory_length": 10, "attention_width": 400},
}
VARIANTS = tuple(RECIPES)  # what `get_config` takes beside the MODELS


def awd_lstm(model: str) -> ConfigDict:
    """One of the RECIPES, trained as published."""
    cfg = base.get_config("rnn")
    cfg.model.update(RECIPES[model])
    cfg.steps = 279_750  # 750 epochs
    cfg.data.batch_rows = 80
    cfg.optim.name = "nt_asgd"
    cfg.optim.lr = 30.0
    cfg.optim.schedule = "constant"
    cfg.optim.weight_decay = 1.2e-6
    cfg.every.eval = 373  # an epoch: what NT-ASGD counts
    cfg.every.checkpoint = 373
    return cfg


def plain(model: str) -> ConfigDict:
    """One of the MODELS."""
    cfg = base.get_config(model)
    cfg.model.update(MODELS[model])
    cfg.steps = 20_000
    cfg.data.batch_rows = 20
    cfg.optim.lr = 1e-3
    cfg.optim.warmup = 200
    return cfg


def get_config(model: str = "transformer_xl") -> ConfigDict:
    """The experiment for one of the MODELS or VARIANTS."""
    cfg = awd_lstm(model) if model in VARIANTS else plain(model)
    cfg.task = "language_modeling"
    cfg.data.name = "wikitext2"
    cfg.data.tokenizer = "word"
    cfg.data.vocab_size = 33_280  # the corpus's 33,278, padding and <bos>
    cfg.data.segment_length = 70
    cfg.optim.clip = 0.25
    cfg.eval.batch_rows = 10
    return cfg
