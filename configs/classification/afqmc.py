r"""AFQMC, 34,334 pairs of Chinese questions to a bank (Xu et al. 2020).

    python train.py --config=configs/classification/afqmc.py:rnn \
        --workdir=runs/afqmc --config.data.source_dir=DIR

69% of the pairs have label 0. DIR has train.tsv and dev.tsv, columns `text_a`, `text_b`
and `label`; there is no test split.
"""

from ml_collections import ConfigDict

from configs.recipes.understanding import labeled_texts


def get_config(model: str = "rnn") -> ConfigDict:
    """Returns the experiment for one of the architectures."""
    return labeled_texts(
        model,
        "classification",
        "afqmc",
        epoch=1073,
        epochs=6,
        batch_size=32,
        tokenizer="char",
        text_column="text_a",
        pair_column="text_b",
        label_column="label",
    )
