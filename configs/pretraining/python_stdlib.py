r"""Masked language modeling of the running Python's standard library.

    python train.py --config=configs/pretraining/python_stdlib.py:transformer \
        --workdir=runs/masked_stdlib
    echo 'import numpy as <mask>' | python predict.py --workdir=runs/masked_stdlib

It needs no network. A document is a module, and a sentence is a line that is not blank.
--config.mlm.next_sentence=True adds the prediction of the next line.
"""

from ml_collections import ConfigDict

from configs.recipes.understanding import masked_texts


def get_config(model: str = "transformer") -> ConfigDict:
    """Returns the experiment for one of the architectures."""
    return masked_texts(model, "python_stdlib", tokenizer="wordpiece", vocab_size=4000)
