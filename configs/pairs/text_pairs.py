r"""Your own text pairs: tables or JSON lines.

    python train.py --config=configs/pairs/text_pairs.py:transformer \
        --workdir=runs/pairs --config.data.source_dir=DIR

DIR has train.tsv, valid.tsv and perhaps test.tsv (or .jsonl, each plain or .gz), whose
first line names the columns:

    source	target
    two plus two	four
    one plus two	three

`source` and `target` are used unless --config.data.source_column and
--config.data.target_column name others. --config.data.name=text_pairs/zh names the
language, and --config.eval.metrics="('rouge1', 'rougeL')" other scores.
"""

from ml_collections import ConfigDict

from configs.recipes.pairs import text_pairs


def get_config(model: str = "transformer") -> ConfigDict:
    """Returns the experiment for one of the architectures."""
    return text_pairs(
        model,
        "text_pairs",
        "source",
        "target",
        epoch=500,
        epochs=20,
        longest=128,
    )
