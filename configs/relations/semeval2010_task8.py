r"""SemEval-2010 task 8, relations of two nominals (Hendrickx et al. 2010).

    python train.py --config=configs/relations/semeval2010_task8.py:rnn \
        --workdir=runs/semeval2010_task8 --config.data.source_dir=DIR

DIR has train.tsv and test.tsv, columns `label` and `sentence`; every tenth training
sentence is in the validation split.
"""

from ml_collections import ConfigDict

from configs.recipes.understanding import labeled_texts


def get_config(model: str = "rnn") -> ConfigDict:
    """Returns the experiment for one of the architectures."""
    cfg = labeled_texts(
        model,
        "relation_extraction",
        "semeval2010_task8",
        epoch=225,
        epochs=15,
        batch_size=32,
        buckets=2,
        tokenizer="word",
        lowercase=True,
        vocab_size=20_000,
        min_count=2,
        text_column="sentence",
        label_column="label",
    )
    cfg.keep.metric = "official_f1"
    cfg.label_smoothing = 0.1
    cfg.optim.ema_decay = 0.998
    if model == "rnn":  # without attention of every position to all
        cfg.model.update(readout="none", attention_window=0)
        cfg.head.pooling = "max"
    return cfg
