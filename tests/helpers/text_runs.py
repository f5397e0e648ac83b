"""Tiny language models of a text of number words, trained in a second."""

import importlib

import numpy as np

from experiment import train
from training.loop import ExitStatus

WORDS = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]
SIZES = {
    "rnn": {"width": 8, "embedding_width": 8},
    "transformer": {"layers": 2, "width": 8, "heads": 2, "feed_forward": 16},
    "transformer_xl": {"layers": 2, "width": 8, "heads": 2, "feed_forward": 16},
}
CHANGES = {
    "data.tokenizer": "word",
    "data.vocab_size": 16,
    "data.batch_size": 4,
    "data.segment_length": 8,
    "eval.batch_size": 4,
    "eval.segment_length": 8,
    "model.dropout": 0.0,
    "optim.lr": 3e-3,
    "optim.warmup": 2,
    "every.log": 1,
}


def text_config(folder, model="transformer", **changes):
    """Returns the config of a run, whose corpus is written into the folder."""
    source = folder / "text"
    if not source.exists():
        source.mkdir(parents=True)
        draw = np.random.default_rng(0)
        for split, size in {"train": 100, "valid": 4, "test": 4}.items():
            lines = (" ".join(draw.choice(WORDS, 8)) + "\n" for _ in range(size))
            (source / f"{split}.txt").write_text("".join(lines))
    cfg = importlib.import_module("configs.plain_text").get_config(model)
    cfg.model.update(SIZES[model])
    cfg.data.source_dir, cfg.data.dir = str(source), str(folder / "data")
    steps = changes.get("steps", 6)
    intervals = {"steps": steps, "every.eval": steps, "every.checkpoint": steps}
    cfg.update_from_flattened_dict({**CHANGES, **intervals, **changes})
    return cfg


def train_text(folder, name, model="transformer", **changes):
    """Trains a run to its end; returns its directory."""
    cfg = text_config(folder, model, **changes)
    assert train.train(cfg, str(folder / name)) is ExitStatus.FINISHED
    return folder / name
