r"""FinRE, relations of companies in Chinese financial news (Li et al. 2019).

    python train.py --config=configs/relations/finre_zh.py:rnn \
        --workdir=runs/finre_zh --config.data.source_dir=DIR

DIR has train.tsv, dev.tsv and test.tsv, columns `label`, `entity_1`, `entity_2` and
`sentence`.
"""

from ml_collections import ConfigDict

from configs.recipes.understanding import labeled_texts


def get_config(model: str = "rnn") -> ConfigDict:
    """Returns the experiment for one of the architectures."""
    cfg = labeled_texts(
        model,
        "relation_extraction",
        "finre_zh",
        epoch=421,
        epochs=10,
        batch_size=32,
        tokenizer="char",
        max_length=192,
        text_column="sentence",
        label_column="label",
    )
    if model == "rnn":  # without attention of every position to all
        cfg.model.update(readout="none", attention_window=0)
        cfg.optim.lr = 1e-3
    return cfg
