r"""RTE, entailment of 2,490 pairs of texts (Wang et al. 2019).

    python train.py --config=configs/classification/rte.py:rnn \
        --workdir=runs/rte --config.data.source_dir=DIR

Nothing trained from scratch is known to learn it. DIR has train.tsv and dev.tsv,
columns `text_a`, `text_b` and `label`; there is no test split.
"""

from ml_collections import ConfigDict

from configs.recipes.understanding import labeled_texts


def get_config(model: str = "rnn") -> ConfigDict:
    """Returns the experiment for one of the architectures."""
    return labeled_texts(
        model,
        "classification",
        "rte",
        epoch=78,
        epochs=12,
        batch_size=32,
        tokenizer="wordpiece",
        lowercase=True,
        vocab_size=6000,
        max_length=256,
        text_column="text_a",
        pair_column="text_b",
        label_column="label",
    )
