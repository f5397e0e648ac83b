"""Penn Treebank, words (Mikolov et al. 2010): 929,589 tokens, 10,000 words.

    python train.py --config=configs/ptb.py:rnn --workdir=runs/ptb-rnn

Without a network: --config.data.source_dir=DIR with ptb.{train,valid,test}.txt.
Perplexity and time: see RESULTS.md.

`:awd_lstm` is the AWD-LSTM of Merity et al. (2017, "Regularizing and Optimizing
LSTM Language Models"): 3 layers, weights tied, NT-ASGD, 24M parameters;
`:awd_lstm_attention` the same with attention over its last 10 outputs. Deviations:
segments of 70 tokens instead of random lengths about 70, so that one step is
compiled, and with them no learning rate by length; initial values are ours (close:
Glorot for their uniform, orthogonal recurrent weights, biases 0); one bias a gate
instead of two that add up; no finetuning, no cache.

`:transformer_xl_24m` has the size of Transformer-XL's row in Dai et al. (2019, table
5; perplexity 54.52). Its sizes and dropouts were never released: these are ours.
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
    "dropout_input": 0.4,  # dropouti
    "dropout_hidden": 0.25,  # dropouth
    "dropout_embedding": 0.1,  # dropoute
    "weight_dropout": 0.5,  # wdrop
    "variational": True,
    "activation_regularization": 2.0,  # alpha
    "temporal_activation_regularization": 1.0,  # beta
}

TRANSFORMER_XL = {  # 24M parameters
    "layers": 16,
    "width": 380,
    "heads": 10,
    "feed_forward": 700,
    "dropout": 0.45,
    "attention_dropout": 0.15,
    "memory_length": 150,
}

RECIPES = {
    "awd_lstm": AWD_LSTM,
    "awd_lstm_attention": AWD_LSTM
    | {"readout": "tanh", "memory_length": 10, "attention_width": 400},
}
VARIANTS = (*RECIPES, "transformer_xl_24m")  # what `get_config` takes beside the MODELS


def awd_lstm(model: str) -> ConfigDict:
    """One of the RECIPES, trained as published."""
    cfg = base.get_config("rnn")
    cfg.model.update(RECIPES[model])
    cfg.steps = 331_500  # 500 epochs
    cfg.data.batch_rows = 20
    cfg.optim.name = "nt_asgd"
    cfg.optim.lr = 30.0
    cfg.optim.schedule = "constant"
    cfg.optim.weight_decay = 1.2e-6
    cfg.every.eval = 663  # an epoch: what NT-ASGD counts
    cfg.every.checkpoint = 663
    return cfg


def transformer_xl_24m() -> ConfigDict:
    """Transformer-XL as large as the AWD-LSTM."""
    cfg = base.get_config("transformer_xl")
    cfg.model.update(TRANSFORMER_XL)
    cfg.steps = 100_000
    cfg.data.batch_rows = 20
    cfg.optim.name = "adam"
    cfg.optim.lr = 2.5e-4
    cfg.optim.warmup = 4000
    cfg.optim.b2 = 0.999
    cfg.optim.eps = 1e-8
    cfg.eval.same_length = True
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
    if model in RECIPES:
        cfg = awd_lstm(model)
    else:
        cfg = transformer_xl_24m() if model in VARIANTS else plain(model)
    cfg.task = "language_modeling"
    cfg.data.name = "ptb"
    cfg.data.tokenizer = "word"
    cfg.data.vocab_size = 10_002  # the corpus's 10,000, padding and <bos>
    cfg.data.segment_length = 70
    cfg.optim.clip = 0.25
    cfg.eval.batch_rows = 10
    return cfg
