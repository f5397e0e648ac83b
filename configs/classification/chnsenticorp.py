r"""ChnSentiCorp, sentiment of 9,600 Chinese reviews (Tan and Zhang 2008).

    python train.py --config=configs/classification/chnsenticorp.py:rnn \
        --workdir=runs/chnsenticorp --config.data.source_dir=DIR

DIR has train.tsv, dev.tsv and test.tsv, columns `label`, `text` and, of the latter two,
`seen`: more than a quarter of their texts are in the training split too. The longest 2%
of the texts are cut.
"""

from ml_collections import ConfigDict

from configs.recipes.understanding import labeled_texts


def get_config(model: str = "rnn") -> ConfigDict:
    """Returns the experiment for one of the architectures."""
    cfg = labeled_texts(
        model,
        "classification",
        "chnsenticorp",
        epoch=300,
        epochs=8,
        batch_size=32,
        tokenizer="unigram",
        vocab_size=8000,
        text_column="text",
        label_column="label",
        max_length=256,
    )
    if model == "rnn":  # without attention of every position to all
        cfg.model.update(readout="none", attention_window=0)
        cfg.optim.ema_decay = 0.999
    return cfg
