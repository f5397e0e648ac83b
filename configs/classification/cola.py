r"""CoLA, acceptability of 8,551 English sentences (Warstadt et al. 2019).

    python train.py --config=configs/classification/cola.py:rnn \
        --workdir=runs/cola --config.data.source_dir=DIR

The score is Matthews' correlation. DIR has train.tsv and dev.tsv, columns `label` and
`text`.
"""

from ml_collections import ConfigDict

from configs.recipes.understanding import labeled_texts


def get_config(model: str = "rnn") -> ConfigDict:
    """Returns the experiment for one of the architectures."""
    cfg = labeled_texts(
        model,
        "classification",
        "cola",
        epoch=267,
        epochs=10,
        batch_size=32,
        tokenizer="wordpiece",
        vocab_size=4000,
        text_column="text",
        label_column="label",
        max_length=48,
    )
    cfg.keep.metric = "matthews"
    return cfg
