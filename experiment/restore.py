"""Use of a trained run directory: evaluation, prediction, ensembles."""

import dataclasses
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import flax.linen as nn
import jax
import numpy as np
from jaxtyping import PyTree
from ml_collections import ConfigDict

from configs import base
from data.dataset import SIDES, Dataset, open_dataset
from data.tokenizers.base import Tokenizer
from data.tokenizers.build import dump_tokenizer, parse_tokenizer
from decoding.ensemble import Ensemble, ensemble_variables
from experiment.build import Experiment, build_experiment
from experiment.validate import check_values
from tasks.base import check_windows
from tasks.baselines import MAX_TRAINING_PAIRS
from training.checkpoint import Checkpoints
from training.optim.param_groups import names_of
from training.profiling.environment import commit
from training.run_dir import RunDirectory, describe_differences
from utils.errors import UserError


@dataclasses.dataclass(frozen=True)
class TrainedRun:
    """A run directory with its model and parameters.

    Attributes:
      steps: the checkpoint, or those whose mean the parameters are.
    """

    directory: RunDirectory
    experiment: Experiment
    variables: PyTree
    steps: tuple[int, ...]

    @property
    def step(self) -> int:
        """The newest step of the parameters."""
        return self.steps[-1]

    def name(self, split: str) -> str:
        """Returns the stem of the files that belong to a split."""
        if len(self.steps) == 1:
            return f"{split}-{self.step}"
        return f"{split}-{self.step}-average-{len(self.steps)}"


def open_run(
    workdir: str, checkpoint: str = "best", changes: dict | None = None
) -> TrainedRun:
    """Opens a run; its corpus is not needed.

    Args:
      checkpoint: "best", "last", a step, or "average:N" of the newest N.
      changes: keys to change by section, such as `{"decode": {"max_length": 9}}`.

    Raises:
      UserError: there is no such run or checkpoint.
    """
    directory = RunDirectory(workdir)
    cfg = read_config(directory)
    for section, values in (changes or {}).items():
        cfg[section].update_from_flattened_dict(values)
    check_values(cfg)
    about = directory.read_json("about.json") if directory.is_complete else {}
    if "languages" not in about:
        raise UserError(
            f"{directory.path}/about.json is missing or has no languages: the run "
            "was killed before it started, so train it again"
        )
    languages = tuple(about["languages"])
    experiment = build_experiment(cfg, read_tokenizers(directory), languages)
    checkpoints = Checkpoints(directory.checkpoints, is_reader=True)
    steps = checkpoints.resolve(checkpoint)
    params = checkpoints.restore_params(*steps)
    checkpoints.close()
    _check_parameters(directory, experiment, params)
    return TrainedRun(directory, experiment, {"params": params}, steps)


def _check_parameters(directory: RunDirectory, experiment: Experiment, params) -> None:
    """Compares the names and shapes of a checkpoint with those of the model."""

    def shapes(params):
        leaves = jax.tree.leaves(params)
        return {
            name: leaf.shape
            for name, leaf in zip(names_of(params), leaves, strict=True)
        }

    there, here = shapes(params), shapes(nn.meta.unbox(experiment.parameters()))
    for name in sorted(there.keys() | here.keys()):
        if there.get(name) != here.get(name):
            raise UserError(
                f"{directory.path}: its checkpoint does not belong to the model that "
                "its config.json describes (was the file changed, or is the run of "
                f"another version of this code?): {name} is "
                f"{there.get(name, 'missing')} there and {here.get(name, 'missing')} "
                "here"
            )


def read_config(directory: RunDirectory) -> ConfigDict:
    """Returns the config of a run, with defaults for keys it does not have."""
    stored = directory.read_config()
    try:
        cfg = base.get_config(stored["model"]["name"])
        cfg.update(stored)
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"{directory.path}/config.json is of another version of this code: {error}"
        ) from error
    return cfg


def read_tokenizers(directory: RunDirectory) -> dict[str, Tokenizer]:
    """Returns the tokenizers by side; a joint vocabulary is one object."""
    documents = directory.read_tokenizers()
    if set(documents) not in map(set, SIDES.values()):
        raise UserError(
            f"{directory.path}/tokenizer is damaged: it has the vocabularies "
            f"{', '.join(documents) or '(none)'}, and not all that a run needs"
        )
    try:
        known = {text: parse_tokenizer(text) for text in documents.values()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{directory.path}/tokenizer is damaged: {error}") from error
    return {side: known[text] for side, text in documents.items()}


@dataclasses.dataclass(frozen=True)
class EnsembleExperiment(Experiment):
    """Experiment whose model is an ensemble of several runs' evaluation models."""

    @property
    def evaluation_model(self) -> Ensemble:
        """The ensemble, whose models have the changes of `cfg.eval` already."""
        return self.model


def open_runs(
    workdirs: list[str], checkpoint: str = "best", changes: dict | None = None
) -> TrainedRun:
    """Opens a run, or several as an ensemble with the first one's directory and config.

    Raises:
      UserError: tasks or vocabularies differ, or as `open_run`.
    """
    if not workdirs:
        raise UserError("--workdir is empty: name a run directory")
    runs = [open_run(workdir, checkpoint, changes) for workdir in workdirs]
    first = runs[0]
    if len(runs) == 1:
        return first
    for other in runs[1:]:
        _check_compatible(first, other)
    models = tuple(run.experiment.evaluation_model for run in runs)
    own = {field.name for field in dataclasses.fields(Experiment)} - {"model"}
    parts = {name: getattr(first.experiment, name) for name in own}
    return dataclasses.replace(
        first,
        experiment=EnsembleExperiment(**parts, model=Ensemble(models)),
        variables=ensemble_variables([run.variables for run in runs]),
    )


def _check_compatible(one: TrainedRun, other: TrainedRun) -> None:
    """Raises UserError where two runs cannot be in one ensemble."""
    both = f"an ensemble of {one.directory.path} and {other.directory.path}"
    settings = {
        "task": lambda run: run.experiment.cfg.task,
        "data.document_order": lambda run: run.experiment.cfg.data.document_order,
        "model.dtype": lambda run: run.experiment.cfg.model.dtype,
    }
    for key, value in settings.items():
        if value(one) != value(other):
            raise UserError(
                f"{both}: {key} is {value(one)!r} in one and {value(other)!r} in the "
                "other, and must be the same"
            )
    documents = [
        {side: dump_tokenizer(it) for side, it in run.experiment.tokenizers.items()}
        for run in (one, other)
    ]
    for side in documents[0]:
        if documents[0][side] != documents[1][side]:
            sizes = [r.experiment.tokenizers[side].vocab_size for r in (one, other)]
            raise UserError(
                f"{both}: their {side} vocabularies differ ({sizes[0]} and {sizes[1]} "
                "tokens): train both with one, data.vocabulary=FILE or init_from"
            )


def check_data(directory: RunDirectory, dataset: Dataset) -> None:
    """Raises UserError where a dataset is not the one a run was trained on."""
    before = directory.read_json("about.json")
    if before["hashes"] != dataset.hashes:
        raise UserError(
            f"{directory.path} was trained on other data: {before['corpus']} with "
            f"hashes {before['hashes']}, and here is version "
            f"{dataset.corpus.version} with hashes {dataset.hashes}"
        )


def evaluation_inputs(experiment: Experiment, dataset: Dataset, split: str):
    """Returns the batches of a split, and the task's other inputs as keywords.

    Raises:
      UserError: windows are asked for, and the model has a carry.
    """
    cfg = experiment.cfg.eval
    batches = dataset.evaluation_batches(
        split,
        batch_size=cfg.batch_size,
        length=cfg.segment_length,
        window=cfg.window,
        stride=cfg.stride,
    )
    if not dataset.is_parallel:
        check_windows(experiment.evaluation_model, batches)
    return batches, {"texts": dataset.texts(split)} if dataset.is_parallel else {}


def evaluate(run: TrainedRun, split: str) -> tuple[dict, Path]:
    """Scores a run on a split; returns the score card and its path.

    Files beside the card have what is needed to compare runs: the sums of losses,
    and, for translations, all hypotheses and references.
    """
    experiment = run.experiment
    dataset = open_dataset(experiment.cfg.data, experiment.tokenizers)
    check_data(run.directory, dataset)
    batches, inputs = evaluation_inputs(experiment, dataset, split)
    model, cfg = experiment.evaluation_model, experiment.cfg
    card = experiment.task.evaluate(
        model, run.variables, batches, cfg, **inputs, intervals=True
    )
    write_eval_artifacts(run.directory, run.name(split), card)
    card["protocol"] |= {
        "checkpoint": list(run.steps) if len(run.steps) > 1 else run.step,
        **dataset.hashes,
        "commit": commit(),
        "config": f"{cfg.task}, {cfg.model.name} on {cfg.data.name}",
    }
    baselines = {"unigram": {"loss": dataset.unigram_loss(split)}}
    if dataset.is_parallel:
        is_small = dataset.corpus.splits["train"] <= MAX_TRAINING_PAIRS
        train_texts = dataset.texts("train") if is_small else []
        baselines |= experiment.task.trivial_baselines(train_texts, inputs["texts"])
    card = {"split": split, "step": run.step, **card, "baselines": baselines}
    warn_if_overwriting(run, split, card)
    return card, run.directory.write_json(f"eval/{run.name(split)}.json", card)


def warn_if_overwriting(run: TrainedRun, split: str, card: dict) -> None:
    """Warns before a score card of another protocol is replaced."""
    name = f"eval/{run.name(split)}.json"
    if not (run.directory.path / name).exists():
        return
    before = run.directory.read_json(name).get("protocol", {})
    before |= {"commit": card["protocol"]["commit"]}
    if differences := describe_differences(before, card["protocol"]):
        print(
            f"replacing {name}, of another protocol: {'; '.join(differences)} (python "
            "-m analysis.publish_results --keep keeps a card)",
            file=sys.stderr,
        )


def write_eval_artifacts(directory: RunDirectory, name: str, card: dict) -> None:
    """Moves what is too long for a score card to files beside it."""
    samples, references = card.pop("samples", []), card.pop("references", [])
    directory.write_lines(f"samples/{name}.jsonl", samples)
    if samples:
        hypotheses = [sample["hypothesis"] for sample in samples]
        for side, lines in {"hypotheses": hypotheses, "references": references}.items():
            path = directory.path / "samples" / f"{name}.{side}.txt"
            path.write_text("".join(f"{line}\n" for line in lines), encoding="utf8")
    blocks = card.pop("blocks")
    path = directory.path / "eval" / f"{name}.npz"
    path.parent.mkdir(parents=True, exist_ok=True)
    totals, weights = blocks.total.astype(np.float32), blocks.weight.astype(np.uint32)
    with path.open("wb") as file:
        np.savez_compressed(file, total=totals, weight=weights)


def predict(run: TrainedRun, lines: Iterable[str], **keywords) -> Iterator[str]:
    """Yields the translation or the continuation of each line, in order.

    Args:
      keywords: `prefix`, `document_order` and `chunk_size`; see tasks/base.py.
    """
    return run.experiment.task.predict(*_inference_inputs(run, lines), **keywords)


def predict_n_best(
    run: TrainedRun, lines: Iterable[str], **keywords
) -> Iterator[list[tuple[str, float]]]:
    """Yields `decode.n_best` texts with scores for each line; none for a blank one."""
    task = run.experiment.task
    return task.predict_n_best(*_inference_inputs(run, lines), **keywords)


def score_targets(
    run: TrainedRun, lines: Iterable[str], **keywords
) -> Iterator[tuple[float, int] | None]:
    """Yields log probability (nats) and length of each target; None if blank."""
    task = run.experiment.task
    return task.score_targets(*_inference_inputs(run, lines), **keywords)


def _inference_inputs(run: TrainedRun, lines: Iterable[str]):
    model, cfg = run.experiment.evaluation_model, run.experiment.cfg
    return model, run.variables, lines, cfg
