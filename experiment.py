"""The glue: from a config, or a run directory, to data, model, task and training.

With `assembly.py` the only file that knows all packages. A run directory is the
only interface between `train` and everything after it.
"""

import dataclasses
import json
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree
from ml_collections import ConfigDict

from assembly import Experiment, assemble, check_config, check_corpus, check_lengths
from configs import base
from data.dataset import Dataset, open_dataset
from data.tokenizers import Tokenizer, dump_tokenizer, parse_tokenizer
from errors import UserError
from tasks.floors import MOST_PAIRS
from training.averaging import evaluation_params
from training.checkpoints import Checkpoints
from training.loop import Run
from training.optimizers import make_optimizer
from training.partitioning import Partitioner
from training.run_directory import RunDirectory, different_keys
from training.step import TrainState, make_state, make_step
from training.surroundings import commit, surroundings
from training.writers import Writers


@dataclasses.dataclass(frozen=True)
class Training:
    """All that is needed to make steps, but for the state."""

    experiment: Experiment
    partitioner: Partitioner
    batches: Any
    optimizer: Any
    schedule: Any

    @classmethod
    def of(cls, experiment: Experiment, dataset: Dataset) -> "Training":
        """The training that a config describes."""
        cfg = experiment.cfg
        optimizer, schedule = make_optimizer(cfg.optim, cfg.steps)
        return cls(
            experiment,
            Partitioner(cfg.parallel),
            dataset.train_batches(),
            optimizer,
            schedule,
        )

    def make_state(self) -> TrainState:
        """The first state, parameters with the names of their axes."""
        task, model = self.experiment.task, self.experiment.model
        key = jax.random.key(self.experiment.cfg.seed)
        batch = jax.tree.map(jnp.asarray, self.batches[0])
        variables = task.init(model, key, batch)
        return make_state(variables["params"], self.optimizer)

    def make_carry(self) -> PyTree:
        """What the first batch finds."""
        rows = self.partitioner.padded(getattr(self.batches, "rows", 1))
        task, model = self.experiment.task, self.experiment.model
        return self.partitioner.put_carry(task.initial_carry(model, rows, train=True))

    def compiled_step(self, state: TrainState, carry: PyTree):
        """The step on the partitioner's devices, for what lies as these do."""
        task, model = self.experiment.task, self.experiment.model

        def loss(variables, carry, batch, rng):
            return task.loss(model, variables, carry, batch, rng, train=True)

        seed = self.experiment.cfg.seed
        step = make_step(loss, self.optimizer, self.schedule, seed)
        return self.partitioner.compile(step, state, carry)


def train(cfg: ConfigDict, workdir: str) -> bool:
    """Trains to `cfg.steps`, from the newest checkpoint if there is one.

    Returns whether the end was reached; False after a SIGTERM or SIGINT, with
    everything saved.
    """
    directory = RunDirectory(workdir)
    config = json.loads(cfg.to_json_best_effort())
    directory.check_config(config)
    check_config(cfg)
    known = read_tokenizers(directory) if directory.exists else None
    dataset = open_dataset(cfg.data, known)
    check_corpus(cfg, dataset)
    experiment = assemble(cfg, dataset.tokenizers, dataset.corpus.languages)
    training = Training.of(experiment, dataset)
    state = training.partitioner.init(training.make_state)
    carry = training.make_carry()
    if directory.exists:
        check_data(directory, dataset)
        warn_of_changes(directory, about(state, dataset))
    else:
        documents = {k: dump_tokenizer(v) for k, v in dataset.tokenizers.items()}
        directory.write_tokenizers(documents)
        directory.write_json("about.json", about(state, dataset))
        directory.write_json("config.json", config)

    checkpoints = Checkpoints(directory.checkpoints)
    if checkpoints.steps():
        content = {"state": state, "carry": carry}
        content = checkpoints.restore(checkpoints.find("last"), content)
        state, carry = content["state"], content["carry"]
        print(f"resuming at step {int(state.step)}")
    run = Run(
        step=training.compiled_step(state, carry),
        batch=lambda k: training.partitioner.put_batch(training.batches[k]),
        evaluate=validator(experiment, dataset),
        best=experiment.task.best,
        steps=cfg.steps,
        log_every=cfg.every.log,
        eval_every=cfg.every.eval,
        save_every=cfg.every.checkpoint,
        checkpoints=checkpoints,
        writers=Writers(directory.path, step=int(state.step), steps=cfg.steps),
    )
    _, finished = run.train(state, carry)
    return finished


def validator(experiment: Experiment, dataset: Dataset):
    """From a state to the scores of the validation split, by name."""
    batches, extra = evaluation_input(experiment, dataset, "validation")

    def validate(state: TrainState) -> dict[str, float]:
        card = experiment.task.evaluate(
            experiment.evaluation_model,
            {"params": evaluation_params(state)},
            batches,
            experiment.cfg,
            **extra,
        )
        return {name: score["value"] for name, score in card["scores"].items()}

    return validate


def evaluation_input(experiment: Experiment, dataset: Dataset, split: str):
    """A split's batches, and what else its task needs to score it."""
    cfg = experiment.cfg.eval
    batches = dataset.evaluation_batches(
        split, rows=cfg.batch_rows, length=cfg.segment_length
    )
    return batches, {"texts": dataset.texts(split)} if dataset.is_parallel else {}


def about(state: TrainState, dataset: Dataset) -> dict:
    """What a run's numbers depend on beside its config."""
    corpus = dataset.corpus
    return {
        **surroundings(),
        "parameters": num_parameters(state.params),
        "hashes": dataset.hashes,
        "corpus": {"name": corpus.name, "version": corpus.version},
        "languages": list(corpus.languages),
        "examples": dict(corpus.splits),
        "dropped": dataset.dropped,
    }


def num_parameters(params: PyTree) -> int:
    """How many numbers a model learns."""
    return sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(params))


@dataclasses.dataclass(frozen=True)
class TrainedRun:
    """A run directory, opened to be used.

    Attributes:
      step: of the checkpoint.
    """

    directory: RunDirectory
    experiment: Experiment
    variables: PyTree
    step: int


def open_run(
    workdir: str, checkpoint: str = "best", changes: dict | None = None
) -> TrainedRun:
    """Model, tokenizers and parameters of a run; its corpus is not needed.

    Args:
      checkpoint: "best", "last" or a step.
      changes: keys to change by section, such as `{"decode": {"max_length": 9}}`.

    Raises UserError where there is no run or no such checkpoint.
    """
    directory = RunDirectory(workdir)
    cfg = read_config(directory)
    for section, values in (changes or {}).items():
        cfg[section].update_from_flattened_dict(values)
    check_lengths(cfg)
    languages = tuple(directory.read_json("about.json")["languages"])
    experiment = assemble(cfg, read_tokenizers(directory), languages)
    checkpoints = Checkpoints(directory.checkpoints)
    step = checkpoints.find(checkpoint)
    params = checkpoints.restore_params(step)
    checkpoints.close()
    return TrainedRun(directory, experiment, {"params": params}, step)


def read_tokenizers(directory: RunDirectory) -> dict[str, Tokenizer]:
    """A run's tokenizers by side; a joint vocabulary is one and the same object."""
    documents = directory.read_tokenizers()
    known = {text: parse_tokenizer(text) for text in documents.values()}
    return {side: known[text] for side, text in documents.items()}


def check_data(directory: RunDirectory, dataset: Dataset) -> None:
    """Raises UserError where the corpus is not the one a run was trained on."""
    before = directory.read_json("about.json")
    if before["hashes"] != dataset.hashes:
        raise UserError(
            f"{directory.path} was trained on other data: {before['corpus']} with "
            f"hashes {before['hashes']}, and here is version "
            f"{dataset.corpus.version} with hashes {dataset.hashes}"
        )


def warn_of_changes(directory: RunDirectory, now: dict) -> None:
    """Says on standard error what differs from when a run was begun."""
    for line in different_keys(directory.read_json("about.json"), now):
        print(f"resuming although {line}", file=sys.stderr)


def read_config(directory: RunDirectory) -> ConfigDict:
    """A run's config, on top of today's defaults."""
    stored = directory.read_config()
    cfg = base.get_config(stored["model"]["name"])
    try:
        cfg.update(stored)
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"{directory.path}/config.json is of another version of this code: {error}"
        ) from error
    return cfg


def evaluate(run: TrainedRun, split: str) -> tuple[dict, Path]:
    """Scores a run on a split; returns the card and where it was written."""
    experiment = run.experiment
    dataset = open_dataset(experiment.cfg.data, experiment.tokenizers)
    check_data(run.directory, dataset)
    batches, extra = evaluation_input(experiment, dataset, split)
    if dataset.is_parallel:
        extra["intervals"] = True
    card = experiment.task.evaluate(
        experiment.evaluation_model, run.variables, batches, experiment.cfg, **extra
    )
    name = f"{split}-{run.step}"
    run.directory.write_lines(f"samples/{name}.jsonl", card.pop("samples", []))
    card["protocol"] |= {"checkpoint": run.step, **dataset.hashes, "commit": commit()}
    found = {"unigram": {"loss": dataset.unigram_loss(split)}}
    if dataset.is_parallel:
        few = dataset.corpus.splits["train"] <= MOST_PAIRS
        train_texts = dataset.texts("train") if few else []
        found |= experiment.task.floors(train_texts, extra["texts"])
    card = {"split": split, "step": run.step, **card, "floors": found}
    return card, run.directory.write_json(f"eval/{name}.json", card)


def predict(run: TrainedRun, lines: Iterable[str]) -> Iterator[str]:
    """A translation or a continuation of each line, in order."""
    task, model = run.experiment.task, run.experiment.evaluation_model
    return task.predict(model, run.variables, lines, run.experiment.cfg)
