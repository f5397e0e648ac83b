r"""MAWPS (Koncel-Kedziorski et al. 2016): equations of English problems, in five folds.

    python train.py --config=configs/pairs/mawps.py:rnn --workdir=runs/mawps-0 \
        --config.data.source_dir=DIR --config.data.name=mawps/fold0

DIR has fold0_train.tsv to fold4_test.tsv. Of a fold's training problems the last 150
are the validation split; mawps/fold0_train_and_valid trains on them too. The published
figures are means of the folds.
"""

from ml_collections import ConfigDict

from configs.recipes.pairs import text_pairs


def get_config(model: str = "rnn") -> ConfigDict:
    """Returns the experiment for one of the architectures."""
    return text_pairs(
        model,
        "mawps/fold0",
        "question",
        "equation",
        metrics=("answer_accuracy", "exact_match"),
        epoch=25,
        epochs=60,
        longest=32,
        tokenizer="word",
        lowercase=True,
        min_count=2,
        tokens_per_batch=2048,
    )
