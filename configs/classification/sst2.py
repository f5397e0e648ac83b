r"""SST-2, sentiment of 6,920 sentences of film reviews (Socher et al. 2013).

    python train.py --config=configs/classification/sst2.py:rnn \
        --workdir=runs/sst2 --config.data.source_dir=DIR

--config.data.name=sst2/phrases trains on 67,349 phrases and sentences. DIR has
train.tsv (or train_phrases.tsv), dev.tsv and test.tsv, columns `label` and `text`.
"""

from ml_collections import ConfigDict

from configs.recipes.understanding import labeled_texts


def get_config(model: str = "rnn") -> ConfigDict:
    """Returns the experiment for one of the architectures."""
    cfg = labeled_texts(
        model,
        "classification",
        "sst2",
        epoch=138,
        epochs=8,
        batch_size=50,
        tokenizer="word",
        vocab_size=20_000,
        min_count=2,
        buckets=2,
        text_column="text",
        label_column="label",
        max_length=64,
    )
    if model == "rnn":  # without attention of every position to all
        cfg.model.update(readout="none", attention_window=0)
    return cfg
