"""text8: enwik8 as the letters a to z and spaces (Mahoney); 90 + 5 + 5 million.

    python train.py --config=configs/text8.py:24l --workdir=runs/text8-24l

`:24l` is Transformer-XL as in Dai et al. (2019, table 3), published at 1.08 bits per
character, with the sizes and the recipe of enwik8's 24 layers, "without further
tuning". The architectures' names give 12 layers of each.
"""

from ml_collections import ConfigDict

from configs.recipes.characters import (
    MODELS,
    TRANSFORMER_XL_24L,
    evaluated,
    on_characters,
)

VARIANTS = ("24l",)  # what `get_config` takes beside the MODELS


def get_config(model: str = "24l") -> ConfigDict:
    """The experiment for one of the MODELS or VARIANTS."""
    if model not in VARIANTS:
        sizes = MODELS[model]
        return on_characters("text8", model, sizes, rows=22, length=512, warmup=0)
    training = {"rows": 64, "length": 768, "warmup": 4000}
    sizes = TRANSFORMER_XL_24L
    cfg = on_characters("text8", "transformer_xl", sizes, **training)
    return evaluated(cfg, length=128, memory_length=3800, clamp_length=1000)
