"""enwik8: the first 100 MB of Wikipedia (Mahoney) as bytes, split 90 + 5 + 5 million.

    python train.py --config=configs/enwik8.py:12l --workdir=runs/enwik8-12l

`:12l`, `:18l` and `:24l` are the Transformer-XL models of Dai et al. (2019, table 2),
published at 1.06, 1.03 and 0.99 bits per character. 12 and 24 layers follow the
authors' scripts. No script for 18 layers was released: its sizes are ours, chosen to
give the 88M parameters of the table. `:transformer_xl` and `:transformer` have 12
layers too.
"""

from ml_collections import ConfigDict

from configs.recipes.characters import (
    MODELS,
    STACK,
    TRANSFORMER_XL_24L,
    byte_level_lm,
    set_published_eval,
)

VARIANTS = ("12l", "18l", "24l")  # further names of models

# Model, batch size, segment length, warm-up steps; for evaluation: segment length,
# memory length, largest relative position.
PUBLISHED = {
    "12l": ({**STACK, "memory_length": 512}, 22, 512, 0, (80, 2100, 820)),
    "18l": (
        {
            "layers": 18,
            "width": 640,
            "heads": 8,
            "feed_forward": 2200,
            "dropout": 0.15,
            "attention_dropout": 0.15,
            "memory_length": 784,
        },
        64,
        784,
        4000,
        (128, 3800, 1000),
    ),
    "24l": (
        TRANSFORMER_XL_24L,
        64,
        768,
        4000,
        (128, 3800, 1000),
    ),
}


def get_config(model: str = "12l") -> ConfigDict:
    """Returns the experiment for one of the MODELS or VARIANTS."""
    if model not in VARIANTS:
        sizes = MODELS[model]
        cfg = byte_level_lm(
            "enwik8", model, sizes, batch_size=22, segment_length=512, warmup=0
        )
        cfg.eval.segment_length = 512
        return cfg
    sizes, batch_size, length, warmup, evaluation = PUBLISHED[model]
    cfg = byte_level_lm(
        "enwik8",
        "transformer_xl",
        sizes,
        batch_size=batch_size,
        segment_length=length,
        warmup=warmup,
    )
    return set_published_eval(cfg, *evaluation)
