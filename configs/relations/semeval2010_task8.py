r"""SemEval-2010 task 8, relations of two nominals (Hendrickx et al. 2010).

    python train.py --config=configs/relations/semeval2010_task8.py:rnn \
        --workdir=runs/semeval2010_task8 --config.data.source_dir=DIR

DIR has train.tsv and test.tsv, columns `label` and `sentence`; every tenth training
sentence is in the validation split.
"""

from ml_collections import ConfigDict

from configs.recipes.understanding import labeled_texts


def get_config(model: str = "rnn") -> ConfigDict:
    """Returns the experiment for one of the architectures."""
    return labeled_texts(
        model,
        "relation_extraction",
        "semeval2010_task8",
        epoch=225,
        epochs=10,
        batch_size=32,
        buckets=2,
        tokenizer="wordpiece",
        lowercase=True,
        vocab_size=8000,
        text_column="sentence",
        label_column="label",
    )
