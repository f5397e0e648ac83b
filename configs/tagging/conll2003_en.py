r"""CoNLL-2003, four types of names in news (Tjong Kim Sang and De Meulder 2003).

    python train.py --config=configs/tagging/conll2003_en.py:rnn \
        --workdir=runs/conll2003_en --config.data.source_dir=DIR

DIR has train.conll, dev.conll and test.conll.
"""

from ml_collections import ConfigDict

from configs.recipes.understanding import labeled_texts


def get_config(model: str = "rnn") -> ConfigDict:
    """Returns the experiment for one of the architectures."""
    cfg = labeled_texts(
        model,
        "tagging",
        "conll2003_en",
        epoch=439,
        epochs=8,
        batch_size=32,
        tokenizer="wordpiece",
        vocab_size=8000,
        max_length=192,
        text_column="tokens",
        tag_column="tags",
    )
    cfg.head.crf = True
    if model == "rnn":  # without attention of every position to all
        cfg.model.update(readout="none", attention_window=0, width=128)
        cfg.optim.ema_decay = 0.998
    return cfg
