r"""SICK, entailment of 4,500 pairs of sentences (Marelli et al. 2014).

    python train.py --config=configs/classification/sick.py:rnn \
        --workdir=runs/sick --config.data.source_dir=DIR

--config.data.label_column=relatedness --config.head.regression=True predicts grades of
1 to 5 instead, scored by correlation. DIR has train.tsv, dev.tsv and test.tsv, columns
`text_a`, `text_b`, `label` and `relatedness`.
"""

from ml_collections import ConfigDict

from configs.recipes.understanding import labeled_texts


def get_config(model: str = "rnn") -> ConfigDict:
    """Returns the experiment for one of the architectures."""
    cfg = labeled_texts(
        model,
        "classification",
        "sick",
        epoch=141,
        epochs=15,
        batch_size=32,
        tokenizer="word",
        lowercase=True,
        min_count=2,
        buckets=2,
        text_column="text_a",
        pair_column="text_b",
        label_column="label",
    )
    cfg.head.update(compare_pair=True, pooling="max")
    if model == "rnn":  # without attention of every position to all
        cfg.model.update(readout="none", attention_window=0)
    return cfg
