r"""AESLC, subject lines of e-mails (Zhang and Tetreault 2019): 14,436 to learn from.

    python train.py --config=configs/pairs/aeslc.py:transformer \
        --workdir=runs/aeslc --config.data.source_dir=DIR

DIR has train.tsv, dev.tsv and test.tsv. E-mails of more than 512 tokens are left out of
training, and cut in evaluation. Published figures are ROUGE against the subject alone;
eval.py --data.reference_columns="('ann0', 'ann1', 'ann2')" adds the three annotators'.
"""

from ml_collections import ConfigDict

from configs.recipes.pairs import text_pairs


def get_config(model: str = "transformer") -> ConfigDict:
    """Returns the experiment for one of the architectures."""
    cfg = text_pairs(
        model,
        "aeslc",
        "body",
        "subject",
        metrics=("rougeL", "rouge1", "rouge2"),
        epoch=320,
        epochs=15,
        longest=24,
        max_length=512,
        tokens_per_batch=8192,
    )
    cfg.model.dropout = 0.3
    return cfg
