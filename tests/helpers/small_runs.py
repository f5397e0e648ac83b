"""Short runs on the embedded corpora, for the tests."""

import importlib
import itertools

import jax
import numpy as np

from data.corpora.text import python_stdlib
from data.corpora.translation import cldr
from data.dataset import open_dataset
from experiment import build, setup

WIDTH = {
    "rnn": {"width": 64, "embedding_width": 64, "attention_width": 32},
    "transformer": {"layers": 1, "width": 64, "heads": 4, "feed_forward": 128},
    "transformer_xl": {"layers": 1, "width": 64, "heads": 4, "feed_forward": 128},
}

# A language model with a carry whose programs compile fastest.
PLAIN_RNN = {
    "model.readout": "none",
    "model.attention_window": 0,
    "model.initialization": "uniform",
}
CHANGES = {
    "cldr": {
        "model.dropout": 0.0,
        "data.buckets": 1,
        "data.max_length": 16,
        "data.tokens_per_batch": 512,
        "data.vocab_size": 500,
        "optim.lr": 5e-3,
        "optim.warmup": 20,
    },
    "python_stdlib": {
        "model.dropout": 0.0,
        "data.batch_size": 16,
        "data.segment_length": 16,
        "eval.batch_size": 64,
        "optim.lr": 3e-3,
        "optim.warmup": 10,
    },
}


def small_corpora(monkeypatch, num_pairs=800):
    """Makes the builders give a part of their corpora, of the same kind.

    Args:
      num_pairs: number of pairs for training; thousands, where a model is to learn.
    """
    for split, size in {"train": num_pairs, "validation": 100, "test": 100}.items():
        monkeypatch.setitem(cldr.SIZES, split, size)
    library = python_stdlib.read_library
    monkeypatch.setattr(
        python_stdlib,
        "read_library",
        lambda path: itertools.islice(library(path), 0, None, 8),
    )


def config(name, model, data_dir, **changes):
    """A config of `configs/` made small."""
    cfg = importlib.import_module(f"configs.{name}").get_config(model)
    cfg.model.update(WIDTH[model])
    cfg.update_from_flattened_dict(CHANGES[name])
    if name == "python_stdlib" and model == "transformer_xl":
        cfg.model.memory_length = 32
    cfg.data.dir = str(data_dir)
    cfg.update_from_flattened_dict(changes)
    return cfg


class ShortRun:
    """A model trained for some steps, and losses of the validation split."""

    def __init__(self, cfg):
        self.dataset = open_dataset(cfg.data)
        self.experiment = build.build_experiment(
            cfg, self.dataset.tokenizers, self.dataset.corpus.languages
        )
        training = setup.TrainingSetup.from_experiment(self.experiment, self.dataset)
        self.state = training.partitioner.init(training.make_state)
        carry = training.make_carry()
        step = training.compiled_step(self.state, carry)
        for k in range(cfg.steps):
            batch = training.partitioner.put_batch(training.batches[k])
            self.state, carry, _ = step(self.state, carry, batch)
        self.compilations = step.cache_size()
        self._loss = jax.jit(self.one_loss)

    def one_loss(self, params, carry, batch):
        """Pairs and the next carry, without dropout."""
        task, model = self.experiment.task, self.experiment.model
        return task.loss(model, {"params": params}, carry, batch, None, train=False)

    def loss(self, change=lambda batch: batch, most=40):
        """Mean loss over batches of the validation split, each changed."""
        batches, _ = self.experiment.task.evaluation_inputs(
            self.experiment, self.dataset, "validation"
        )
        rows = getattr(batches, "batch_size", 1)
        carry = self.experiment.task.initial_carry(
            self.experiment.model, rows, train=False
        )
        total = weight = 0.0
        for k in range(min(len(batches), most)):
            pairs, carry = self._loss(self.state.params, carry, change(batches[k]))
            total += float(pairs["loss"][0])
            weight += float(pairs["loss"][1])
        return total / weight


def forget(batch):
    """Empties the carry before a segment."""
    return {**batch, "reset": np.ones_like(batch["reset"])}


def shuffle_sources(batch):
    """Gives each target the source of another."""
    real = np.flatnonzero(batch["ids"] >= 0)
    other = np.arange(len(batch["ids"]))
    other[real] = np.roll(real, len(real) // 2)
    names = ("source", "source_mask")
    return {**batch, **{name: batch[name][other] for name in names}}
