r"""ATIS, slots and intents of questions about flights (Hemphill et al. 1990).

    python train.py --config=configs/tagging/atis.py:rnn \
        --workdir=runs/atis --config.data.source_dir=DIR

--config.data.name=atis/train_and_valid trains on both, as Liu and Lane (2016) do.
Labels that only evaluation data have count as wrong. DIR has train.conll, valid.conll
and test.conll, with lines `# intent = NAME`.
"""

from ml_collections import ConfigDict

from configs.recipes.understanding import labeled_texts


def get_config(model: str = "rnn") -> ConfigDict:
    """Returns the experiment for one of the architectures."""
    cfg = labeled_texts(
        model,
        "tagging",
        "atis",
        epoch=311,
        epochs=20,
        batch_size=16,
        buckets=2,
        tokenizer="word",
        vocab_size=2000,
        min_count=2,  # so that the embedding of unknown words is trained
        unseen_labels="count",
        max_length=64,
        label_column="intent",
        text_column="tokens",
        tag_column="tags",
    )
    if model != "rnn":
        cfg.model.update(position_encoding="relative", dropout=0.3)
        cfg.optim.lr = 1e-3
    return cfg
