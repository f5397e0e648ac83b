r"""Chinese resumes, eight types of entities by character (Zhang and Yang 2018).

    python train.py --config=configs/tagging/resume_zh.py:rnn \
        --workdir=runs/resume_zh --config.data.source_dir=DIR

DIR has train.conll, dev.conll and test.conll.
"""

from ml_collections import ConfigDict

from configs.recipes.understanding import labeled_texts


def get_config(model: str = "rnn") -> ConfigDict:
    """Returns the experiment for one of the architectures."""
    cfg = labeled_texts(
        model,
        "tagging",
        "resume_zh",
        epoch=239,
        epochs=20,
        batch_size=16,
        tokenizer="word",  # a word of the files is a character
        vocab_size=5000,
        min_count=2,  # so that the embedding of unknown characters is trained
        buckets=3,
        max_length=180,
        text_column="tokens",
        tag_column="tags",
    )
    cfg.head.crf = True
    if model == "rnn":  # without attention of every position to all
        cfg.model.update(readout="none", attention_window=0, layers=2)
        cfg.model.dropout_embedding = 0.1
        cfg.optim.ema_decay = 0.998
    else:
        cfg.model.update(position_encoding="relative", dropout=0.3)
        cfg.optim.lr = 1e-3
    return cfg
