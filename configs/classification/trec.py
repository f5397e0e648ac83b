r"""TREC, 6 kinds of questions (Li and Roth 2002).

    python train.py --config=configs/classification/trec.py:rnn \
        --workdir=runs/trec --config.data.source_dir=DIR

--config.data.label_column=fine has 50 kinds; some occur in the test questions only, so
add --config.data.unseen_labels=count. DIR has train.tsv and test.tsv, columns `coarse`,
`fine` and `text`; the last 500 training questions are the validation split.
"""

from ml_collections import ConfigDict

from configs.recipes.understanding import labeled_texts


def get_config(model: str = "rnn") -> ConfigDict:
    """Returns the experiment for one of the architectures."""
    return labeled_texts(
        model,
        "classification",
        "trec",
        epoch=99,
        epochs=12,
        batch_size=50,
        tokenizer="word",
        lowercase=True,
        min_count=2,
        buckets=2,
        text_column="text",
        label_column="coarse",
        max_length=48,
    )
