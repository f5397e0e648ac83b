"""text8: enwik8 reduced to letters a to z and spaces (Mahoney), 90 + 5 + 5 million.

    python train.py --config=configs/text8.py:24l --workdir=runs/text8-24l

`:24l` is the Transformer-XL of Dai et al. (2019, table 3), published at 1.08 bits per
character, with the sizes and training of 24 layers on enwik8, "without further
tuning". `:transformer_xl` and `:transformer` have 12 layers.
"""

from ml_collections import ConfigDict

from configs.recipes.characters import (
    MODELS,
    TRANSFORMER_XL_24L,
    byte_level_lm,
    set_published_eval,
)

VARIANTS = ("24l",)  # further names of models


def get_config(model: str = "24l") -> ConfigDict:
    """Returns the experiment for one of the MODELS or VARIANTS."""
    if model not in VARIANTS:
        sizes = MODELS[model]
        return byte_level_lm(
            "text8", model, sizes, batch_size=22, segment_length=512, warmup=0
        )
    cfg = byte_level_lm(
        "text8",
        "transformer_xl",
        TRANSFORMER_XL_24L,
        batch_size=64,
        segment_length=768,
        warmup=4000,
    )
    return set_published_eval(cfg, 128, 3800, 1000)
