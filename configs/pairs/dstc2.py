r"""DSTC2 as bAbI dialogues (Bordes et al. 2017): the next response of a restaurant bot.

    python train.py --config=configs/pairs/dstc2.py:rnn \
        --workdir=runs/dstc2 --config.data.source_dir=DIR

DIR has train.tsv, dev.tsv, test.tsv and kb.txt. The source is the dialogue so far, then
the facts that the bot has looked up, those of the last call first; what is beyond 512
tokens is cut in evaluation. --config.data.name=dstc2 leaves the facts out, without
which a response cannot name the restaurant. The exact match is the published accuracy
per response.
"""

from ml_collections import ConfigDict

from configs.recipes.pairs import text_pairs


def get_config(model: str = "rnn") -> ConfigDict:
    """Returns the experiment for one of the architectures."""
    return text_pairs(
        model,
        "dstc2/kb",
        "history",
        "bot",
        metrics=("exact_match", "bleu", "entity_f1", "dialogue_accuracy"),
        epoch=248,
        epochs=12,
        tokenizer="word",
        buckets=8,
        max_length=512,
        tokens_per_batch=8192,
    )
