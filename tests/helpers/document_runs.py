"""Small runs of masked language models on documents of a user's own."""

import numpy as np

from configs import base
from helpers.labeled_runs import SIZES
from helpers.tables import write

LETTERS = "abcdefgh"


def cyclic_documents(num_documents, seed):
    """Returns lines of documents whose letters follow each other in a circle.

    Documents of even number are in upper case, so that a model can learn whether two
    texts are of one document, half of the time.
    """
    random, lines = np.random.default_rng(seed), []
    for number in range(num_documents):
        letter = int(random.integers(len(LETTERS)))
        for _ in range(random.integers(2, 7)):
            length = int(random.integers(3, 7))
            places = (letter + np.arange(length)) % len(LETTERS)
            line = " ".join(LETTERS[place] for place in places)
            lines.append(line if number % 2 else line.upper())
            letter += length
        lines.append("")
    return lines


def write_documents(folder):
    """Writes documents whose masked letters can be learned exactly."""
    for seed, (stem, size) in enumerate({"train": 60, "valid": 9, "test": 9}.items()):
        write(folder / f"{stem}.txt", cyclic_documents(size, seed))


def masked_config(folder, model="rnn", **changes):
    """Returns a config of a small model of the masked letters of a folder."""
    cfg = base.get_config(model)
    cfg.task = "masked_language_modeling"
    cfg.model.update({"dropout": 0.0, **SIZES[model]})
    cfg.data.update(name="document_text", source_dir=str(folder))
    cfg.data.update(dir=str(folder / "data"), cache_dir=str(folder / "cache"))
    cfg.data.update(tokenizer="word", max_length=16, segment_length=16, batch_size=16)
    cfg.mlm.probability = 0.3
    cfg.optim.update(lr=2e-2, schedule="constant", warmup=0)
    cfg.steps, cfg.every.eval, cfg.every.log, cfg.every.checkpoint = 120, 0, 20, 0
    cfg.update_from_flattened_dict(changes)
    return cfg
