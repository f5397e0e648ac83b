r"""Masked language modeling of the four great Chinese novels, by character.

    python train.py --config=configs/pretraining/classics_zh.py:transformer \
        --workdir=runs/classics_zh --config.data.source_dir=DIR

DIR has train.txt, valid.txt and test.txt, a sentence on each line and a blank line
between chapters. --config.mlm.next_sentence=True adds the prediction of the next
sentence.
"""

from ml_collections import ConfigDict

from configs.recipes.understanding import masked_texts


def get_config(model: str = "transformer") -> ConfigDict:
    """Returns the experiment for one of the architectures."""
    return masked_texts(model, "classics_zh", tokenizer="char")
