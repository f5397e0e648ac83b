"""Penn Treebank, words (Mikolov et al. 2010): 929,589 tokens, 10,000 words.

    python train.py --config=configs/ptb.py:rnn --workdir=runs/ptb-rnn

Without a network: --config.data.source_dir=DIR with ptb.{train,valid,test}.txt.
Perplexity and time: see RESULTS.md.
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


def get_config(model: str = "transformer_xl") -> ConfigDict:
    """The experiment for one of the MODELS."""
    cfg = base.get_config(model)
    cfg.task = "language_modeling"
    cfg.model.update(MODELS[model])
    cfg.steps = 20_000
    cfg.data.name = "ptb"
    cfg.data.tokenizer = "word"
    cfg.data.vocab_size = 10_002  # the corpus's 10,000, padding and <bos>
    cfg.data.batch_rows = 20
    cfg.data.segment_length = 70
    cfg.optim.lr = 1e-3
    cfg.optim.warmup = 200
    cfg.optim.clip = 0.25
    cfg.eval.batch_rows = 10
    return cfg
