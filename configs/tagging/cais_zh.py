r"""CAIS, slots and intents of Chinese commands to a speaker (Liu et al. 2019).

    python train.py --config=configs/tagging/cais_zh.py:rnn \
        --workdir=runs/cais_zh --config.data.source_dir=DIR

DIR has train.conll, valid.conll and test.conll, with lines `# intent = NAME`.
"""

from ml_collections import ConfigDict

from configs.recipes.understanding import labeled_texts


def get_config(model: str = "rnn") -> ConfigDict:
    """Returns the experiment for one of the architectures."""
    return labeled_texts(
        model,
        "tagging",
        "cais_zh",
        epoch=250,
        epochs=12,
        batch_size=32,
        tokenizer="char",
        unseen_labels="count",
        label_column="intent",
        text_column="tokens",
        tag_column="tags",
    )
