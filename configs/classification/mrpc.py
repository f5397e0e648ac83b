r"""MRPC, paraphrases: 3,576 pairs of sentences (Dolan and Brockett 2005).

    python train.py --config=configs/classification/mrpc.py:rnn \
        --workdir=runs/mrpc --config.data.source_dir=DIR

DIR has train.tsv, dev.tsv and test.tsv, columns `text_a`, `text_b` and `label`.
"""

from ml_collections import ConfigDict

from configs.recipes.understanding import labeled_texts


def get_config(model: str = "rnn") -> ConfigDict:
    """Returns the experiment for one of the architectures."""
    return labeled_texts(
        model,
        "classification",
        "mrpc",
        epoch=112,
        epochs=12,
        batch_size=32,
        tokenizer="wordpiece",
        lowercase=True,
        vocab_size=6000,
        text_column="text_a",
        pair_column="text_b",
        label_column="label",
    )
