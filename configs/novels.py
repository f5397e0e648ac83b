r"""English novels, 97 books of 1839-1929 read one after the other as bytes.

    python train.py --config=configs/novels.py:transformer_xl --workdir=runs/novels \
        --config.data.source_dir=DIR

DIR has folders train, valid and test of .txt or .txt.gz files, one a book; the lines
of a book are joined by single spaces. The three models have 12.3M parameters each, to
within 1%, and differ in their context: a segment has 512 bytes, Transformer-XL has a
memory of 512 more in every layer, and the LSTM carries its state. `:rnn_41m`,
`:transformer_41m` and `:transformer_xl_41m` have the sizes of 12 layers on enwik8.
"""

from ml_collections import ConfigDict

from configs import base
from configs.recipes.transformer_xl import BYTE_MODELS

STACK = {"layers": 8, "width": 384, "heads": 8, "norm": "pre", "dropout": 0.1}

MODELS = {
    "rnn": {
        "cell": "lstm",
        "layers": 3,
        "width": 918,
        "embedding_width": 256,
        "readout": "none",
        "attention_window": 0,
        "dropout": 0.1,
    },
    # Wider, to have as many parameters as relative positions add to Transformer-XL.
    "transformer": {**STACK, "feed_forward": 1216, "attention_dropout": 0.0},
    "transformer_xl": {**STACK, "feed_forward": 1024, "memory_length": 512},
}

VARIANTS = tuple(f"{model}_41m" for model in MODELS)  # further names of models


def get_config(model: str = "transformer_xl") -> ConfigDict:
    """Returns the experiment for one of the MODELS or VARIANTS."""
    sizes = BYTE_MODELS if model in VARIANTS else MODELS
    model = model.removesuffix("_41m")
    cfg = base.get_config(model)
    cfg.task = "language_modeling"
    cfg.model.update(sizes[model])
    cfg.steps = 40_000
    cfg.data.name = "novels"
    cfg.data.tokenizer = "byte"
    cfg.data.batch_size = 32
    cfg.data.segment_length = 512
    cfg.optim.lr = 1e-3 if model == "rnn" else 5e-4
    cfg.optim.warmup = 1000
    cfg.optim.clip_norm = 0.25
    cfg.every.eval = 2000
    cfg.every.checkpoint = 2000
    return cfg
