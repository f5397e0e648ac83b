"""Multi30k task 1 (Elliott et al. 2016): 29,000 translated image captions.

    python train.py --config=configs/multi30k.py:transformer --workdir=runs/m30k

Any two of en de fr cs form a pair: --config.data.name=multi30k/en-fr. Without a
network, --config.data.source_dir=DIR reads the corpus's files. BLEU scores and times
are in docs/results.md.
"""

from ml_collections import ConfigDict

from configs import base

STACK = {
    "layers": 4,
    "width": 128,
    "heads": 4,
    "feed_forward": 256,
    "norm": "pre",
    "dropout": 0.3,
    "feed_forward_dropout": 0.0,
}
MODELS = {
    "rnn": {
        "width": 256,
        "embedding_width": 256,
        "attention_width": 256,
        "conditional_gru": True,
        "input_feeding": True,
        "dropout": 0.4,
    },
    "transformer": {**STACK, "attention_dropout": 0.0},
    # The order of captions has no meaning.
    "transformer_xl": {**STACK, "memory_length": 0},
}


def get_config(model: str = "transformer") -> ConfigDict:
    """Returns the experiment for one of the MODELS."""
    cfg = base.get_config(model)
    cfg.model.update(MODELS[model])
    cfg.label_smoothing = 0.1
    cfg.data.name = "multi30k/en-de"
    cfg.data.max_length = 64
    cfg.data.tokens_per_batch = 2048
    cfg.optim.schedule = "cosine"
    if model == "rnn":
        cfg.epochs = 24  # the validation loss is flat after 20
        cfg.optim.update({"lr": 1e-3, "warmup": 300})
    else:
        cfg.epochs = 40
        cfg.optim.update({"lr": 4e-3, "warmup": 1500})
    cfg.every.eval = 1000
    cfg.every.checkpoint = 500
    cfg.decode.max_length = 64
    return cfg
