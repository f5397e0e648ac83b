r"""Your own tagged sentences, in columns as CoNLL has them.

    python train.py --config=configs/tagging/tagged_text.py:rnn \
        --workdir=runs/tagged_text --config.data.source_dir=DIR

DIR has train.conll, valid.conll and perhaps test.conll (or .txt, each plain or .gz): a
token and its tag on each line, an empty line after each sentence. With lines
`# intent = NAME`, --config.data.label_column=intent learns the intents too.
"""

from ml_collections import ConfigDict

from configs.recipes.understanding import labeled_texts


def get_config(model: str = "rnn") -> ConfigDict:
    """Returns the experiment for one of the architectures."""
    cfg = labeled_texts(
        model,
        "tagging",
        "tagged_text",
        epoch=200,
        epochs=15,
        batch_size=32,
        tokenizer="wordpiece",
        vocab_size=8000,
        text_column="tokens",
        tag_column="tags",
    )
    cfg.head.crf = True
    return cfg
