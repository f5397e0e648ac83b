r"""Masked language modeling of WikiText-2, 2 million words (Merity et al. 2017).

    python train.py --config=configs/pretraining/wikitext2.py:transformer \
        --workdir=runs/wikitext2 --config.data.source_dir=DIR

--config.mlm.next_sentence=True adds the prediction of the next sentence, and
--config.mlm.whole_word=True masks whole words. With --config.data.document_order=True
the segments of a document follow each other, for which :transformer_xl has a memory:
--config.model.memory_length=128. Without DIR the corpus is downloaded.

There are sizes, such as :transformer_3m, :rnn_1m or :transformer_xl_10m. A classifier
starts from the encoder of the run with

    python train.py --config=configs/classification/trec.py:transformer \
        --workdir=runs/trec --config.data.source_dir=DIR --pretrained=runs/wikitext2
"""

from ml_collections import ConfigDict

from configs.recipes.understanding import masked_texts


def get_config(model: str = "transformer") -> ConfigDict:
    """Returns the experiment for one of the architectures."""
    return masked_texts(
        model, "wikitext2", tokenizer="wordpiece", vocab_size=8000, lowercase=True
    )
