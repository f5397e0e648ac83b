"""enwik8: the first 100 MB of Wikipedia (Mahoney) as bytes, split 90 + 5 + 5 million.

    python train.py --config=configs/enwik8.py:12l --workdir=runs/enwik8-12l

`:12l`, `:18l` and `:24l` are the Transformer-XL models of Dai et al. (2019, table 2),
published at 1.06, 1.03 and 0.99 bits per character. 12 and 24 layers follow the
authors' scripts. No script for 18 layers was released: its sizes are ours, chosen to
give the 88M parameters of the table. `:transformer_xl` and `:transformer` have 12
layers too.

--config.data.name=text8 selects text8, which is enwik8 reduced to letters a to z and
spaces. Its published model (table 3, 1.08 bits per character) has the sizes and
training of `:24l`, "without further tuning".
"""

from ml_collections import ConfigDict

from configs import base
from configs.recipes.transformer_xl import (
    BYTE_MODELS,
    set_published_adam,
    set_published_eval,
)

DEEP = {"heads": 8, "dropout": 0.15, "attention_dropout": 0.15}
SIZES_18L = {**DEEP, "layers": 18, "width": 640, "feed_forward": 2200}
SIZES_24L = {**DEEP, "layers": 24, "width": 1024, "feed_forward": 3072}
# Model, batch size, warm-up steps; for evaluation: segment length, memory length,
# largest relative position. In training segment and memory have the same length.
PUBLISHED = {
    "12l": (BYTE_MODELS["transformer_xl"], 22, 0, (80, 2100, 820)),
    "18l": ({**SIZES_18L, "memory_length": 784}, 64, 4000, (128, 3800, 1000)),
    "24l": ({**SIZES_24L, "memory_length": 768}, 64, 4000, (128, 3800, 1000)),
}
VARIANTS = tuple(PUBLISHED)  # further names of models


def get_config(model: str = "12l") -> ConfigDict:
    """Returns the experiment for an architecture or one of the VARIANTS."""
    cfg = base.get_config("transformer_xl" if model in PUBLISHED else model)
    if model in PUBLISHED:
        sizes, batch_size, warmup, evaluation = PUBLISHED[model]
        segment_length = sizes["memory_length"]
        set_published_eval(cfg, *evaluation)
    else:
        sizes, batch_size, segment_length, warmup = BYTE_MODELS[model], 22, 512, 0
    cfg.model.update(sizes)
    cfg.task = "language_modeling"
    cfg.steps = 400_000
    cfg.data.name = "enwik8"
    cfg.data.tokenizer = "byte"
    cfg.data.batch_size = batch_size
    cfg.data.segment_length = segment_length
    set_published_adam(cfg, warmup=warmup)
    cfg.every.eval = 4000
    cfg.every.checkpoint = 4000
    return cfg
