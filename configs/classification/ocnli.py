r"""OCNLI, inference of 9,985 pairs of Chinese sentences (Hu et al. 2020).

    python train.py --config=configs/classification/ocnli.py:rnn \
        --workdir=runs/ocnli --config.data.source_dir=DIR

DIR has train_10k.tsv and dev.tsv, columns `text_a`, `text_b`, `label`, `genre` and
`level`; the published development data are the validation split, and there is no test.
"""

from ml_collections import ConfigDict

from configs.recipes.understanding import labeled_texts


def get_config(model: str = "rnn") -> ConfigDict:
    """Returns the experiment for one of the architectures."""
    cfg = labeled_texts(
        model,
        "classification",
        "ocnli",
        epoch=312,
        epochs=10,
        batch_size=32,
        tokenizer="char",
        text_column="text_a",
        pair_column="text_b",
        label_column="label",
    )
    cfg.head.update(compare_pair=True, pooling="max")
    if model == "rnn":  # without attention of every position to all
        cfg.model.update(readout="none", attention_window=0)
    return cfg
