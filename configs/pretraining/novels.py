r"""Masked language modeling of English novels of 1839-1929.

    python train.py --config=configs/pretraining/novels.py:transformer \
        --workdir=runs/masked_novels --config.data.source_dir=DIR

DIR has folders train, valid and test of .txt or .txt.gz files, one a book. A document
is a book, and sentences are those of its punctuation. --config.mlm.next_sentence=True
adds the prediction of the next sentence.
"""

from ml_collections import ConfigDict

from configs.recipes.understanding import masked_texts


def get_config(model: str = "transformer") -> ConfigDict:
    """Returns the experiment for one of the architectures."""
    return masked_texts(
        model, "novels", tokenizer="wordpiece", vocab_size=8000, lowercase=True
    )
