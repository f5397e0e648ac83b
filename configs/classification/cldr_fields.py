r"""Kinds of phrases in seven languages: date, money, quantity; no download.

    python train.py --config=configs/classification/cldr_fields.py:rnn \
        --workdir=runs/cldr_fields-kinds

--config.data.label_column=language tells the languages apart instead. The 935 steps end
with 96.4% of the kinds right on the validation split (rnn, seed 0).
"""

from ml_collections import ConfigDict

from configs.recipes.understanding import labeled_texts


def get_config(model: str = "rnn") -> ConfigDict:
    """Returns the experiment for one of the architectures."""
    return labeled_texts(
        model,
        "classification",
        "cldr_fields",
        epoch=187,
        epochs=5,
        batch_size=32,
        tokenizer="char",
        text_column="text",
        label_column="kind",
    )
