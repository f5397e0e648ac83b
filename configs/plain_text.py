r"""Your own text, as a language model over subwords.

    python train.py --config=configs/plain_text.py:transformer_xl --workdir=runs/mine \
        --config.data.source_dir=DIR

DIR has train.txt and valid.txt (and test.txt), plain or .gz, whose line ends are kept;
or a folder for each split, train/*.txt and so on, whose files are kept unchanged.
--config.data.tokenizer=byte, char or word selects other tokens. If a file changes, runs
on the former corpus refuse to resume.
"""

from ml_collections import ConfigDict

from configs import base

STACK = {"layers": 4, "width": 256, "heads": 8, "feed_forward": 1024, "norm": "pre"}
MODELS = {
    "rnn": {"width": 512, "embedding_width": 256, "attention_width": 128},
    "transformer": STACK,
    "transformer_xl": {**STACK, "memory_length": 128},
}


def get_config(model: str = "transformer_xl") -> ConfigDict:
    """Returns the experiment for one of the MODELS."""
    cfg = base.get_config(model)
    cfg.task = "language_modeling"
    cfg.model.update(MODELS[model])
    cfg.steps = 20_000
    cfg.data.name = "plain_text"
    cfg.optim.warmup = cfg.get_ref("steps") // 40  # also of steps set later
    cfg.optim.clip_norm = 0.25
    return cfg
