r"""HMWP (Qin et al. 2020): equations of Chinese problems, with one or two unknowns.

    python train.py --config=configs/pairs/hmwp.py:transformer \
        --workdir=runs/hmwp --config.data.source_dir=DIR

DIR has train.tsv, dev.tsv and test.tsv. Tokens are characters, since the numbers of an
equation are copied from the question. Published figures are of five folds of all
problems, so that they compare loosely.
"""

from ml_collections import ConfigDict

from configs.recipes.pairs import text_pairs


def get_config(model: str = "transformer") -> ConfigDict:
    """Returns the experiment for one of the architectures."""
    return text_pairs(
        model,
        "hmwp",
        "question",
        "equation",
        metrics=("answer_accuracy", "exact_match"),
        epoch=115,
        epochs=40,
        longest=192,
        tokenizer="char",
        max_length=512,
        tokens_per_batch=8192,
    )
