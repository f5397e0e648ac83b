r"""SVAMP (Patel et al. 2021): equations of English problems, learned on two others.

    python train.py --config=configs/pairs/svamp.py:rnn \
        --workdir=runs/svamp --config.data.source_dir=DIR

DIR has train.tsv (MAWPS and ASDiv-A) and test.tsv. The last 300 training problems are
the validation split; --config.data.name=svamp/train_and_valid trains on them too, as
for published figures, and needs eval.py --checkpoint=last.
"""

from ml_collections import ConfigDict

from configs.recipes.pairs import english_problems


def get_config(model: str = "rnn") -> ConfigDict:
    """Returns the experiment for one of the architectures."""
    if model != "rnn":
        return english_problems(model, "svamp", epoch=55)
    cfg = english_problems(model, "svamp", epoch=55, epochs=30)
    cfg.model.update(width=384, attention_width=256, dropout=0.5)
    return cfg
