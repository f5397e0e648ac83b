r"""Your own translation corpus: two files a split, whose lines n are a pair.

    python train.py --config=configs/parallel_text.py:transformer --workdir=runs/mine \
        --config.data.name=parallel_text/en-de --config.data.source_dir=DIR

DIR has train.en, train.de, valid.en and valid.de, plain or .gz; test.en and test.de
or any other pair are further splits, for eval.py --split=NAME. A file train.doc may
give the document of each line. The names of the languages are free, source first. If a
file changes, runs on the former corpus refuse to resume.
"""

from ml_collections import ConfigDict

from configs import base

STACK = {"layers": 4, "width": 256, "heads": 8, "feed_forward": 1024, "norm": "pre"}
MODELS = {
    "rnn": {"width": 384, "embedding_width": 256, "attention_width": 256},
    "transformer": STACK,
    # The order of lines may have no meaning.
    "transformer_xl": {**STACK, "memory_length": 0},
}


def get_config(model: str = "transformer") -> ConfigDict:
    """Returns the experiment for one of the MODELS."""
    cfg = base.get_config(model)
    cfg.model.update(MODELS[model])
    cfg.steps = 20_000
    cfg.label_smoothing = 0.1
    cfg.data.name = "parallel_text/en-de"
    cfg.optim.lr = 1e-3 if model == "rnn" else 2e-3
    cfg.optim.schedule = "rsqrt"
    cfg.optim.warmup = cfg.get_ref("steps") // 10  # also of steps set later
    return cfg
