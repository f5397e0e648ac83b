r"""MAWPS (Koncel-Kedziorski et al. 2016): equations of English problems, in five folds.

    python train.py --config=configs/pairs/mawps.py:rnn --workdir=runs/mawps-0 \
        --config.data.source_dir=DIR --config.data.name=mawps/fold0

DIR has fold0_train.tsv to fold4_test.tsv. Of a fold's training problems the last 150
are the validation split; mawps/fold0_train_and_valid trains on them too. The published
figures are means of the folds.
"""

from ml_collections import ConfigDict

from configs.recipes.pairs import english_problems


def get_config(model: str = "rnn") -> ConfigDict:
    """Returns the experiment for one of the architectures."""
    return english_problems(model, "mawps/fold0", epoch=25)
