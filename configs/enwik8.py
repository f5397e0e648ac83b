"""enwik8: the first 100 MB of Wikipedia (Mahoney), by bytes; 90 + 5 + 5 million.

    python train.py --config=configs/enwik8.py:12l --workdir=runs/enwik8-12l

`:12l`, `:18l` and `:24l` are Transformer-XL's rows of Dai et al. (2019, table 2),
published at 1.06, 1.03 and 0.99 bits per character. 12 and 24 layers follow the
authors' scripts; those of 18 layers were not released, so its sizes are ours, fitted
to the 88M parameters of the table. The architectures' names give 12 layers of each.
"""

from ml_collections import ConfigDict

from configs.recipes.characters import (
    MODELS,
    STACK,
    TRANSFORMER_XL_24L,
    evaluated,
    on_characters,
)

VARIANTS = ("12l", "18l", "24l")  # what `get_config` takes beside the MODELS

# Model, rows, tokens of a segment, warm-up; eval: segment, memory, clamp.
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
    """The experiment for one of the MODELS or VARIANTS."""
    if model not in VARIANTS:
        sizes = MODELS[model]
        cfg = on_characters("enwik8", model, sizes, rows=22, length=512, warmup=0)
        cfg.eval.segment_length = 512
        return cfg
    sizes, rows, length, warmup, (segment, memory, clamp) = PUBLISHED[model]
    training = {"rows": rows, "length": length, "warmup": warmup}
    cfg = on_characters("enwik8", "transformer_xl", sizes, **training)
    return evaluated(cfg, length=segment, memory_length=memory, clamp_length=clamp)
