r"""Your own labelled texts: tables or JSON lines.

    python train.py --config=configs/classification/labeled_text.py:rnn \
        --workdir=runs/labeled_text --config.data.source_dir=DIR

DIR has train.tsv, valid.tsv and perhaps test.tsv (or .jsonl, each plain or .gz), whose
first line names the columns; `text` and `label` are used unless
--config.data.text_column and --config.data.label_column name others.
--config.data.pair_column names a second text; --config.data.tokenizer=word, char or
byte selects other tokens.
"""

from ml_collections import ConfigDict

from configs.recipes.understanding import labeled_texts


def get_config(model: str = "rnn") -> ConfigDict:
    """Returns the experiment for one of the architectures."""
    return labeled_texts(
        model,
        "classification",
        "labeled_text",
        epoch=200,
        epochs=10,
        batch_size=32,
        tokenizer="wordpiece",
        vocab_size=8000,
        text_column="text",
        label_column="label",
    )
