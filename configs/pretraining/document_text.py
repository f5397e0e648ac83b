r"""Masked language modeling of your own documents.

    python train.py --config=configs/pretraining/document_text.py:transformer \
        --workdir=runs/document_text --config.data.source_dir=DIR

DIR has train.txt, valid.txt and perhaps test.txt (plain or .gz), a sentence on each
line and a blank line between documents. --config.mlm.next_sentence=True adds the
prediction of the next sentence.

There are sizes, such as :transformer_1m. train.py --pretrained=runs/document_text
starts a classifier or tagger from the encoder of the run, with its vocabulary.
"""

from ml_collections import ConfigDict

from configs.recipes.understanding import masked_texts


def get_config(model: str = "transformer") -> ConfigDict:
    """Returns the experiment for one of the architectures."""
    return masked_texts(model, "document_text", tokenizer="wordpiece", vocab_size=8000)
