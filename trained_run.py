"""A run directory, opened to be used: scored, or asked for texts."""

import dataclasses
from collections.abc import Iterable, Iterator
from pathlib import Path

from jaxtyping import PyTree
from ml_collections import ConfigDict

from assembly import Experiment, assemble
from checks import check_lengths
from configs import base
from data.dataset import Dataset, open_dataset
from data.tokenizers import Tokenizer, parse_tokenizer
from errors import UserError
from tasks.floors import MOST_PAIRS
from tasks.search import check_decode
from training.checkpoints import Checkpoints
from training.run_directory import RunDirectory
from training.surroundings import commit


@dataclasses.dataclass(frozen=True)
class TrainedRun:
    """A run directory, opened to be used.

    Attributes:
      steps: of the checkpoint, or of those whose mean the parameters are.
    """

    directory: RunDirectory
    experiment: Experiment
    variables: PyTree
    steps: tuple[int, ...]

    @property
    def step(self) -> int:
        """The newest."""
        return self.steps[-1]

    def name(self, split: str) -> str:
        """Of the files that say how it does on a split."""
        if len(self.steps) == 1:
            return f"{split}-{self.step}"
        return f"{split}-{self.step}-average-{len(self.steps)}"


def open_run(
    workdir: str, checkpoint: str = "best", changes: dict | None = None
) -> TrainedRun:
    """Model, tokenizers and parameters of a run; its corpus is not needed.

    Args:
      checkpoint: "best", "last", a step, or "average:N" of the newest N.
      changes: keys to change by section, such as `{"decode": {"max_length": 9}}`.

    Raises UserError where there is no run or no such checkpoint.
    """
    directory = RunDirectory(workdir)
    cfg = read_config(directory)
    for section, values in (changes or {}).items():
        cfg[section].update_from_flattened_dict(values)
    check_lengths(cfg)
    check_decode(cfg.decode)
    languages = tuple(directory.read_json("about.json")["languages"])
    experiment = assemble(cfg, read_tokenizers(directory), languages)
    checkpoints = Checkpoints(directory.checkpoints)
    steps = checkpoints.find(checkpoint)
    params = checkpoints.restore_params(*steps)
    checkpoints.close()
    return TrainedRun(directory, experiment, {"params": params}, steps)


def read_tokenizers(directory: RunDirectory) -> dict[str, Tokenizer]:
    """A run's tokenizers by side; a joint vocabulary is one and the same object."""
    documents = directory.read_tokenizers()
    known = {text: parse_tokenizer(text) for text in documents.values()}
    return {side: known[text] for side, text in documents.items()}


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


def check_data(directory: RunDirectory, dataset: Dataset) -> None:
    """Raises UserError where the corpus is not the one a run was trained on."""
    before = directory.read_json("about.json")
    if before["hashes"] != dataset.hashes:
        raise UserError(
            f"{directory.path} was trained on other data: {before['corpus']} with "
            f"hashes {before['hashes']}, and here is version "
            f"{dataset.corpus.version} with hashes {dataset.hashes}"
        )


def evaluation_input(experiment: Experiment, dataset: Dataset, split: str):
    """A split's batches, and what else its task needs to score it."""
    cfg = experiment.cfg.eval
    batches = dataset.evaluation_batches(
        split, rows=cfg.batch_rows, length=cfg.segment_length
    )
    return batches, {"texts": dataset.texts(split)} if dataset.is_parallel else {}


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
    name = run.name(split)
    run.directory.write_lines(f"samples/{name}.jsonl", card.pop("samples", []))
    card["protocol"] |= {
        "checkpoint": list(run.steps) if len(run.steps) > 1 else run.step,
        **dataset.hashes,
        "commit": commit(),
    }
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
